"""A diagnosis from the request to its record: examine, run the failing and the repaired pipeline on all data, write it down.

runs/<name>/
  request.json      what was asked for; the same request finds its diagnosis done, or of somebody's own network replaces it
  trials/           the failing and the repaired recipe, as in any run
  repaired.toml     the repaired recipe, for `headstart compare --recipe`; where a recipe says what was measured
  copies.csv        test images that have copies among the training images, with these; where there are any
  diagnosis.json    the findings (docs/diagnosis.md); written last
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.diagnosis.both_trials import Training, train_both
from headstart.diagnosis.copies import write_copies
from headstart.diagnosis.examine import examine
from headstart.diagnosis.examine_predictions import examine_predictions
from headstart.diagnosis.judging import RATE, SEED, judge_curve, judge_failing, judge_repaired, with_duplicates
from headstart.diagnosis.look_scratch import opponent_recipe, same_labels, scratch_trials, with_scratch
from headstart.diagnosis.own_folder import own_request, require_own_folder, require_recipes_folder
from headstart.diagnosis.own_recipe import recipe_of_subject, require_same_weights
from headstart.diagnosis.record import RULES_VERSION, make_record
from headstart.diagnosis.repair import to_toml
from headstart.diagnosis.subject import Kept, Subject, subject_of_recipe
from headstart.environment import describe_environment
from headstart.errors import UsageError
from headstart.files import canonical_json, read_json, sha256_of_text, write_json, write_text
from headstart.models.backbones import find_backbone
from headstart.records import ImageSet, Recipe, Split
from headstart.study.checks import refuse_known_test_images
from headstart.study.kinds import Bench
from headstart.study.ledger import open_run
from headstart.study.observer import Observer, decoding_progress
from headstart.study.presets import DEFAULT_BACKBONE, classroom_recipes, default_backbones, named_recipe
from headstart.study.resolving import Overrides, resolve_recipe
from headstart.study.run import finished_trial, recipe_asked_for


@dataclass(frozen=True)
class DiagnosisRequest:
    """What is asked of a diagnosis; see the command line's help for each option.

    `of_run` is the folder of the finished run that the recipe comes from: its trials are read instead of being run again, those
    from scratch as the control. `scratch`: train headstart's own network from scratch, too, as what transfer has to beat.
    """

    data: str
    recipe: str | Recipe | None = None
    backbone: str | None = None
    weights_dir: Path | None = None
    limit: int | None = None
    split_seed: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    remove_duplicates: bool = True
    name: str | None = None
    runs: Path = Path("runs")
    of_run: Path | None = None
    scratch: bool = False


def diagnose_recipe(request: DiagnosisRequest, device: torch.device, observer: Observer, command: str) -> Path:
    """Diagnose one of our recipes.

    Args:
        request: what is asked for.
        device: where networks run.
        observer: told of every step.
        command: recorded as the way to reproduce it.

    Returns:
        The folder with `diagnosis.json`; found done where the same request was diagnosed before.

    Raises:
        HeadstartError: recipe, data or weights cannot be used; the message says what to do.
    """
    started = time.perf_counter()
    images, split = load_data(request, observer)
    recipe = _requested_recipe(request, images)
    if recipe.kind not in ("probe", "finetune") or recipe.backbone is None:
        raise UsageError(
            f"Recipe {recipe.name!r} ({recipe.kind}) does not reuse a pretrained network; there is no transfer to diagnose. "
            "Name a probe or a finetune recipe with --recipe."
        )
    backbone = find_backbone(recipe.backbone, request.weights_dir)
    require_same_weights(recipe, backbone)
    refuse_known_test_images(backbone, images)
    failing = resolve_recipe(recipe, images, split, backbone, Overrides())
    asked = {
        "diagnosis": RULES_VERSION,
        "data": images.fingerprint,
        "recipe": recipe_asked_for(failing),
        "split_seed": request.split_seed,
        "val_fraction": request.val_fraction,
        "test_fraction": request.test_fraction,
        "remove_duplicates": request.remove_duplicates,
    }
    scratch = scratch_trials(request.of_run)
    if scratch:
        asked["scratch"] = [trial.identity for trial in scratch]
    if request.scratch:
        asked["against_scratch"] = True
    identity = sha256_of_text(canonical_json(asked))
    if request.name is not None:
        require_recipes_folder(request.runs / request.name)
    of_run = request.of_run
    called = f"{images.name}-diagnosis" if of_run is None else f"{of_run.name}-diagnosis-{recipe.name}"
    ledger = open_run(request.runs, request.name, called, asked)
    done = ledger.folder / "diagnosis.json"
    if done.exists() and read_json(done).get("identity") == identity:
        return ledger.folder
    with ledger.locked():
        bench = Bench(images, split, device, observer)
        subject = subject_of_recipe(failing, backbone)
        seen = examine(subject, images, split, observer)
        observer.stage("training", 1)
        training = Training(bench, backbone, ledger, request.of_run, request.weights_dir, request.scratch)
        both = train_both(training, failing, seen, scratch)
        subject = replace(subject, name=both.trained.name)
        (ledger.folder / "repaired.toml").unlink(missing_ok=True)  # of another request under this name
        if both.recipe is not None:
            write_text(ledger.folder / "repaired.toml", to_toml(both.recipe))
        write_copies(ledger.folder, both.examination.copies)
        record = make_record(
            subject,
            images,
            split,
            both.examination,
            failing=both.failing,
            repaired=both.repaired,
            repaired_recipe=both.recipe,
            name=ledger.folder.name,
            command=command,
            part="test",
            study=_study(request, device, list(dict.fromkeys(result.identity for result in training.done.values()))),
            seconds={"repair": both.repair_seconds, "total": time.perf_counter() - started},
        )
        write_json(done, record | {"identity": identity})
    return ledger.folder


def diagnose_own(
    subject: Subject | Kept,
    images: ImageSet,
    split: Split,
    request: DiagnosisRequest,
    device: torch.device,
    observer: Observer,
    command: str,
) -> Path:
    """Diagnose somebody's own network, from the tensors that really arrive; or only what is kept of it.

    Args:
        subject: from `subject_of_module`, or predictions and what else is kept.
        images, split: its data.
        request: its `runs` and `name` are of the folder: without a name it is the data's, with a number where another diagnosis has
            that; only the same network, fed the same, on the same data replaces its own. Its recipe and its backbone are not looked at.
        device: where a network from scratch is trained, if one is asked for; somebody's own runs on the CPU.
        observer: told of every step.
        command: recorded as the way to reproduce it.

    Returns:
        The folder with `diagnosis.json`.

    Raises:
        UsageError: the named folder holds another run, or the network cannot be examined.
    """
    started = time.perf_counter()
    if request.name is not None:
        require_own_folder(request.runs / request.name, subject)
    if isinstance(subject, Kept):
        examination = examine_predictions(subject.evidence, images, split)
    else:
        examination = examine(subject, images, split, observer)
    repairing = time.perf_counter()
    curve_alone = isinstance(subject, Kept) and subject.kind == "history"
    failing = judge_curve(subject.evidence.history) if curve_alone else judge_failing(examination, images, split)
    examination = with_duplicates(examination, failing)
    proved = {finding.cause for finding in examination.findings if finding.status == "proved"}
    in_pipeline = proved & set(examination.factors)
    repaired = judge_repaired(examination, failing, images, split)
    recipe = None
    if (in_pipeline or RATE in proved) and isinstance(subject, Subject):
        recipe = recipe_of_subject(subject, examination, request.weights_dir)
    seconds = {"repair": time.perf_counter() - repairing}
    ledger = open_run(request.runs, request.name, f"{images.name}-diagnosis", own_request(subject, images, split))
    with ledger.locked():
        trials: list[str] = []
        if request.scratch:
            observer.stage("training", 1)
            transfer = repaired or failing
            bench = Bench(images, same_labels(split, transfer), device, observer)
            opponent, _ = finished_trial(opponent_recipe(images, bench.split), None, bench, ledger, SEED)
            examination = with_scratch(examination, [], transfer, len(images.class_names), opponent)
            trials = [opponent.identity]
        record = make_record(
            subject,
            images,
            split,
            examination,
            failing=failing,
            repaired=repaired,
            repaired_recipe=recipe,
            name=ledger.folder.name,
            command=command,
            part="val" if curve_alone else "test",
            study=_study(request, device if request.scratch else torch.device("cpu"), trials),
            seconds={**seconds, "total": time.perf_counter() - started},
        )
        (ledger.folder / "repaired.toml").unlink(missing_ok=True)  # of an earlier diagnosis
        if recipe is not None:
            write_text(ledger.folder / "repaired.toml", to_toml(recipe))
        write_copies(ledger.folder, examination.copies)
        write_json(ledger.folder / "diagnosis.json", record)
    return ledger.folder


def _study(request: DiagnosisRequest, device: torch.device, trials: list[str]) -> dict[str, Any]:
    """How the data were drawn, where the trials are, and what everything ran on."""
    return {
        "limit": request.limit,
        "split_seed": request.split_seed,
        "val_fraction": request.val_fraction,
        "test_fraction": request.test_fraction,
        "keep_duplicates": not request.remove_duplicates,
        "weights_dir": str(request.weights_dir) if request.weights_dir is not None else None,
        "trial_seed": SEED,
        "trials": trials,
        "environment": describe_environment(device),
    }


def load_data(request: DiagnosisRequest, observer: Observer) -> tuple[ImageSet, Split]:
    """Load and split the data of a request."""
    images = load_images(
        request.data, limit=request.limit, seed=request.split_seed, progress=decoding_progress(observer)
    )
    split, duplicates = make_split(
        images,
        seed=request.split_seed,
        val_fraction=request.val_fraction,
        test_fraction=request.test_fraction,
        remove_duplicates=request.remove_duplicates,
    )
    observer.data_ready(images, split, duplicates)
    return images, split


def _requested_recipe(request: DiagnosisRequest, images: ImageSet) -> Recipe:
    if isinstance(request.recipe, Recipe):
        return request.recipe
    backbone = request.backbone or DEFAULT_BACKBONE
    if request.recipe is None:
        return next(recipe for recipe in classroom_recipes(backbone) if recipe.uses_pretrained_weights)
    known = [request.backbone] if request.backbone else default_backbones(images)
    return named_recipe(request.recipe, images, known)


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """Read a folder's `diagnosis.json`."""
    record: dict[str, Any] = read_json(folder / "diagnosis.json")
    return record
