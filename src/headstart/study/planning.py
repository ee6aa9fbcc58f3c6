"""The plan of a study: its seconds are predicted, its seeds and epochs fitted to a budget."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from headstart.models.backbones import Backbone
from headstart.records import ImageSet, NotRun, Recipe, Split
from headstart.study.prediction import PredictedCost, predict_seconds

COMFORTABLE_SECONDS = 15 * 60
"""Without a budget, as many seeds as fit into this: a coffee's length (chosen)."""

DEFAULT_SEEDS = 3
_NARROWEST = 8  # chosen: of the fast network; 71% of CIFAR-10 after two epochs
_FEWEST_EPOCHS = 2  # a learning curve needs two points

_Entries = list[tuple[Recipe, Backbone | None]]
_Predict = Callable[[Recipe, Backbone | None], PredictedCost]
_Fitted = tuple[int, _Entries, list[PredictedCost]]  # number of seeds, recipes, their costs


@dataclass(frozen=True)
class PlannedRecipe:
    """A resolved recipe with its backbone, the seeds it will run with, and the seconds predicted for them.

    Attributes:
        seconds_per_seed: of each of its seeds.
        asked_epochs, asked_width: the recipe's own, before a budget cut them.
        shared_seconds: once, in its first trial: features that it is the first recipe of the study to need.
    """

    recipe: Recipe
    backbone: Backbone | None
    seeds: tuple[int, ...]
    seconds_per_seed: float
    asked_epochs: int
    asked_width: int
    shared_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Of all its trials; over the recipes of a plan they add up to the plan's."""
        return self.shared_seconds + len(self.seeds) * self.seconds_per_seed

    @property
    def first_seconds(self) -> float:
        """Of its first trial."""
        return self.shared_seconds + self.seconds_per_seed


@dataclass(frozen=True)
class Plan:
    """What will run, what will not and why, how long it will take, and how long it was to take."""

    recipes: tuple[PlannedRecipe, ...]
    not_run: tuple[NotRun, ...]
    seeds: tuple[int, ...]
    predicted_seconds: float
    budget_seconds: float | None = None

    @property
    def is_over_budget(self) -> bool:
        """Whether even the least that could be planned takes longer than the budget."""
        return self.budget_seconds is not None and self.predicted_seconds > self.budget_seconds


@dataclass(frozen=True)
class PretrainingPlan:
    """How long a pretraining will train, and at which size.

    Attributes:
        epochs: of the training.
        predicted_seconds: in all, what is done of it included.
        budget_seconds: the user's limit; `None` if there is none.
        input_size: side in pixels that the backbone is made for.
        canvas: side of the kept images, in pixels.
        train_images: that it learns from.
        epochs_done: of an earlier run of the same request, which this one goes on from.
    """

    epochs: int
    predicted_seconds: float
    budget_seconds: float | None
    input_size: int
    canvas: int
    train_images: int
    epochs_done: int = 0

    @property
    def is_over_budget(self) -> bool:
        """Whether there is a budget that even one epoch does not fit."""
        return self.budget_seconds is not None and self.predicted_seconds > self.budget_seconds


def make_plan(
    recipes: _Entries,
    not_run: list[NotRun],
    images: ImageSet,
    split: Split,
    device: torch.device,
    *,
    seeds: int | None,
    budget_seconds: float | None,
) -> Plan:
    """Predict each recipe's time by running a few of its steps, then fit seeds and epochs to the budget.

    Args:
        recipes: resolved, each with its backbone.
        not_run: recipes that could not be resolved.
        images, split, device: what the steps are timed on.
        seeds: the user's number; `None` takes three, fewer where the budget (or a comfortable quarter of an hour) does not allow them.
        budget_seconds: the user's limit. Seeds give way first, then everybody's epochs, then the fast network's width. Before that network
            loses anything, all controls with random features but the cheapest are left out; where even the least does not fit, fine-tuning
            is. Each time the others are planned anew with the seconds that this frees.

    Returns:
        The plan; if even the least takes longer than the budget, it says so. A budget is planned, not enforced: the prediction can be
        wrong, and the report says by how much.
    """

    known: dict[tuple[str, int], PredictedCost] = {}
    extractions: dict[str, float] = {}

    def predict(recipe: Recipe, backbone: Backbone | None) -> PredictedCost:
        key = (recipe.name, recipe.width)
        if key not in known:
            known[key] = predict_seconds(recipe, backbone, images, split, device, extractions)
        return known[key]

    asked = {recipe.name: recipe for recipe, _ in recipes}
    (count, fitted, costs), left_out = _fit_or_leave_out(recipes, seeds, budget_seconds, predict)
    missing = [
        *not_run,
        *(
            NotRun(recipe.name, "budget", f"{predict(recipe, backbone).total(recipe):.0f}")
            for recipe, backbone in left_out
        ),
    ]
    planned = tuple(
        PlannedRecipe(
            recipe,
            backbone,
            tuple(range(_seeds_of(recipe, count))),
            cost.per_trial(recipe),
            asked[recipe.name].epochs,
            asked[recipe.name].width,
            shared,
        )
        for (recipe, backbone), cost, shared in zip(fitted, costs, _shared(fitted, costs), strict=True)
    )
    return Plan(planned, tuple(missing), tuple(range(count)), _total(fitted, costs, count), budget_seconds)


