"""Running a study: data, recipes and plan come together; what is not yet done is run, what is done is read back."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from headstart.bundle import save_bundle
from headstart.data.audit import data_facts
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.errors import HeadstartError, UsageError, WeightsUnavailableError
from headstart.files import read_json, write_json
from headstart.models.backbones import ALIASES, Backbone, find_backbone, located, untrained_backbone
from headstart.models.small32 import FAMILY
from headstart.records import (
    DuplicateReport,
    ImageSet,
    NotRun,
    Recipe,
    Split,
    TrialResult,
    lasting_settings,
    trial_identity,
)
from headstart.study.checks import knows_the_test_images, refuse_known_test_images, require, training_checks
from headstart.study.kinds import Bench
from headstart.study.ledger import Ledger, open_run, recipe_from_json
from headstart.study.observer import Observer, decoding_progress
from headstart.study.planning import Plan, PlannedRecipe, make_plan
from headstart.study.presets import (
    DEFAULT_BACKBONE,
    PRESETS,
    classroom_recipes,
    default_backbones,
    default_recipes,
    named_recipe,
    shown_names,
)
from headstart.study.resolving import Overrides, require_possible, resolve_recipe
from headstart.study.trial import run_trial
from headstart.training.callbacks import Callback

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyRequest:
    """What a user asks of a comparison; see the command line's help for each option."""

    data: str = "digits"
    preset: str = "default"
    recipes: tuple[str | Recipe, ...] = ()
    backbones: tuple[str, ...] = ()
    weights_dir: Path | None = None
    input_size: int | None = None
    seeds: int | None = None
    budget_seconds: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    augmentation: str | None = None
    limit: int | None = None
    margin: float = 0.01
    confidence: float = 0.95
    split_seed: int = 0
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    remove_duplicates: bool = True
    name: str | None = None
    runs: Path = Path("runs")
    tensorboard: bool = False


@dataclass(frozen=True)
class RecipeOutcome:
    """A recipe's trials, in the order of its seeds."""

    planned: PlannedRecipe
    results: tuple[TrialResult, ...]


@dataclass(frozen=True)
class StudyOutcome:
    """Everything that a report is made from."""

    request: StudyRequest
    ledger: Ledger
    images: ImageSet
    split: Split
    duplicates: DuplicateReport
    facts: dict[str, Any]
    plan: Plan
    recipes: tuple[RecipeOutcome, ...]
    not_run: tuple[NotRun, ...]
    device: torch.device


def run_study(
    request: StudyRequest, device: torch.device, observer: Observer, callbacks: Sequence[Callback] = ()
) -> StudyOutcome:
    """Run a comparison from data to trials, continuing where an earlier run of the same request ended.

    Args:
        request: what is asked for.
        device: where networks run.
        observer: told of every step.
        callbacks: the user's own; their names enter the recipes' identity.

    Returns:
        Results of every recipe that could run, and the reasons of those that could not.

    Raises:
        HeadstartError: the request, the data or a weight file cannot be used, before anything is trained.
    """
    _validate(request)
    observer.stage("decoding", 1)
    images = load_images(
        request.data,
        limit=request.limit,
        seed=request.split_seed,
        progress=decoding_progress(observer),
    )
    split, duplicates = make_split(
        images,
        seed=request.split_seed,
        val_fraction=request.val_fraction,
        test_fraction=request.test_fraction,
        remove_duplicates=request.remove_duplicates,
    )
    observer.data_ready(images, split, duplicates)
    recipes = _requested_recipes(request, images)
    usable, missing = _find_backbones(recipes, request.weights_dir, spare=_spare_backbones(request, images))
    usable, known = _set_aside_what_knows_test(usable, images, asked_for=bool(request.backbones or request.recipes))
    missing += known
    names = tuple(f"{type(callback).__module__}.{type(callback).__qualname__}" for callback in callbacks)
    overrides = Overrides(request.input_size, request.epochs, request.batch_size, request.augmentation, names)
    # Before there is a run's folder: what cannot be meant must not leave one behind.
    for recipe, backbone in usable:
        require_possible(recipe, images, backbone, overrides)
    ledger = open_run(request.runs, request.name, images.name, _request_record(request, images, recipes, usable, names))
    with ledger.locked():
        plan = _load_or_make_plan(request, ledger, usable, missing, images, split, device, overrides)
        observer.plan_ready(plan, ledger, _count_done(ledger, plan, images, split))
        bench = Bench(images, split, device, observer, tuple(callbacks), request.tensorboard)
        outcomes, failed = _run_trials(plan, bench, ledger, observer)
    return StudyOutcome(
        request=request,
        ledger=ledger,
        images=images,
        split=split,
        duplicates=duplicates,
        facts=data_facts(images, split, duplicates),
        plan=plan,
        recipes=tuple(outcomes),
        not_run=(*plan.not_run, *failed),
        device=device,
    )


