"""The plan of a study: recipes resolved against data and backbone, seconds predicted, seeds and epochs fitted to a budget."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from headstart.data.audit import channel_statistics
from headstart.data.preprocessing import apply_preprocessing
from headstart.models.backbones import (
    Backbone,
    build_random_backbone,
    default_input_size,
    seeded_torch,
    split_for_fine_tuning,
)
from headstart.models.network import BackboneClassifier, build_network, classifier_spec, freeze_batch_norm
from headstart.randomness import generator
from headstart.records import ImageSet, Indices, NotRun, Preprocessing, Recipe, Split
from headstart.training.arithmetic import arithmetic_of, wait_for
from headstart.training.averaging import WeightAverage
from headstart.training.batches import ImageBatches
from headstart.training.engine import CURVE_IMAGES, classification_loss, make_optimizer
from headstart.training.features import are_extracted

COMFORTABLE_SECONDS = 15 * 60
"""Without a budget, as many seeds as fit into this: a coffee's length (chosen)."""

DEFAULT_SEEDS = 3
_SCRATCH_LARGEST_INPUT = 96  # chosen: beyond it the simple CNN only becomes slower
_ENLARGED = 2
"""Images enlarged this much are interpolated bicubically: bilinear blurs them (docs/log.md: 1.7 points on CIFAR-10)."""

_TIMED_STEPS = 3
_TIMED_IMAGES = 16  # of a frozen network, whose pace is known from few
_FROZEN_SPEED_UP = 2.2  # measured: ONNX Runtime over eager PyTorch, MobileNetV2 at 96 to 224 px, two cores (DESIGN)
_EXPORT_SECONDS = (
    4.0  # measured: MobileNetV2's graph 1.6 s, first images 0.3 s, race 2 s; once per network and input size
)
_PROBE_SECONDS_PER_GIGA = 11.0  # measured: seconds per 1e9 of images x features x classes; 6 s for 45,000 x 1,280 x 10
_NARROWEST = 8  # chosen: of the fast network; 71% of CIFAR-10 after two epochs
_FEWEST_EPOCHS = 2  # a learning curve needs two points


@dataclass(frozen=True)
class Overrides:
    """What the user set for every recipe that it applies to; `None` leaves the recipe's own value."""

    input_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    augmentation: str | None = None
    callbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRecipe:
    """A resolved recipe with its backbone, the seeds it will run with, and the seconds predicted for one seed.

    `asked_epochs` and `asked_width` are the recipe's own, before a budget cut them.
    """

    recipe: Recipe
    backbone: Backbone | None
    seeds: tuple[int, ...]
    seconds_per_seed: float
    asked_epochs: int
    asked_width: int

    @property
    def was_cut(self) -> bool:
        """Whether a budget left it fewer epochs or a narrower network than its own."""
        return (self.recipe.epochs, self.recipe.width) != (self.asked_epochs, self.asked_width)


@dataclass(frozen=True)
class Plan:
    """What will run, what will not and why, and how long it will take."""

    recipes: tuple[PlannedRecipe, ...]
    not_run: tuple[NotRun, ...]
    seeds: tuple[int, ...]
    predicted_seconds: float


def resolve_recipe(
    recipe: Recipe, images: ImageSet, split: Split, backbone: Backbone | None, overrides: Overrides
) -> Recipe:
    """Fill in everything that the data and the backbone decide.

    Args:
        recipe: as the user or a preset wrote it.
        images, split: the channel statistics of train become the scratch network's preprocessing.
        backbone: of the recipe, where it has one.
        overrides: the user's settings; a preprocessing that the recipe itself fixes keeps its range.

    Returns:
        A recipe without open fields.
    """
    changes: dict[str, object] = {}
    if backbone is not None:
        changes["backbone"] = backbone.architecture  # a weight file's path must not decide what a trial is
    if recipe.epochs:
        changes["epochs"] = overrides.epochs or recipe.epochs
    changes["batch_size"] = overrides.batch_size or recipe.batch_size
    if overrides.augmentation is not None and (recipe.kind == "scratch" or recipe.augmentation != "none"):
        changes["augmentation"] = overrides.augmentation
    wanted = overrides.input_size or recipe.input_size
    sized = recipe.with_changes(input_size=wanted)
    preprocessing = recipe.preprocessing or _default_preprocessing(sized, images, split, backbone)
    if wanted:
        preprocessing = replace(preprocessing, input_size=wanted)
    changes |= {
        "preprocessing": preprocessing,
        "input_size": preprocessing.input_size,
        "weights_sha256": backbone.weights_sha256 if backbone and recipe.uses_pretrained_weights else None,
        "callbacks": overrides.callbacks if recipe.epochs else (),
    }
    return recipe.with_changes(**changes)


