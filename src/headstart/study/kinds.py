"""How each kind of recipe trains: from scratch, a probe, fine-tuning, and the controls.

Every kind has one function from the shared `Bench` to a `Trained` network. None of them sees test.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.errors import RunError, UsageError
from headstart.files import read_rows
from headstart.models.backbones import (
    Backbone,
    build_backbone,
    build_random_backbone,
    seeded_torch,
    split_for_fine_tuning,
)
from headstart.models.cost import Speed
from headstart.models.fast import FastCNN, images_to_whiten
from headstart.models.network import (
    BackboneClassifier,
    ConstantClassifier,
    NetworkSpec,
    blocks_from_head,
    build_network,
    classifier_spec,
)
from headstart.models.weights import hash_of_state
from headstart.randomness import derive_seed
from headstart.records import ImageSet, Kind, Logits, Preprocessing, Recipe, Split
from headstart.training.arithmetic import threads_for, torch_threads
from headstart.training.batches import ArrayBatches, Batches, ImageBatches
from headstart.training.callbacks import Callback, HistoryLogger, TensorBoard
from headstart.training.engine import Fitted, predict_logits, train_network
from headstart.training.features import Features, extract_features
from headstart.training.probe import LinearHead, fit_probe
from headstart.training.progress import ProgressBar, Reporter
from headstart.training.rows import held_rows

_TRAINED_BLOCKS = 2  # of a backbone that cannot be cut, beside the head; like the tail of those that can
_CALIBRATION_IMAGES = 512  # chosen: enough for the batch statistics of a random network to settle


@dataclass(frozen=True)
class Bench:
    """What every trial of a study shares."""

    images: ImageSet
    split: Split
    device: torch.device
    reporter: Reporter
    callbacks: tuple[Callback, ...] = ()
    tensorboard: bool = False
    paces: dict[str, Speed] = field(default_factory=dict)
    """Of networks that were timed, by their structure: trainings of one recipe differ in their weights alone."""


@dataclass(frozen=True)
class Trained:
    """What a kind's training hands back.

    `logits` runs the trained network over a part (an index array of the set); `network` is the whole classifier for the
    bundle, `spec` its structure.
    """

    network: nn.Module
    spec: NetworkSpec
    logits: Callable[[npt.NDArray[np.int64]], Logits]
    parameters_trained: int
    fitted: Fitted | None = None
    chosen: dict[str, float] | None = None
    data_seconds: float = 0.0
    features_seconds: float = 0.0
    head_seconds: float = 0.0
    network_seconds: float = 0.0
    images_per_second: float = 0.0


def _train_majority(bench: Bench, recipe: Recipe, backbone: Backbone | None, seed: int, folder: Path) -> Trained:
    """Always the most frequent class, with the class frequencies of train as its probabilities."""
    classes = len(bench.images.class_names)
    counts = np.bincount(bench.images.labels[bench.split.train], minlength=classes)
    # One image is added to every class, so that a class that train lacks has a finite log loss (Laplace's rule).
    logits = np.log((counts + 1) / (counts.sum() + classes)).astype(np.float32)
    spec = NetworkSpec("constant", classes, _preprocessing(recipe).input_size)
    network = ConstantClassifier(classes)
    network.logits.copy_(torch.from_numpy(logits))
    return Trained(network, spec, lambda part: np.tile(logits, (len(part), 1)), parameters_trained=0)


def _train_scratch(bench: Bench, recipe: Recipe, backbone: Backbone | None, seed: int, folder: Path) -> Trained:
    """One of the project's own networks, or a backbone's architecture, every weight drawn anew."""
    spec = classifier_spec(_preprocessing(recipe).input_size, len(bench.images.class_names), backbone, recipe)
    network = build_network(spec, derive_seed(seed, "initialisation")).to(bench.device)
    if isinstance(network, FastCNN):
        network.whiten(_some_training_images(bench, recipe, images_to_whiten(spec.input_size)))
    train, val = (_image_batches(bench, recipe, part) for part in (bench.split.train, bench.split.val))
    fitted = _fit(bench, recipe, network, train, val, seed, folder)
    return Trained(
        network,
        spec,
        _image_logits(bench, recipe, network),
        parameters_trained=_trainable(network),
        fitted=fitted,
        data_seconds=train.seconds + val.seconds,
        network_seconds=max(fitted.seconds - train.seconds - val.seconds, 0.0),
        images_per_second=fitted.images_per_second,
    )


def _train_probe(bench: Bench, recipe: Recipe, backbone: Backbone | None, seed: int, folder: Path) -> Trained:
    """A linear head on frozen features: pretrained ones, or for the control those of a random network."""
    backbone = _required(backbone, recipe)
    module, key = _frozen_module(bench, recipe, backbone, seed)
    features = _extract(bench, recipe, module, key)
    started = time.perf_counter()
    fitted: Fitted | None = None
    chosen: dict[str, float] | None = None
    if recipe.head == "convex":
        head = _fit_convex(bench, features.values)
        chosen = {"l2": head.l2}
        weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    else:
        linear = nn.Linear(backbone.features, len(bench.images.class_names))
        with torch.no_grad():
            linear.load_state_dict(_initial_head(bench, backbone, seed))
        linear = linear.to(bench.device)
        train, val = (_array_batches(bench, features.values, part) for part in (bench.split.train, bench.split.val))
        # On two threads a small step takes twice as long as on one wherever a third is at work, such as the terminal's (docs/log.md).
        with torch_threads(threads_for(recipe.images_at_once * linear.weight.numel())):
            fitted = _fit(bench, recipe, linear, train, val, seed, folder)
        weight, bias = linear.weight.detach().cpu(), linear.bias.detach().cpu()
    head_seconds = fitted.seconds if fitted else time.perf_counter() - started
    network, spec = _classifier(bench, recipe, backbone, module)
    network = network.to(memory_format=torch.channels_last)  # as `build_network`
    with torch.no_grad():
        network.head.weight.copy_(weight)
        network.head.bias.copy_(bias)
    head_weight, head_bias, held = weight.numpy(), bias.numpy(), held_rows(features.values)

    def logits(part: npt.NDArray[np.int64]) -> Logits:
        answers = np.empty((len(part), len(head_bias)), np.float32)
        for first in range(0, len(part), held):
            some = np.asarray(read_rows(features.values, part[first : first + held]), np.float32)
            answers[first : first + held] = some @ head_weight.T + head_bias
        return answers

    return Trained(
        network,
        spec,
        logits,
        parameters_trained=weight.numel() + bias.numel(),
        fitted=fitted,
        chosen=chosen,
        features_seconds=_share_of_training(bench) * features.seconds,
        head_seconds=head_seconds,
        images_per_second=len(features.values) / features.seconds,
    )


def _train_finetune(bench: Bench, recipe: Recipe, backbone: Backbone | None, seed: int, folder: Path) -> Trained:
    """The probe first, then the last stages (or all of them) with a smaller rate the further from the head.

    Where the backbone can be cut, the frozen part's activations are computed once and kept.
    """
    backbone = _required(backbone, recipe)
    module, key = _frozen_module(bench, recipe, backbone, seed)
    features = _extract(bench, recipe, module, key)
    started = time.perf_counter()
    head = _fit_convex(bench, features.values)
    head_seconds = time.perf_counter() - started
    network, spec = _classifier(bench, recipe, backbone, module)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(head.weight))
        network.head.bias.copy_(torch.from_numpy(head.bias))
    features_seconds = features.seconds
    cut = split_for_fine_tuning(module, _example(bench, recipe)) if recipe.unfreeze == "last" else None
    trained: nn.Module
    train: ImageBatches | ArrayBatches
    val: ImageBatches | ArrayBatches
    if cut is not None:
        trunk, tail = cut
        activations = _extract(bench, recipe, trunk, f"{key}|trunk", half_precision=True)
        features_seconds += activations.seconds
        # The tail's layers are the network's own: training them here trains them there.
        trained = BackboneClassifier(tail, backbone.features, len(bench.images.class_names))
        trained.head = network.head
        train, val = (_array_batches(bench, activations.values, part) for part in (bench.split.train, bench.split.val))
        logits = _array_logits(bench, activations, trained)
    else:
        trained = network
        if recipe.unfreeze == "last":
            freeze_all_but_last(network)
        train, val = (_image_batches(bench, recipe, part) for part in (bench.split.train, bench.split.val))
        logits = _image_logits(bench, recipe, network)
    trained = trained.to(bench.device).to(memory_format=torch.channels_last)
    fitted = _fit(bench, recipe, trained, train, val, seed, folder, frozen_batch_norm=True, evaluate_untrained=True)
    return Trained(
        network,
        spec,
        logits,
        parameters_trained=_trainable(trained),
        fitted=fitted,
        chosen={"l2": head.l2},
        data_seconds=train.seconds + val.seconds,
        features_seconds=_share_of_training(bench) * features_seconds,
        head_seconds=head_seconds,
        network_seconds=max(fitted.seconds - train.seconds - val.seconds, 0.0),
        images_per_second=fitted.images_per_second,
    )


TRAINERS: dict[Kind, Callable[[Bench, Recipe, Backbone | None, int, Path], Trained]] = {
    "scratch": _train_scratch,
    "probe": _train_probe,
    "finetune": _train_finetune,
    "random-features": _train_probe,
    "majority": _train_majority,
}
"""By kind: `(bench, recipe, backbone, seed, folder of the trial)` to what was trained."""


def freeze_all_but_last(network: BackboneClassifier) -> None:
    """Leave trainable the head and the backbone's last two blocks, and what stands after them.

    A block counts if it has weights to train: what only passes on, drops, flattens or normalises stands at the end of many
    backbones and would be taken for their last stage. Parameters of the backbone's own (a class token) are frozen.

    Args:
        network: its parameters' `requires_grad` is set.
    """
    network.backbone.requires_grad_(False)
    missing = _TRAINED_BLOCKS + 1
    for block in blocks_from_head(network):
        block.requires_grad_(True)
        # A scale and a shift per channel are normalisation; weights have two dimensions or more.
        missing -= any(parameter.ndim > 1 for parameter in block.parameters())
        if not missing:
            break


def _fit(
    bench: Bench,
    recipe: Recipe,
    network: nn.Module,
    train: Batches,
    val: Batches,
    seed: int,
    folder: Path,
    *,
    frozen_batch_norm: bool = False,
    evaluate_untrained: bool = False,
) -> Fitted:
    watchers: list[Callback] = [ProgressBar(bench.reporter), HistoryLogger(folder), *bench.callbacks]
    if bench.tensorboard:
        watchers.append(TensorBoard(folder / "tensorboard"))
    return train_network(
        network,
        train,
        val,
        recipe,
        seed,
        device=bench.device,
        checkpoint=folder / "checkpoint.safetensors",
        callbacks=watchers,
        frozen_batch_norm=frozen_batch_norm,
        evaluate_untrained=evaluate_untrained,
    )


def _frozen_module(bench: Bench, recipe: Recipe, backbone: Backbone, seed: int) -> tuple[nn.Module, str]:
    """The frozen network and the key of its weights."""
    if recipe.kind != "random-features":
        return build_backbone(backbone), f"{backbone.weights_sha256}"
    module = build_random_backbone(backbone, derive_seed(seed, "random features"))
    drawn = hash_of_state(module.state_dict())  # not the name: an architecture may change, and PyTorch's generator, too
    _calibrate_batch_norm(bench, recipe, module)
    part = bench.split.train[:: max(len(bench.split.train) // _CALIBRATION_IMAGES, 1)]
    return module, f"random|{drawn}|{sorted(backbone.timm_arguments.items())}|{part.tolist()}"


def _calibrate_batch_norm(bench: Bench, recipe: Recipe, module: nn.Module) -> None:
    """Give a random network the batch statistics of the training images.

    Without them its activations shrink from layer to layer, and the control would be beaten too easily to mean anything.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    part = bench.split.train[:: max(len(bench.split.train) // _CALIBRATION_IMAGES, 1)]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
        layer.train()
    with torch.no_grad():
        for first in range(0, len(part), 64):
            some = read_rows(bench.images.images, part[first : first + 64])
            module(apply_preprocessing(some, _preprocessing(recipe)))
    module.eval()


def _extract(bench: Bench, recipe: Recipe, module: nn.Module, key: str, half_precision: bool = False) -> Features:
    return extract_features(
        bench.images,
        module,
        key,
        _preprocessing(recipe),
        device=bench.device,
        reporter=bench.reporter,
        half_precision=half_precision,
    )


def _share_of_training(bench: Bench) -> float:
    """Of the seconds that all images' features took: what train and val took, since test is no part of training."""
    return (len(bench.split.train) + len(bench.split.val)) / len(bench.images.images)


def _fit_convex(bench: Bench, features: npt.NDArray[np.floating]) -> LinearHead:
    bench.reporter.stage("head", 1)
    images, split = bench.images, bench.split
    head = fit_probe(features, images.labels, split.train, split.val, len(images.class_names))
    bench.reporter.advance(1)
    return head


def _initial_head(bench: Bench, backbone: Backbone, seed: int) -> dict[str, torch.Tensor]:
    """Weights of a fresh dense layer, drawn as Keras draws them: Glorot's uniform, zero bias (Glorot and Bengio 2010)."""
    classes = len(bench.images.class_names)
    weight = torch.empty(classes, backbone.features)
    with seeded_torch(derive_seed(seed, "initialisation")):
        nn.init.xavier_uniform_(weight)
    return {"weight": weight, "bias": torch.zeros(classes)}


def _classifier(
    bench: Bench, recipe: Recipe, backbone: Backbone, module: nn.Module
) -> tuple[BackboneClassifier, NetworkSpec]:
    spec = classifier_spec(_preprocessing(recipe).input_size, len(bench.images.class_names), backbone, recipe)
    return BackboneClassifier(module, spec.features, spec.classes, spec.looks).eval().to(bench.device), spec


def _image_batches(bench: Bench, recipe: Recipe, part: npt.NDArray[np.int64]) -> ImageBatches:
    images, labels = bench.images.images, bench.images.labels
    return ImageBatches(
        images, labels, part, _preprocessing(recipe), recipe.augmentation, bench.device, recipe.max_shift
    )


def _array_batches(bench: Bench, values: npt.NDArray[np.floating], part: npt.NDArray[np.int64]) -> ArrayBatches:
    return ArrayBatches(values, bench.images.labels, part, bench.device)


def _image_logits(bench: Bench, recipe: Recipe, network: nn.Module) -> Callable[[npt.NDArray[np.int64]], Logits]:
    return lambda part: predict_logits(network, _image_batches(bench, recipe, part), bench.device)


def _array_logits(bench: Bench, activations: Features, network: nn.Module) -> Callable[[npt.NDArray[np.int64]], Logits]:
    return lambda part: predict_logits(network, _array_batches(bench, activations.values, part), bench.device)


def _some_training_images(bench: Bench, recipe: Recipe, count: int) -> torch.Tensor:
    """Evenly spaced training images, prepared: at least `count` of them where there are as many, fewer than twice as many."""
    part = bench.split.train[:: max(len(bench.split.train) // count, 1)]
    return apply_preprocessing(read_rows(bench.images.images, part), _preprocessing(recipe))


def _example(bench: Bench, recipe: Recipe) -> torch.Tensor:
    return apply_preprocessing(bench.images.images[bench.split.train[:2]], _preprocessing(recipe)).to(bench.device)


def _trainable(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _preprocessing(recipe: Recipe) -> Preprocessing:
    if recipe.preprocessing is None:
        raise RunError(f"Recipe {recipe.name!r} was not resolved before its trial.")
    return recipe.preprocessing


def _required(backbone: Backbone | None, recipe: Recipe) -> Backbone:
    if backbone is None:
        raise UsageError(f"Recipe {recipe.name!r} ({recipe.kind}) needs a backbone.")
    return backbone