def _validate(request: StudyRequest) -> None:
    checks = (
        (request.preset in PRESETS, f"--preset takes {' or '.join(PRESETS)}, not {request.preset!r}."),
        (request.seeds is None or request.seeds >= 1, f"--seeds counts runs, at least 1, not {request.seeds}."),
        (request.limit is None or request.limit >= 10, f"--limit is at least 10 images, not {request.limit}."),
        (0 <= request.margin < 1, f"--margin is a share of all images between 0 and 1, not {request.margin}."),
        (0.5 <= request.confidence < 1, f"The confidence lies between 0.5 and 1, not {request.confidence}."),
        (0 < request.val_fraction < 0.9, f"The val fraction lies between 0 and 0.9, not {request.val_fraction}."),
        (0 < request.test_fraction < 0.9, f"The test fraction lies between 0 and 0.9, not {request.test_fraction}."),
        (
            request.input_size is None or 8 <= request.input_size <= 1024,
            f"--input-size lies between 8 and 1024 pixels, not {request.input_size}.",
        ),
        *training_checks(request.epochs, request.budget_seconds, request.batch_size, request.augmentation),
    )
    require(checks)


def _requested_recipes(request: StudyRequest, images: ImageSet) -> list[Recipe]:
    named = [located(ALIASES.get(name, name), request.weights_dir) for name in request.backbones]
    if request.recipes:
        known = named or default_backbones(images)
        recipes = [item if isinstance(item, Recipe) else named_recipe(item, images, known) for item in request.recipes]
    elif request.preset == "classroom":
        shown = shown_names(named or [DEFAULT_BACKBONE])
        recipes = [recipe for backbone, name in shown.items() for recipe in classroom_recipes(backbone, name)]
        recipes = list({recipe.name: recipe for recipe in recipes}.values())
    else:
        recipes = default_recipes(images, named or default_backbones(images))
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise UsageError(f"Name each recipe and each backbone once; asked for were the recipes {', '.join(names)}.")
    return recipes


def _spare_backbones(request: StudyRequest, images: ImageSet) -> frozenset[str]:
    """Backbones that nobody asked for by name, in a contest that has another one: they take part where they can be had."""
    if request.recipes or request.backbones or request.preset != "default":
        return frozenset()
    return frozenset(default_backbones(images)[1:])


