"""The patient: a network with its images, as its owner runs it, whether a recipe of ours or somebody's own PyTorch code."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.diagnosis.modules import copied, find_classifier, one_tensor
from headstart.diagnosis.published import NOT_COMPARED, find_published, is_pretrained_otherwise
from headstart.errors import UsageError
from headstart.models.backbones import Backbone, build_backbone
from headstart.records import Images, Preprocessing, Recipe

Prepare = Callable[[Images], torch.Tensor]
"""From `(B, S, S, 3) uint8` to what the network is given."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From a network's outputs and `(n,) int64` labels to a number."""


@dataclass(frozen=True)
class Evidence:
    """What an owner may hand over beside the network; every part is optional.

    Attributes:
        history: per epoch, such as `{"loss": [...], "val_loss": [...], "accuracy": [...], "val_accuracy": [...]}`.
        predictions: `(n, C)` outputs or `(n,)` predicted classes, of the test part or of all images, in the order of the data.
        loss: from the network's outputs and `(n,) int64` labels to a number.
        optimizer: the one that trains the network.
        augment: the training path from images to inputs, where it differs from the evaluation's.
        serve: the path from images to inputs in use, where it differs from the evaluation's.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    predictions: npt.NDArray[Any] | None = None
    loss: Loss | None = None
    optimizer: torch.optim.Optimizer | None = None
    augment: Prepare | None = None
    serve: Prepare | None = None


@dataclass(frozen=True)
class Kept:
    """What is left of a training whose network is not there: its predictions or its curve, or both, and perhaps its loss."""

    name: str
    evidence: Evidence

    @property
    def kind(self) -> str:
        """`predictions`, or `history` where there are none."""
        return "history" if self.evidence.predictions is None else "predictions"


@dataclass(frozen=True)
class Subject:
    """A network as it is run.

    Attributes:
        name: for people.
        module: from what `prepare` gives to features, or to logits if it ends in its own classifier.
        prepare: from pixels to the module's input.
        head: from features to logits, where the module stops at features.
        classifier: name of the module's own last linear layer, where it ends in one.
        train_mode: whether the module runs in training mode.
        batch: images that go through it at a time; matters in training mode.
        published: the pretrained backbone that it is made from, where known.
        names: the module's tensor names to the published ones.
        contract: what the backbone expects of its input, where known.
        recipe: where it is one of ours.
        evidence: what else its owner handed over.
    """

    name: str
    module: nn.Module
    prepare: Prepare
    head: nn.Module | None = None
    classifier: str | None = None
    train_mode: bool = False
    batch: int = 64
    published: Backbone | None = None
    names: dict[str, str] = field(default_factory=dict)
    contract: Preprocessing | None = None
    recipe: Recipe | None = None
    evidence: Evidence = field(default_factory=Evidence)

    @cached_property
    def published_tensors(self) -> dict[str, torch.Tensor]:
        """The published tensors under the module's own names, loaded once; empty where nothing is known."""
        if self.published is None:
            return {}
        state = build_backbone(self.published).state_dict()
        return {ours: state[theirs] for ours, theirs in self.names.items()}


def subject_of_module(
    module: nn.Module,
    preprocess: Callable[..., Any],
    example: Images,
    classes: int,
    *,
    name: str,
    head: nn.Module | None = None,
    train_mode: bool | None = None,
    batch: int = 64,
    weights_dir: Path | None = None,
    evidence: Evidence | None = None,
) -> Subject:
    """Take in somebody's own network, whose parameters and modes are left as they are.

    Args:
        module: a backbone, or a whole classifier.
        preprocess: from images to its input; see `batched`.
        example: `(B, S, S, 3) uint8`.
        classes: number of classes.
        name: for people.
        head: from features to logits, where the module stops at features.
        train_mode: whether it is run in training mode; `None` takes the mode that it is in.
        batch: images at a time.
        weights_dir: where published weights are looked for first.
        evidence: what else there is.

    Raises:
        UsageError: the network, its head or its preprocessing cannot be run, or do not fit the classes.
    """
    prepare = batched(preprocess, example)
    found = find_published(module, weights_dir)
    published, names = found if found is not None and not is_pretrained_otherwise(module, *found) else (None, {})
    if train_mode is None:
        # Some layers still and others not: whoever set that up freezes batch norm on purpose, and evaluates in evaluation mode.
        norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        train_mode = bool(norms) and all(layer.training for layer in norms)
    if train_mode and batch < 2:
        raise UsageError(
            "In training mode a batch has two images at least: batch norm has no statistics of one. Give `batch`."
        )
    _require_cpu(module, "The network", "model.cpu()")
    _require_numbers(module, "The network")
    inputs = prepare(example[:2])
    outputs = _tried(module, inputs, f"The network failed on what `preprocess` returned, shape {tuple(inputs.shape)}")
    if head is not None:
        _check_head(head, outputs, classes)
    return Subject(
        name=name,
        module=module,
        prepare=prepare,
        head=head,
        classifier=None if head is not None else find_classifier(module, outputs, classes),
        train_mode=train_mode,
        batch=batch,
        published=published,
        names=names,
        contract=published.preprocessing if published is not None else _own_contract(module),
        evidence=evidence or Evidence(),
    )