def _fit_or_leave_out(
    recipes: _Entries, seeds: int | None, budget_seconds: float | None, predict: _Predict
) -> tuple[_Fitted, _Entries]:
    """Fit the recipes to the budget, without those that have to be left out; what these would have taken is given back to the others."""
    remaining, left_out = list(recipes), _Entries()
    fitted = _fit(remaining, seeds, budget_seconds, predict)
    if budget_seconds is None:
        return fitted, left_out
    asked = {recipe.name: recipe for recipe, _ in recipes}

    def is_over(one: _Fitted) -> bool:
        return _total(one[1], one[2], one[0]) > budget_seconds

    def is_fast_cut(one: _Fitted) -> bool:
        pairs = [(recipe, asked[recipe.name]) for recipe, _ in one[1] if recipe.network == "fast"]
        return any((recipe.epochs, recipe.width) != (wanted.epochs, wanted.width) for recipe, wanted in pairs)

    while is_over(fitted) or is_fast_cut(fitted):
        place = _spared_control(remaining, predict)
        if place is None and is_over(fitted):
            place = next((i for i, (recipe, _) in enumerate(remaining) if recipe.kind == "finetune"), None)
        if place is None:
            break
        left_out.append(remaining.pop(place))
        fitted = _fit(remaining, seeds, budget_seconds, predict)
    for control in reversed([entry for entry in left_out if entry[0].is_control]):
        # Where a fine-tuning was left out later, there may be time for it after all; the cheapest comes first.
        wider = [entry for entry in recipes if entry in remaining or entry is control]
        again = _fit(wider, seeds, budget_seconds, predict)
        if not is_over(again) and not is_fast_cut(again):
            remaining, fitted = wider, again
            left_out.remove(control)
    return fitted, left_out


def _fit(recipes: _Entries, seeds: int | None, budget_seconds: float | None, predict: _Predict) -> _Fitted:
    """Fit seeds, then epochs, then the fast network's width to the limit; without a budget, only seeds give way.

    Epochs are cut by one factor for all. Then the other networks from scratch give way to the fast one, until it has all of its own:
    transfer has to beat the best that can be had without it. What is left over at the end is theirs.
    """
    costs = [predict(recipe, backbone) for recipe, backbone in recipes]
    limit = budget_seconds if budget_seconds is not None else COMFORTABLE_SECONDS
    count = seeds or DEFAULT_SEEDS
    if seeds is None:
        while count > 1 and _total(recipes, costs, count) > limit:
            count -= 1
    if budget_seconds is not None and _total(recipes, costs, count) > limit:
        asked = recipes
        recipes, costs = _shorten(recipes, costs, count, limit)
        recipes = _give_way(recipes, costs, asked, count, limit)
        recipes, costs = _narrow(recipes, costs, count, limit, predict)
        recipes = _lengthen(recipes, costs, asked, count, limit)
    return count, recipes, costs


def _spared_control(recipes: _Entries, predict: _Predict) -> int | None:
    """Place of the costliest control with random features, where another one remains; `None` where not.

    What an architecture is worth without its weights is then known of one backbone alone; but a weak opponent from scratch would make all
    of transfer look better than it is.
    """
    costs = {
        place: predict(recipe, backbone).total(recipe)
        for place, (recipe, backbone) in enumerate(recipes)
        if recipe.kind == "random-features"
    }
    return max(costs, key=lambda place: costs[place]) if len(costs) > 1 else None


def _seeds_of(recipe: Recipe, count: int) -> int:
    # A control is there to be beaten; one trial of it is enough, and a deterministic recipe has only one.
    return 1 if recipe.is_control or recipe.is_deterministic else count