def _find_backbones(
    recipes: list[Recipe], weights_dir: Path | None, spare: frozenset[str]
) -> tuple[list[tuple[Recipe, Backbone | None]], list[NotRun]]:
    """Find each backbone once; a recipe whose weights are nowhere is set aside with the reason.

    A spare backbone without weights leaves the contest as a whole, its control included.
    """
    found: dict[str, Backbone | WeightsUnavailableError] = {}
    for name in {recipe.backbone: None for recipe in recipes if recipe.backbone is not None}:
        try:
            found[name] = find_backbone(name, weights_dir)
        except WeightsUnavailableError as error:
            found[name] = error
    usable: list[tuple[Recipe, Backbone | None]] = []
    gone = {
        name: error for name, error in found.items() if name in spare and isinstance(error, WeightsUnavailableError)
    }
    missing = [NotRun(name, "no-weights", str(error)) for name, error in gone.items()]
    for recipe in recipes:
        if recipe.backbone in gone:
            continue
        backbone = found[recipe.backbone] if recipe.backbone is not None else None
        if not isinstance(backbone, WeightsUnavailableError):
            usable.append((recipe, backbone))
        elif recipe.uses_pretrained_weights or recipe.backbone is None:
            if recipe.backbone in FAMILY:
                missing.append(NotRun(recipe.name, "not-pretrained", recipe.backbone))
            else:
                missing.append(NotRun(recipe.name, "no-weights", str(backbone)))
        else:
            usable.append((recipe, untrained_backbone(recipe.backbone)))
    return usable, missing


def _set_aside_what_knows_test(
    usable: list[tuple[Recipe, Backbone | None]], images: ImageSet, asked_for: bool
) -> tuple[list[tuple[Recipe, Backbone | None]], list[NotRun]]:
    """Recipes whose weights were made from the very images that they would be judged on: refused where somebody asked for them."""
    left, known = [], []
    for recipe, backbone in usable:
        if backbone is None or not recipe.uses_pretrained_weights or not knows_the_test_images(backbone, images):
            left.append((recipe, backbone))
        elif asked_for:
            refuse_known_test_images(backbone, images)
        else:
            known.append(NotRun(recipe.name, "pretrained-on-these", backbone.name))
    return left, known


def _request_record(
    request: StudyRequest,
    images: ImageSet,
    recipes: list[Recipe],
    usable: list[tuple[Recipe, Backbone | None]],
    callbacks: tuple[str, ...],
) -> dict[str, Any]:
    """What decides the run, as JSON: the same record continues the same run. Device, paths and language stay out."""
    # By recipe: two files of one architecture are two backbones of one name.
    weights = {recipe.name: backbone.weights_sha256 for recipe, backbone in usable if backbone is not None}
    record: dict[str, Any] = {
        "data": images.fingerprint,
        "recipes": [recipe_asked_for(recipe) for recipe in recipes],
        "weights": weights,
        "callbacks": list(callbacks),
    }
    left_out = {"data", "recipes", "backbones", "weights_dir", "name", "runs", "tensorboard"}
    return record | {key: value for key, value in asdict(request).items() if key not in left_out}