def _check_head(head: nn.Module, features: torch.Tensor, classes: int) -> None:
    """Run a head once: it takes what the network gives, and has an output for each class."""
    _require_cpu(head, "The head", "head.cpu()")
    _require_numbers(head, "The head")
    shape = tuple(features.shape)
    advice = "A head takes what the network returns."
    if features.ndim == 4:
        advice = (
            "If your own forward pools and flattens in between, as torchvision's does, hand that over with the network: "
            "torch.nn.Sequential(features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())."
        )
    scores = _tried(head, features, f"The head failed on what the network gives it, shape {shape}", f" {advice}")
    wanted = (classes, 1) if classes == 2 else (classes,)
    if scores.ndim != 2 or scores.shape[1] not in wanted:
        one = " (or one, the second class' score)" if classes == 2 else ""
        raise UsageError(
            f"The head made {tuple(scores.shape)} of the network's {shape}, and the data has {classes} classes. Expected a row for "
            f"each image with a number for each class{one}: ({len(features)}, {classes}). Give the head that was trained on these "
            f"classes. {advice}"
        )


def _require_cpu(module: nn.Module, what: str, remedy: str) -> None:
    devices = {value.device.type for value in (*module.parameters(), *module.buffers())} - {"cpu"}
    if devices:
        raise UsageError(
            f"{what} is on {', '.join(sorted(devices))}; headstart diagnoses on the CPU. Move it first: {remedy}."
        )


def _require_numbers(module: nn.Module, what: str) -> None:
    """Refuse a module whose training has diverged."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    lost = [name for name, value in tensors if value.is_floating_point() and not bool(value.isfinite().all())]
    if lost:
        raise UsageError(
            f"{what} holds values that are no numbers (NaN or infinite) in {len(lost)} of {len(tensors)} tensors, {lost[0]} first: its "
            "training diverged (cause 11, learning-rate), and nothing of what it computes can be judged. Train again with a tenth of "
            "the rate, or hand over the weights of an epoch before that; the training's curve alone can be diagnosed with history."
        )


def _tried(module: nn.Module, inputs: torch.Tensor, failed: str, advice: str = "") -> torch.Tensor:
    """What a copy of a module makes of two images, in evaluation mode."""
    still = copied(module).eval()
    try:
        with torch.inference_mode():
            return one_tensor(still(inputs))
    except UsageError:
        raise
    except Exception as error:  # somebody else's network fails in its own ways
        raise UsageError(f"{failed}: {type(error).__name__}: {error}.{advice}") from error


def subject_of_recipe(recipe: Recipe, backbone: Backbone) -> Subject:
    """The frozen part of one of our recipes: the published network behind the recipe's preprocessing."""
    assert recipe.preprocessing is not None
    preprocessing = recipe.preprocessing
    module = build_backbone(backbone)
    return Subject(
        name=recipe.name,
        module=module,
        prepare=lambda images: apply_preprocessing(images, preprocessing),
        published=backbone,
        names={name: name for name in module.state_dict() if not name.endswith(NOT_COMPARED)},
        contract=backbone.preprocessing,
        recipe=recipe,
    )


def _own_contract(module: nn.Module) -> Preprocessing | None:
    """What a timm network says of itself, where its weights are not on this machine."""
    for layer in module.modules():
        config = getattr(layer, "pretrained_cfg", None)
        if isinstance(config, dict) and {"input_size", "mean", "std"} <= config.keys():
            mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
            return Preprocessing(int(config["input_size"][-1]), "bilinear", mean, std)  # type: ignore[arg-type]
    return None


def batched(preprocess: Callable[..., Any], example: Images, name: str = "preprocess") -> Prepare:
    """Find out how a preprocessing wants to be called, and give it the one form that we use.

    Args:
        preprocess: takes one PIL image, one `(H, W, 3)` array or a batch of them; returns a tensor or array, channels first. What it
            makes of one image may be a batch of one.
        example: `(B, S, S, 3) uint8`, two images at least.
        name: of the argument that it came as, for messages.

    Raises:
        UsageError: no way of calling it gives inputs; the message has what each attempt said.
    """
    ways: dict[str, Prepare] = {
        "a PIL image": lambda images: torch.stack([_one_image(preprocess(Image.fromarray(one))) for one in images]),
        "a batch (B, H, W, 3) uint8": lambda images: _tensor(preprocess(np.ascontiguousarray(images))),
        "an image (H, W, 3) uint8": lambda images: torch.stack([_one_image(preprocess(one.copy())) for one in images]),
    }
    said = []
    for way, prepare in ways.items():
        try:
            inputs = prepare(example[:2])
        except Exception as error:  # noqa: BLE001 - somebody else's code fails in its own ways; all are reported below
            said.append(f"given {way}: {type(error).__name__}: {error}")
            continue
        if inputs.ndim == 4 and len(inputs) == 2 and inputs.shape[1] in (1, 3):
            return prepare
        said.append(f"given {way}: it returned shape {tuple(inputs.shape)}")
    raise UsageError(
        f"`{name}` turns images into the network's input, (B, 3, H, W) floating point. It did not: " + "; ".join(said)
    )


def _one_image(value: Any) -> torch.Tensor:
    """`(C, H, W)` of one image; many write `preprocess(image).unsqueeze(0)`, a batch of one."""
    tensor = _tensor(value)
    return tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor


def _tensor(value: Any) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
    return tensor.detach().cpu().float()
