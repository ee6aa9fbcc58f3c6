"""A diagnosis from the request to its record: examine, run the failing and the repaired pipeline on all data, write it down.

runs/<name>/
  request.json      what was asked for; the same request finds its diagnosis done
  trials/           the failing and the repaired recipe, as in any run
  repaired.toml     the repaired recipe, for `headstart compare --recipe`
  diagnosis.json    the findings (docs/diagnosis.md); written last
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.diagnosis.examination import Examination
from headstart.diagnosis.examine import examine
from headstart.diagnosis.examine_predictions import examine_predictions
from headstart.diagnosis.judging import (
    SEED,
    judge_failing,
    judge_repaired,
    judge_trial,
    with_duplicates,
    with_training,
    without_twins,
)
from headstart.diagnosis.look_scratch import scratch_trials, with_scratch
from headstart.diagnosis.record import DIAGNOSIS_SCHEMA_VERSION, make_record
from headstart.diagnosis.repair import repaired_recipe, to_toml
from headstart.diagnosis.subject import Kept, Subject, subject_of_recipe
from headstart.errors import UsageError
from headstart.files import canonical_json, read_json, sha256_of_text, write_json, write_text
from headstart.models.backbones import find_backbone
from headstart.records import ImageSet, Recipe, Split, TrialResult, trial_identity
from headstart.study.kinds import Bench
from headstart.study.ledger import Ledger, open_run, recipe_from_json
from headstart.study.observer import Observer, decoding_progress
from headstart.study.planning import Overrides, resolve_recipe
from headstart.study.presets import DEFAULT_BACKBONE, classroom_recipes, default_backbones, named_recipe
from headstart.study.run import finished_trial, recipe_to_json


@dataclass(frozen=True)
class DiagnosisRequest:
    """What is asked of a diagnosis; see the command line's help for each option.

    `of_run` is the folder of the finished run that the recipe comes from: its trials are read instead of being run again, those
    from scratch as the control.
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
    failing = resolve_recipe(recipe, images, split, backbone, Overrides())
    asked = {
        "diagnosis": DIAGNOSIS_SCHEMA_VERSION,
        "data": images.fingerprint,
        "recipe": recipe_to_json(failing),
        "split_seed": request.split_seed,
        "val_fraction": request.val_fraction,
        "test_fraction": request.test_fraction,
        "remove_duplicates": request.remove_duplicates,
    }
    scratch = scratch_trials(request.of_run)
    if scratch:
        asked["scratch"] = [trial.identity for trial in scratch]
    identity = sha256_of_text(canonical_json(asked))
    ledger = open_run(request.runs, request.name, f"{images.name}-diagnosis", asked)
    done = ledger.folder / "diagnosis.json"
    if done.exists() and read_json(done).get("identity") == identity:
        return ledger.folder
    with ledger.locked():
        bench = Bench(images, split, device, observer)
        observer.stage("training", 1)
        first = _known_trial(request, failing, images, split)
        if first is None:
            first, _ = finished_trial(failing, backbone, bench, ledger, SEED)
        subject = subject_of_recipe(failing, backbone)
        examination = examine(subject, images, split, observer)
        examination = with_training(examination, failing, first, bench, backbone, ledger)
        judged = judge_trial(first, split)
        examination = with_duplicates(examination, judged, images)
        assert examination.remade is not None
        proved = [finding.cause for finding in examination.findings if finding.status == "proved"]
        repairing = time.perf_counter()
        repaired: Recipe | None = None
        second: TrialResult | None = None
        cured = repaired_recipe(failing, examination.remade.repaired.preprocessing, proved)
        cured = resolve_recipe(cured, images, split, backbone, Overrides())
        if cured.with_changes(name=failing.name) != failing:  # not every proved cause is a setting of the recipe
            repaired = cured
            second, _ = finished_trial(repaired, backbone, bench, ledger, SEED)
            write_text(ledger.folder / "repaired.toml", to_toml(repaired))
        better = judge_trial(second, split) if second is not None else judged
        if 16 in proved:
            better = without_twins(better, images, split)
        if scratch:
            examination = with_scratch(examination, scratch, second or first, len(images.class_names))
        record = make_record(
            subject,
            images,
            split,
            examination,
            failing=judged,
            repaired=better if second is not None or 16 in proved else None,
            repaired_recipe=repaired,
            name=ledger.folder.name,
            command=command,
            part="test",
            seconds={
                "repair": time.perf_counter() - repairing,
                "total": time.perf_counter() - started,
            },
        )
        write_json(done, record | {"identity": identity})
    return ledger.folder


def diagnose_own(
    subject: Subject | Kept,
    images: ImageSet,
    split: Split,
    *,
    observer: Observer,
    runs: Path,
    name: str | None,
    command: str,
) -> Path:
    """Diagnose somebody's own network, from the tensors that really arrive; or only what is kept of it.

    Args:
        subject: from `subject_of_module`, or predictions and what else is kept.
        images, split: its data.
        observer: told of every step.
        runs, name: of the folder; its files are replaced.
        command: recorded as the way to reproduce it.

    Returns:
        The folder with `diagnosis.json`.
    """
    started = time.perf_counter()
    if isinstance(subject, Kept):
        examination = examine_predictions(subject.evidence, images, split)
    else:
        examination = examine(subject, images, split, observer)
    repairing = time.perf_counter()
    failing = judge_failing(examination, images, split)
    examination = with_duplicates(examination, failing, images)
    proved = {finding.cause for finding in examination.findings if finding.status == "proved"}
    in_pipeline = proved & set(examination.factors)
    repaired = judge_repaired(examination, failing, images, split)
    record = make_record(
        subject,
        images,
        split,
        examination,
        failing=failing,
        repaired=repaired,
        repaired_recipe=_recipe_of(subject, examination) if in_pipeline and isinstance(subject, Subject) else None,
        name=name or f"{images.name}-diagnosis",
        command=command,
        part="test",
        seconds={"repair": time.perf_counter() - repairing, "total": time.perf_counter() - started},
    )
    folder = runs / str(record["name"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "repaired.toml").unlink(missing_ok=True)  # of an earlier diagnosis
    if record["repaired_recipe"] is not None:
        write_text(folder / "repaired.toml", to_toml(recipe_from_json(record["repaired_recipe"])))
    write_json(folder / "diagnosis.json", record)
    return folder


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


def _known_trial(request: DiagnosisRequest, recipe: Recipe, images: ImageSet, split: Split) -> TrialResult | None:
    """The recipe's trial in the run that it comes from, if it is there; `None` otherwise."""
    if request.of_run is None:
        return None
    identity = trial_identity(recipe, images.fingerprint, split, SEED)
    ledger = Ledger(request.of_run)
    return ledger.load(identity) if ledger.is_done(identity) else None


def _recipe_of(subject: Subject, examination: Examination) -> Recipe | None:
    """The repaired pipeline of somebody's own network as a recipe of ours, where its backbone is known."""
    if subject.published is None or examination.remade is None:
        return None
    preprocessing = examination.remade.repaired.preprocessing
    return Recipe(
        name=f"{subject.published.architecture}-repaired",
        kind="probe",
        backbone=subject.published.architecture,
        preprocessing=preprocessing,
        input_size=preprocessing.input_size,
    )


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """Read a folder's `diagnosis.json`."""
    record: dict[str, Any] = read_json(folder / "diagnosis.json")
    return record