def _total(recipes: _Entries, costs: list[PredictedCost], count: int) -> float:
    """Seconds of the whole study."""
    trials = sum(
        _seeds_of(recipe, count) * cost.per_trial(recipe) for (recipe, _), cost in zip(recipes, costs, strict=True)
    )
    return trials + sum(_shared(recipes, costs))


def _shared(recipes: _Entries, costs: list[PredictedCost]) -> list[float]:
    """Seconds of features, charged to the first recipe that needs them; a later one pays for what it needs beyond them."""
    charged, extracted = [], dict[object, float]()
    for (recipe, _), cost in zip(recipes, costs, strict=True):
        key = (recipe.backbone, recipe.weights_sha256, recipe.preprocessing)
        before = extracted.get(key, 0.0)
        extracted[key] = max(before, cost.shared)
        charged.append(extracted[key] - before)
    return charged


def _give_way(recipes: _Entries, costs: list[PredictedCost], asked: _Entries, count: int, limit: float) -> _Entries:
    """Take epochs from the networks from scratch beside the fast one, down to the fewest: what it lacks, and what is over the limit."""
    recipes = list(recipes)
    if not any(recipe.network == "fast" for recipe, _ in recipes):
        return recipes
    lacking = sum(
        (wanted.epochs - recipe.epochs) * _seeds_of(recipe, count) * cost.per_epoch
        for (recipe, _), (wanted, _), cost in zip(recipes, asked, costs, strict=True)
        if recipe.network == "fast"
    )
    needed = _total(recipes, costs, count) + lacking - limit
    for place, (recipe, backbone) in enumerate(recipes):
        each = _seeds_of(recipe, count) * costs[place].per_epoch
        if needed > 0 and each > 0 and recipe.kind == "scratch" and recipe.network != "fast":
            fewer = max(min(_FEWEST_EPOCHS, recipe.epochs), recipe.epochs - math.ceil(needed / each))
            needed -= (recipe.epochs - fewer) * each
            recipes[place] = (recipe.with_changes(epochs=fewer), backbone)
    return recipes


def _lengthen(recipes: _Entries, costs: list[PredictedCost], asked: _Entries, count: int, limit: float) -> _Entries:
    """Give what the others leave of the limit to the networks from scratch, the fast one first, up to the epochs that they asked for."""
    recipes = list(recipes)
    for place in sorted(range(len(recipes)), key=lambda place: recipes[place][0].network != "fast"):
        recipe, backbone = recipes[place]
        each = _seeds_of(recipe, count) * costs[place].per_epoch
        spare = limit - _total(recipes, costs, count)
        if spare > 0 and each > 0 and recipe.kind == "scratch":
            more = min(recipe.epochs + int(spare / each), asked[place][0].epochs)
            recipes[place] = (recipe.with_changes(epochs=more), backbone)
    return recipes


def _narrow(
    recipes: _Entries, costs: list[PredictedCost], count: int, limit: float, predict: _Predict
) -> tuple[_Entries, list[PredictedCost]]:
    """Halve the width of the fast network until the study fits, or it cannot be narrower.

    To be asked once no epoch can be spared any more: two epochs of a wide network beat four of a narrow one (docs/log.md).
    """
    recipes, costs = list(recipes), list(costs)
    while limit < _total(recipes, costs, count):
        wide = [i for i, (recipe, _) in enumerate(recipes) if recipe.network == "fast" and recipe.width > _NARROWEST]
        if not wide:
            break
        for place in wide:
            recipe, backbone = recipes[place]
            narrower = recipe.with_changes(width=max(recipe.width // 2, _NARROWEST))
            recipes[place], costs[place] = (narrower, backbone), predict(narrower, backbone)
    return recipes, costs


def _shorten(
    recipes: _Entries, costs: list[PredictedCost], count: int, limit: float
) -> tuple[_Entries, list[PredictedCost]]:
    """Shorten every recipe's epochs by one common factor so that the study fits."""
    moving = sum(
        _seeds_of(recipe, count) * cost.per_epoch * recipe.epochs
        for (recipe, _), cost in zip(recipes, costs, strict=True)
    )
    fixed = _total(recipes, costs, count) - moving
    factor = max(limit - fixed, 0.0) / moving if moving else 1.0
    shortened: _Entries = []
    for recipe, backbone in recipes:
        epochs = max(min(_FEWEST_EPOCHS, recipe.epochs), int(recipe.epochs * factor))
        shortened.append((recipe.with_changes(epochs=epochs) if recipe.epochs else recipe, backbone))
    return shortened, costs