def _default_preprocessing(recipe: Recipe, images: ImageSet, split: Split, backbone: Backbone | None) -> Preprocessing:
    if backbone is not None:
        return backbone_preprocessing(backbone, images.canvas, recipe.input_size)
    size = min(images.canvas, _SCRATCH_LARGEST_INPUT)
    if recipe.kind == "majority":
        return Preprocessing(size)
    mean, std = channel_contract(images, split.train)
    return Preprocessing(size, mean=mean, std=std)


def backbone_preprocessing(backbone: Backbone, canvas: int, input_size: int | None = None) -> Preprocessing:
    """What a backbone sees of images of this canvas: its own contract, at the size that suits both.

    Args:
        backbone: its preprocessing is kept, but for size and interpolation.
        canvas: side of the kept images, in pixels.
        input_size: the user's choice; `None` takes `default_input_size`.
    """
    size = input_size or default_input_size(canvas, backbone.native_size)
    enlarged = size >= _ENLARGED * canvas
    interpolation = "bicubic" if enlarged else backbone.preprocessing.interpolation
    return replace(backbone.preprocessing, input_size=size, interpolation=interpolation)


def channel_contract(images: ImageSet, train: Indices) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of each channel over train, for pixels scaled to 0..1, rounded to four digits.

    Rounded so that the recipe reads well and its identity does not hang on the last bit of a sum.
    """
    mean, deviation = channel_statistics(images.images, train)
    red, green, blue = (round(float(value), 4) for value in mean / 255)
    # A channel that never varies must not be divided by zero.
    std_red, std_green, std_blue = (max(round(float(value), 4), 1e-4) for value in deviation / 255)
    return (red, green, blue), (std_red, std_green, std_blue)


def make_plan(
    recipes: list[tuple[Recipe, Backbone | None]],
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
        budget_seconds: the user's limit. Seeds give way first, then epochs, then the fast network's width, then fine-tuning.

    Returns:
        The plan. A budget is planned, not enforced: the prediction can be wrong, and the report says by how much.
    """

    def predict(recipe: Recipe, backbone: Backbone | None) -> PredictedCost:
        return predict_seconds(recipe, backbone, images, split, device)

    costs = [predict(recipe, backbone) for recipe, backbone in recipes]
    asked = {recipe.name: recipe for recipe, _ in recipes}
    missing = list(not_run)
    limit = budget_seconds if budget_seconds is not None else COMFORTABLE_SECONDS
    count = seeds or DEFAULT_SEEDS
    if seeds is None:
        while count > 1 and _total(recipes, costs, count) > limit:
            count -= 1
    if budget_seconds is not None and _total(recipes, costs, count) > limit:
        recipes, costs = _shorten(recipes, costs, count, limit)
        recipes, costs = _narrow(recipes, costs, count, limit, predict)
        while _total(recipes, costs, count) > limit and any(recipe.kind == "finetune" for recipe, _ in recipes):
            place = next(i for i, (recipe, _) in enumerate(recipes) if recipe.kind == "finetune")
            missing.append(NotRun(recipes[place][0].name, "budget", f"{costs[place].total(recipes[place][0]):.0f}"))
            del recipes[place], costs[place]
    planned = tuple(
        PlannedRecipe(
            recipe,
            backbone,
            tuple(range(_seeds_of(recipe, count))),
            cost.total(recipe),
            asked[recipe.name].epochs,
            asked[recipe.name].width,
        )
        for (recipe, backbone), cost in zip(recipes, costs, strict=True)
    )
    return Plan(planned, tuple(missing), tuple(range(count)), _total(recipes, costs, count))


