"""How long a recipe will take, from a few of its own steps on the user's machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.data.splits import JUDGED_TRAIN_IMAGES
from headstart.environment import wait_for
from headstart.files import read_rows
from headstart.models.backbones import Backbone, build_random_backbone, seeded_torch, split_for_fine_tuning
from headstart.models.cost import complexity
from headstart.models.looks import looks_of, seen_once
from headstart.models.network import BackboneClassifier, build_network, classifier_spec, freeze_batch_norm
from headstart.randomness import generator
from headstart.records import ImageSet, Indices, Preprocessing, Recipe, Split
from headstart.study.kinds import freeze_all_but_last
from headstart.training.arithmetic import arithmetic_of, full_precision, threads_for, torch_threads
from headstart.training.averaging import WeightAverage
from headstart.training.batches import ImageBatches
from headstart.training.criterion import Criterion
from headstart.training.engine import curve_images, evaluation_batch, make_optimizer
from headstart.training.features import are_extracted, network_key
from headstart.training.frozen import export_has_failed
from headstart.training.probe import predict_probe_seconds
from headstart.training.steps import even_parts, make_step

_TIMED_STEPS, _MOST_TIMED_STEPS = 3, 15
_TIMED_SECONDS = 0.5
"""Chosen: so many steps at least, and more of them until so many seconds are over, so that a moment in which a shared machine is busy with
something else does not make the median."""

_TIMED_IMAGES = 16  # of a frozen network, whose pace is known from few
_DEPTHWISE_SPEED_UP, _PLAIN_SPEED_UP = 2.2, 1.2  # measured: see `_speed_up`
_DEPTHWISE_SHARE = 0.05  # of the multiply-adds; MobileNetV2 has 0.07, EfficientNet-B0 0.09, ConvNeXt 0.02, ResNet none
_EXPORT_SECONDS = (
    4.0  # measured: MobileNetV2's graph 1.6 s, first images 0.3 s, race 2 s; once per network and input size
)


@dataclass(frozen=True)
class PredictedCost:
    """Seconds once for all seeds (cached features), once per trial, and per epoch."""

    shared: float
    fixed: float
    per_epoch: float

    def per_trial(self, recipe: Recipe) -> float:
        """Seconds of a trial that finds its features."""
        return self.fixed + self.per_epoch * recipe.epochs

    def total(self, recipe: Recipe) -> float:
        """Seconds of a trial that has to extract its features."""
        return self.shared + self.per_trial(recipe)


@dataclass(frozen=True)
class Pace:
    """Seconds of a training step, of an image of the training's curve, and of one that is judged at the end."""

    step: float
    curve_image: float
    judged_image: float


def predict_seconds(
    recipe: Recipe,
    backbone: Backbone | None,
    images: ImageSet,
    split: Split,
    device: torch.device,
    extractions: dict[str, float],
) -> PredictedCost:
    """Predict a recipe's seconds from a few timed steps on real images; features that are cached cost nothing.

    Args:
        recipe: resolved.
        backbone: of the recipe, where it has one.
        images, split, device: what the steps are timed on.
        extractions: seconds of features that were predicted before, and those that are now: one network, whatever its weights, is
            timed once, so that two recipes with it are not told two numbers.
    """
    if recipe.kind == "majority" or recipe.preprocessing is None:
        return PredictedCost(0.0, 0.0, 0.0)
    batch = min(recipe.batch_size, len(split.train))
    classes = len(images.class_names)
    some = split.train[:batch]
    labels = torch.from_numpy(images.labels[some]).to(device)
    prepare = augmented(images, some, recipe, device)
    if recipe.kind == "scratch":
        spec = classifier_spec(recipe.preprocessing.input_size, classes, backbone, recipe)
        network = build_network(spec).to(device)
        pace = time_steps(network, recipe, prepare, labels)
        return PredictedCost(0.0, *_trained_and_judged(pace, split, recipe.batch_size))
    if backbone is None:
        return PredictedCost(0.0, 0.0, 0.0)
    module = build_random_backbone(backbone, 0).to(device)
    pretrained = str(backbone.weights_sha256) if recipe.kind != "random-features" else None
    preprocessing = recipe.preprocessing

    def extract() -> float:  # timing it takes a second, which cached features need not pay
        key = repr((sorted(backbone.timm_arguments.items()), preprocessing))
        if key not in extractions:
            extractions[key] = extraction_seconds(module, images, preprocessing, device, pretrained)
        return extractions[key]

    extraction = 0.0 if _are_cached(images, pretrained, preprocessing, device) else extract()
    if recipe.kind != "finetune":
        if recipe.head == "convex":
            return PredictedCost(extraction, predict_probe_seconds(len(split.train), backbone.features, classes), 0.0)
        linear = nn.Linear(backbone.features, classes).to(device)
        rows = torch.randn(batch, backbone.features, generator=torch.Generator().manual_seed(0)).to(device)
        with torch_threads(threads_for(min(batch, recipe.images_at_once) * linear.weight.numel())):
            pace = time_steps(linear, recipe, rows.clone, labels)
        return PredictedCost(extraction, *_trained_and_judged(pace, split, recipe.batch_size))
    inputs = apply_preprocessing(read_rows(images.images, some), recipe.preprocessing).to(device)
    cut = split_for_fine_tuning(module, inputs[:2]) if recipe.unfreeze == "last" else None
    if cut is None:
        spec = classifier_spec(recipe.preprocessing.input_size, classes, backbone, recipe)
        network = BackboneClassifier(module, spec.features, classes, spec.looks).to(device)
        network = network.to(memory_format=torch.channels_last)
        if recipe.unfreeze == "last":
            freeze_all_but_last(network)
        pace = time_steps(network, recipe, prepare, labels)
    else:
        trunk, tail = cut
        with torch.inference_mode():
            middle = torch.cat([trunk(inputs[part]) for part in even_parts(len(inputs), recipe.micro_batch)])
        network = BackboneClassifier(tail, backbone.features, classes).to(device)
        pace = time_steps(network, recipe, middle.clone, labels)
        kept = _are_cached(images, f"{pretrained}|trunk", recipe.preprocessing, device, half_precision=True)
        extraction += 0.0 if kept else extract()
    final, per_epoch = _trained_and_judged(pace, split, recipe.batch_size)
    probe = predict_probe_seconds(len(split.train), backbone.features, classes)  # its head begins as the probe's
    return PredictedCost(extraction, probe + final, per_epoch)