def recipe_asked_for(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides a request, as it comes back from a JSON file; its order of keys is the recipe's."""
    asked: dict[str, Any] = json.loads(json.dumps(lasting_settings(recipe)))
    return asked


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe with lists for tuples, as it comes back from a JSON file."""
    settings = asdict(recipe)
    settings["callbacks"] = list(recipe.callbacks)
    if recipe.preprocessing is not None:
        settings["preprocessing"] |= {"mean": list(recipe.preprocessing.mean), "std": list(recipe.preprocessing.std)}
    return settings


def _load_or_make_plan(
    request: StudyRequest,
    ledger: Ledger,
    usable: list[tuple[Recipe, Backbone | None]],
    missing: list[NotRun],
    images: ImageSet,
    split: Split,
    device: torch.device,
    overrides: Overrides,
) -> Plan:
    """The plan is kept: timings differ from run to run, and a resumed run must not train other epochs than the first."""
    path = ledger.folder / "plan.json"
    if path.exists():
        return _plan_from_json(read_json(path), {recipe.name: backbone for recipe, backbone in usable})
    resolved = [(resolve_recipe(recipe, images, split, backbone, overrides), backbone) for recipe, backbone in usable]
    plan = make_plan(
        resolved, missing, images, split, device, seeds=request.seeds, budget_seconds=request.budget_seconds
    )
    write_json(path, _plan_to_json(plan))
    return plan


def _plan_to_json(plan: Plan) -> dict[str, Any]:
    return {
        "recipes": [
            {
                "recipe": recipe_to_json(planned.recipe),
                "seeds": list(planned.seeds),
                "seconds_per_seed": planned.seconds_per_seed,
                "asked_epochs": planned.asked_epochs,
                "asked_width": planned.asked_width,
                "shared_seconds": planned.shared_seconds,
            }
            for planned in plan.recipes
        ],
        "not_run": [asdict(missing) for missing in plan.not_run],
        "seeds": list(plan.seeds),
        "predicted_seconds": plan.predicted_seconds,
        "budget_seconds": plan.budget_seconds,
    }


def _plan_from_json(record: dict[str, Any], backbones: dict[str, Backbone | None]) -> Plan:
    planned = tuple(
        PlannedRecipe(
            recipe_from_json(entry["recipe"]),
            backbones[entry["recipe"]["name"]],
            tuple(entry["seeds"]),
            entry["seconds_per_seed"],
            entry.get("asked_epochs", entry["recipe"]["epochs"]),  # a run from before they were kept
            entry.get("asked_width", entry["recipe"]["width"]),
            entry.get("shared_seconds", 0.0),
        )
        for entry in record["recipes"]
    )
    missing = tuple(NotRun(**entry) for entry in record["not_run"])
    seeds, seconds = tuple(record["seeds"]), record["predicted_seconds"]
    return Plan(planned, missing, seeds, seconds, record.get("budget_seconds"))


def _count_done(ledger: Ledger, plan: Plan, images: ImageSet, split: Split) -> int:
    return sum(
        ledger.is_done(trial_identity(planned.recipe, images.fingerprint, split, seed))
        for planned in plan.recipes
        for seed in planned.seeds
    )


def _run_trials(
    plan: Plan, bench: Bench, ledger: Ledger, observer: Observer
) -> tuple[list[RecipeOutcome], list[NotRun]]:
    outcomes, failed = [], []
    total = sum(len(planned.seeds) for planned in plan.recipes)
    number = 0
    for planned in plan.recipes:
        results: list[TrialResult] = []
        for seed in planned.seeds:
            number += 1
            observer.trial_begins(planned.recipe, seed, number, total)
            try:
                result, was_done = finished_trial(planned.recipe, planned.backbone, bench, ledger, seed)
                results.append(result)
            # What a device or an engine cannot do (memory above all) reaches us as a RuntimeError; the other recipes are not to blame.
            except (HeadstartError, MemoryError, RuntimeError) as error:
                if not isinstance(
                    error, (HeadstartError, MemoryError, torch.OutOfMemoryError)
                ):  # it may be a fault of ours
                    _log.warning("%s, seed %d, ended with an error:", planned.recipe.name, seed, exc_info=True)
                failed.append(NotRun(planned.recipe.name, "failed", f"seed {seed}: {type(error).__name__}: {error}"))
                observer.trial_failed(failed[-1])
                continue
            observer.trial_ends(results[-1], was_done)
        if results:
            outcomes.append(RecipeOutcome(planned, tuple(results)))
    return outcomes, failed


def finished_trial(
    recipe: Recipe, backbone: Backbone | None, bench: Bench, ledger: Ledger, seed: int
) -> tuple[TrialResult, bool]:
    """Run a resolved recipe with one seed and save it, or read its result where that was done before.

    Returns:
        The result, and whether it was there already.
    """
    identity = trial_identity(recipe, bench.images.fingerprint, bench.split, seed)
    was_done = ledger.is_done(identity)
    if not was_done:
        folder = ledger.trial_folder(identity)
        finished = run_trial(bench, recipe, backbone, seed, identity, folder)
        if recipe.preprocessing is not None:
            save_bundle(
                folder,
                finished.network,
                finished.spec,
                recipe.preprocessing,
                bench.images.class_names,
                bench.images.canvas,
                recipe.name,
            )
        ledger.save(finished.result)
    return ledger.load(identity), was_done