@dataclass(frozen=True)
class PredictedCost:
    """Seconds once for all seeds (cached features), once per trial, and per epoch."""

    shared: float
    fixed: float
    per_epoch: float

    def total(self, recipe: Recipe) -> float:
        """Seconds of the first trial."""
        return self.shared + self.fixed + self.per_epoch * recipe.epochs


def predict_seconds(
    recipe: Recipe, backbone: Backbone | None, images: ImageSet, split: Split, device: torch.device
) -> PredictedCost:
    """Predict a recipe's seconds from a few timed steps on real images; features that are cached cost nothing."""
    if recipe.kind == "majority" or recipe.preprocessing is None:
        return PredictedCost(0.0, 0.0, 0.0)
    batch = min(recipe.batch_size, len(split.train))
    steps = -(-len(split.train) // recipe.batch_size)
    classes = len(images.class_names)
    some = split.train[:batch]
    labels = torch.from_numpy(images.labels[some]).to(device)
    prepare = augmented(images, some, recipe, device)
    if recipe.kind == "scratch":
        spec = classifier_spec(recipe.preprocessing.input_size, classes, backbone, recipe)
        network = build_network(spec).to(device).to(memory_format=torch.channels_last)
        step, forward = time_steps(network, recipe, prepare, labels)
        watched = min(len(split.train), CURVE_IMAGES) + len(split.val)
        final = (len(split.train) + len(split.val) + len(split.test)) / batch * forward
        return PredictedCost(0.0, final, steps * step + watched / batch * forward)
    if backbone is None:
        return PredictedCost(0.0, 0.0, 0.0)
    module = build_random_backbone(backbone, 0).to(device)
    extract = extraction_seconds(module, images, recipe.preprocessing, device)
    pretrained = str(backbone.weights_sha256) if recipe.kind != "random-features" else None
    extraction = 0.0 if _are_cached(images, pretrained, recipe.preprocessing, device) else extract
    probe = len(split.train) * backbone.features * classes / 1e9 * _PROBE_SECONDS_PER_GIGA + 0.5
    if recipe.kind != "finetune":
        # Random features are drawn anew for each seed; a gradient head costs little beside the features.
        per_epoch = steps * 3e-4 if recipe.head == "gradient" else 0.0
        return PredictedCost(extraction, probe if recipe.head == "convex" else 0.0, per_epoch)
    inputs = apply_preprocessing(images.images[some], recipe.preprocessing).to(device)
    cut = split_for_fine_tuning(module, inputs[:2]) if recipe.unfreeze == "last" else None
    if cut is None:
        spec = classifier_spec(recipe.preprocessing.input_size, classes, backbone, recipe)
        network = BackboneClassifier(module, spec.features, classes, spec.mirrored).to(device)
        network = network.to(memory_format=torch.channels_last)
        step, forward_step = time_steps(network, recipe, prepare, labels)
    else:
        trunk, tail = cut
        with torch.inference_mode():
            middle = trunk(inputs)
        network = BackboneClassifier(tail, backbone.features, classes).to(device)
        step, forward_step = time_steps(network, recipe, middle.clone, labels)
        kept = _are_cached(images, f"{pretrained}|trunk", recipe.preprocessing, device, half_precision=True)
        extraction += 0.0 if kept else extract
    watched = min(len(split.train), CURVE_IMAGES) + len(split.val)
    final = (len(split.train) + len(split.val) + len(split.test)) / batch * forward_step
    return PredictedCost(extraction, probe + final, steps * step + watched / batch * forward_step)


def extraction_seconds(
    module: nn.Module, images: ImageSet, preprocessing: Preprocessing, device: torch.device
) -> float:
    """Predict how long the frozen features of all images take, the export included."""
    few = apply_preprocessing(images.images[:_TIMED_IMAGES], preprocessing).to(device)
    forward = _time_forward(module, few) / len(few) / (_FROZEN_SPEED_UP if device.type == "cpu" else 1.0)
    return len(images.images) * forward + (_EXPORT_SECONDS if device.type == "cpu" else 0.0)


def augmented(images: ImageSet, part: Indices, recipe: Recipe, device: torch.device) -> Callable[[], torch.Tensor]:
    """A function that prepares these images as a step of the recipe's training does, augmentation included."""
    assert recipe.preprocessing is not None
    batches = ImageBatches(images.images, images.labels, part, recipe.preprocessing, recipe.augmentation, device)
    batches.begin_epoch(1, 0)
    rng, positions = generator(0, "timing"), np.arange(len(part))
    return lambda: batches.inputs(positions, rng).to(device)


def _are_cached(
    images: ImageSet,
    module_key: str | None,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    half_precision: bool = False,
) -> bool:
    return module_key is not None and are_extracted(
        images, module_key, preprocessing, device=device, half_precision=half_precision
    )


def time_steps(
    network: nn.Module, recipe: Recipe, prepare: Callable[[], torch.Tensor], labels: torch.Tensor
) -> tuple[float, float]:
    """Seconds of one training step and of one forward pass, the medians of three, after one to warm up.

    A step is the recipe's own: its images prepared, its optimizer, its batch norm, its average of the weights.

    Args:
        network: to be thrown away afterwards; its weights move.
        recipe: of the training.
        prepare: gives the inputs of a step.
        labels: `(B,) int64`, of these inputs.
    """
    network.train()
    if recipe.kind == "finetune":
        freeze_batch_norm(network)
    arithmetic = arithmetic_of(labels.device)
    optimizer = make_optimizer(network, recipe, arithmetic.fused)
    average = WeightAverage(network, recipe.weight_averaging) if recipe.weight_averaging else None
    durations = []
    with seeded_torch(0):  # dropout draws numbers
        for _ in range(_TIMED_STEPS + 1):
            started = time.perf_counter()
            inputs = prepare()
            with arithmetic.mixed():
                outputs = network(inputs)
            optimizer.zero_grad(set_to_none=True)
            classification_loss(outputs.float(), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if average is not None:
                average.update(network)
            wait_for(labels.device)
            durations.append(time.perf_counter() - started)
    return float(np.median(durations[1:])), _time_forward(network, inputs)


def _time_forward(network: nn.Module, inputs: torch.Tensor) -> float:
    network.eval()
    durations = []
    with torch.inference_mode():
        for _ in range(_TIMED_STEPS + 1):
            started = time.perf_counter()
            network(inputs)
            wait_for(inputs.device)
            durations.append(time.perf_counter() - started)
    return float(np.median(durations[1:]))


def _seeds_of(recipe: Recipe, count: int) -> int:
    # A control is there to be beaten; one trial of it is enough, and a deterministic recipe has only one.
    return 1 if recipe.is_control or recipe.is_deterministic else count


def _total(recipes: list[tuple[Recipe, Backbone | None]], costs: list[PredictedCost], count: int) -> float:
    """Seconds of the whole study; features that several recipes share are counted once."""
    total, extracted = 0.0, dict[object, float]()
    for (recipe, _), cost in zip(recipes, costs, strict=True):
        total += _seeds_of(recipe, count) * (cost.fixed + cost.per_epoch * recipe.epochs)
        key = (recipe.backbone, recipe.weights_sha256, recipe.preprocessing)
        extracted[key] = max(extracted.get(key, 0.0), cost.shared)
    return total + sum(extracted.values())


def _narrow(
    recipes: list[tuple[Recipe, Backbone | None]],
    costs: list[PredictedCost],
    count: int,
    limit: float,
    predict: Callable[[Recipe, Backbone | None], PredictedCost],
) -> tuple[list[tuple[Recipe, Backbone | None]], list[PredictedCost]]:
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
    recipes: list[tuple[Recipe, Backbone | None]], costs: list[PredictedCost], count: int, limit: float
) -> tuple[list[tuple[Recipe, Backbone | None]], list[PredictedCost]]:
    """Shorten every recipe's epochs by one common factor so that the study fits."""
    moving = sum(
        _seeds_of(recipe, count) * cost.per_epoch * recipe.epochs
        for (recipe, _), cost in zip(recipes, costs, strict=True)
    )
    fixed = _total(recipes, costs, count) - moving
    factor = max(limit - fixed, 0.0) / moving if moving else 1.0
    shortened: list[tuple[Recipe, Backbone | None]] = []
    for recipe, backbone in recipes:
        epochs = max(min(_FEWEST_EPOCHS, recipe.epochs), int(recipe.epochs * factor))
        shortened.append((recipe.with_changes(epochs=epochs) if recipe.epochs else recipe, backbone))
    return shortened, costs