def _trained_and_judged(pace: Pace, split: Split, batch_size: int) -> tuple[float, float]:
    """Seconds of the evaluation of every part at the end, and of an epoch with its curve."""
    judged = min(len(split.train), JUDGED_TRAIN_IMAGES) + len(split.val) + len(split.test)
    return judged * pace.judged_image, epoch_seconds(pace, split, batch_size)


def epoch_seconds(pace: Pace, split: Split, batch_size: int) -> float:
    """Seconds of one epoch of a training with its point of the learning curve."""
    watched = min(len(split.train), curve_images(len(split.val))) + len(split.val)
    return _steps(split, batch_size) * pace.step + watched * pace.curve_image


def _steps(split: Split, batch_size: int) -> int:
    """Steps of an epoch."""
    return -(-len(split.train) // batch_size)


def extraction_seconds(
    module: nn.Module,
    images: ImageSet,
    preprocessing: Preprocessing,
    device: torch.device,
    module_key: str | None = None,
) -> float:
    """Predict how long the frozen features of all images take, the export included.

    Args:
        module: in evaluation mode; it is brought to the device.
        images, preprocessing, device: as in `extract_features`.
        module_key: as there; tells whether the export failed the last time. `None` where nobody knows.
    """
    few = apply_preprocessing(images.images[:_TIMED_IMAGES], preprocessing).to(device)
    forward = _time_forward(module.to(device), few) / len(few)
    if device.type != "cpu":
        return len(images.images) * forward
    if module_key is not None and export_has_failed(network_key(module_key, preprocessing)):
        return len(images.images) * forward + _EXPORT_SECONDS
    return len(images.images) * forward / _speed_up(module, preprocessing.input_size) + _EXPORT_SECONDS


def _speed_up(module: nn.Module, input_size: int) -> float:
    """How much faster ONNX Runtime is expected to be than eager PyTorch: most with depthwise convolutions, which PyTorch is slow at.

    Measured with MobileNetV2 at 96 to 224 px on two cores: 2.2. On one core of a busy machine (CPU seconds, November 2026):
    MobileNetV2 2.2 to 2.4, MobileNetV3 1.7, EfficientNet-B0 1.5; of plain networks ResNet-18 1.1, ResNet-50 1.25, `small32_m` 1.1 to
    1.2, ConvNeXt-T 1.0, a small vision transformer 0.9.
    """
    macs = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        macs += output[0].numel() * layer.get_parameter("weight")[0].numel()

    grouped = [
        layer for layer in module.modules() if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
    ]
    handles = [layer.register_forward_hook(count) for layer in grouped]
    total = complexity(module, input_size).macs
    for handle in handles:
        handle.remove()
    return _DEPTHWISE_SPEED_UP if macs > _DEPTHWISE_SHARE * total else _PLAIN_SPEED_UP


def augmented(images: ImageSet, part: Indices, recipe: Recipe, device: torch.device) -> Callable[[], torch.Tensor]:
    """A function that prepares these images as a step of the recipe's training does, augmentation included."""
    assert recipe.preprocessing is not None
    batches = ImageBatches(
        images.images, images.labels, part, recipe.preprocessing, recipe.augmentation, device, recipe.max_shift
    )
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


def time_steps(network: nn.Module, recipe: Recipe, prepare: Callable[[], torch.Tensor], labels: torch.Tensor) -> Pace:
    """A training's pace; medians of three steps or more, after those that warm up.

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
    criterion = Criterion(labels.cpu().numpy(), recipe.label_smoothing, labels.device)
    step = make_step(recipe, network, criterion, optimizer, arithmetic, average)
    positions = torch.arange(len(labels), device=labels.device)
    durations: list[float] = []
    with seeded_torch(0):  # dropout draws numbers
        while len(durations) < step.warm_up or not _is_enough(durations[step.warm_up :]):
            started = time.perf_counter()
            inputs = prepare()
            step(inputs, positions)
            wait_for(labels.device)
            durations.append(time.perf_counter() - started)
    few = inputs[: evaluation_batch(labels.device.type, inputs[0].numel())]
    with full_precision(), seen_once(network):  # an untrained network's answers are all close
        judged = once = _time_forward(network, few) / len(few)
        if arithmetic.dtype != torch.float32:
            with arithmetic.mixed():
                once = _time_forward(network, few) / len(few)
    return Pace(float(np.median(durations[step.warm_up :])), once, judged * looks_of(network).passes)


def _time_forward(network: nn.Module, inputs: torch.Tensor) -> float:
    network.eval()
    durations: list[float] = []
    with torch.inference_mode():
        while not _is_enough(durations[1:]):
            started = time.perf_counter()
            network(inputs)
            wait_for(inputs.device)
            durations.append(time.perf_counter() - started)
    return float(np.median(durations[1:]))


def _is_enough(durations: list[float]) -> bool:
    """Whether so many timed steps, in seconds, tell the pace."""
    long_enough = sum(durations) >= _TIMED_SECONDS or len(durations) >= _MOST_TIMED_STEPS
    return len(durations) >= _TIMED_STEPS and long_enough
