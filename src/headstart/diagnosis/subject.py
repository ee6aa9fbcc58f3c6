"""The patient: a network with its images, as its owner runs it, whether a recipe of ours or somebody's own PyTorch code."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.errors import UsageError
from headstart.models.backbones import Backbone, build_backbone, find_backbone
from headstart.models.weights import weight_files
from headstart.records import Images, Preprocessing, Recipe

Prepare = Callable[[Images], torch.Tensor]
"""From `(B, S, S, 3) uint8` to what the network is given."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From a network's outputs and `(n,) int64` labels to a number."""

_Norm = nn.modules.batchnorm._BatchNorm
ALIKE = 0.5
"""Chosen: cosine between a kernel and the published one; fine-tuning leaves it above 0.9, chance near 0."""

_NOT_COMPARED = "num_batches_tracked"  # bookkeeping of training, no part of what a network computes


@dataclass(frozen=True)
class Evidence:
    """What an owner may hand over beside the network; every part is optional.

    Attributes:
        history: per epoch, such as `{"loss": [...], "val_loss": [...], "accuracy": [...], "val_accuracy": [...]}`.
        predictions: `(n, C)` outputs or `(n,)` predicted classes, of the test part in the order of the data.
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
    """What is left of a training whose network is not there: its predictions, and perhaps its curve and its loss."""

    name: str
    evidence: Evidence


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
    published, names = found if found is not None and not _is_pretrained_otherwise(module, *found) else (None, {})
    if train_mode is None:
        # Some layers still and others not: whoever set that up freezes batch norm on purpose, and evaluates in evaluation mode.
        norms = [layer for layer in module.modules() if isinstance(layer, _Norm)]
        train_mode = bool(norms) and all(layer.training for layer in norms)
    if train_mode and batch < 2:
        raise UsageError(
            "In training mode a batch has two images at least: batch norm has no statistics of one. Give `batch`."
        )
    _require_cpu(module, "The network", "model.cpu()")
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
        names={name: name for name in module.state_dict() if not name.endswith(_NOT_COMPARED)},
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


def find_published(module: nn.Module, weights_dir: Path | None) -> tuple[Backbone, dict[str, str]] | None:
    """Recognise a known backbone inside a module, by tensor names or, failing that, by the sequence of tensor shapes.

    Only weights on this machine are tried.

    Returns:
        The backbone, and the module's names of its tensors mapped to the published names; `None` if none fits.
    """
    state = {
        name: tuple(value.shape) for name, value in module.state_dict().items() if not name.endswith(_NOT_COMPARED)
    }
    for file in weight_files(weights_dir):
        with safe_open(file.path, framework="pt") as tensors:
            wanted = {
                name: tuple(tensors.get_slice(name).get_shape())
                for name in tensors.keys()  # noqa: SIM118 - not a dict
                if not name.endswith(_NOT_COMPARED)
            }
        names = _match_by_name(state, wanted)
        if names is None:
            backbone = find_backbone(str(file.path), weights_dir)
            built = build_backbone(backbone).state_dict()  # a file's tensors are sorted by name, a module's by depth
            names = _match_by_shape(state, {name: wanted[name] for name in built if name in wanted})
        if names is not None:
            return find_backbone(str(file.path), weights_dir), names
    return None


def cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Between two tensors of one shape, as vectors."""
    return float(nn.functional.cosine_similarity(ours.float().cpu().flatten(), theirs.float().flatten(), dim=0))


def _is_pretrained_otherwise(module: nn.Module, published: Backbone, names: Mapping[str, str]) -> bool:
    """Whether a network of a known architecture was trained, but not from these weights: torchvision's beside timm's.

    No kernel is alike, and its batch norm's factors have moved from the ones that a new network has.
    """
    state, theirs = module.state_dict(), build_backbone(published).state_dict()
    if any(cosine(state[ours], theirs[name]) >= ALIKE for ours, name in names.items() if theirs[name].ndim >= 2):
        return False
    return any(bool((layer.weight != 1).any()) for layer in norm_layers(module) if layer.affine)


def _match_by_name(state: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> dict[str, str] | None:
    first = next(iter(wanted))
    for name in state:
        if name == first or name.endswith("." + first):
            prefix = name[: len(name) - len(first)]
            if all(state.get(prefix + key) == shape for key, shape in wanted.items()):
                return {prefix + key: key for key in wanted}
    return None


def _match_by_shape(state: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> dict[str, str] | None:
    names, shapes, sought = list(state), list(state.values()), list(wanted.values())
    for start in range(len(shapes) - len(sought) + 1):
        if shapes[start : start + len(sought)] == sought:
            return dict(zip(names[start : start + len(sought)], wanted, strict=True))
    return None


def published_state(subject: Subject) -> dict[str, torch.Tensor]:
    """The published tensors under the module's own names; empty where nothing is known."""
    if subject.published is None:
        return {}
    state = build_backbone(subject.published).state_dict()
    return {ours: state[theirs] for ours, theirs in subject.names.items()}


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """A module's convolutions as they are registered, which need not be the order in which they run.

    Raises:
        UsageError: it has none.
    """
    found = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    if not found and (hidden := _unregistered(module)):
        raise UsageError(
            f"The network keeps layers in a plain list or dictionary ({hidden}). PyTorch does not know them: model.eval(), "
            "model.to() and model.parameters() pass them by, so their batch norm stays in training mode. Keep them as an attribute "
            "or in a torch.nn.ModuleList, and diagnose again."
        )
    if not found:
        raise UsageError("The network has no convolution; headstart diagnoses convolutional backbones.")
    return found


def _unregistered(module: nn.Module) -> str:
    """Name of an attribute in which layers lie that are not registered; empty if there is none."""
    for owner in module.modules():
        for name, value in vars(owner).items():
            inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
            if name != "_modules" and any(isinstance(one, nn.Module) for one in inside):
                return f"{type(owner).__name__}.{name}"
    return ""


@contextmanager
def fed_at_first_convolution(module: nn.Module) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Run a module with its first convolution fed directly, whatever stands before it (an inner normalisation, a resize).

    The first is the one that runs first: what is registered before it may run later, or never.

    Yields:
        A function from the convolution's input `(B, 3, H, W)` to the module's output.
    """
    pending: list[torch.Tensor] = []

    def replace(layer: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        if not pending:
            return None
        fed = pending.pop()
        # A network of gray images: what we feed has three channels, each of them the picture.
        return (fed.mean(1, keepdim=True) if layer.in_channels == 1 and fed.shape[1] == 3 else fed,)

    handles = [layer.register_forward_pre_hook(replace) for layer in convolutions(module)]

    def run(inputs: torch.Tensor) -> torch.Tensor:
        pending[:] = [inputs]
        output: torch.Tensor = module(inputs)
        return output

    try:
        yield run
    finally:
        for handle in handles:
            handle.remove()


def find_classifier(module: nn.Module, outputs: torch.Tensor, classes: int) -> str | None:
    """Name of the module's own last linear layer, if its outputs have one number for each class, or one for two classes."""
    if outputs.ndim != 2 or outputs.shape[1] not in ((classes, 1) if classes == 2 else (classes,)):
        return None
    wanted = outputs.shape[1]
    linear = [
        name for name, layer in module.named_modules() if isinstance(layer, nn.Linear) and layer.out_features == wanted
    ]
    return linear[-1] if linear else None


def one_tensor(outputs: Any) -> torch.Tensor:
    """The tensor that a network's answer is about: the answer itself, its `logits`, or the first tensor in it.

    Raises:
        UsageError: there is none.
    """
    if isinstance(outputs, torch.Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    inside = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, tuple | list) else ()
    found = next((one for one in (logits, *inside) if isinstance(one, torch.Tensor)), None)
    if found is None:
        raise UsageError(
            f"The network returned {type(outputs).__name__}, and there is no tensor in it. Wrap it so that it returns one."
        )
    return found


def in_batches(count: int, size: int) -> list[slice]:
    """Where batches begin and end; a last one of a single image joins the one before it, since batch norm needs two."""
    firsts = list(range(0, count, size))
    if len(firsts) > 1 and count - firsts[-1] == 1:
        firsts.pop()
    return [slice(first, end) for first, end in pairwise([*firsts, count])]


def pooled(features: torch.Tensor) -> torch.Tensor:
    """`(B, D)` features: maps are averaged over their positions, anything else is flattened."""
    return features.mean((2, 3)) if features.ndim == 4 else features.flatten(1)


def copied(module: nn.Module) -> nn.Module:
    """A module that can be changed without changing its owner's.

    A tensor that a training step left in it (`self.features = x`) is copied without its gradient's past, which nothing can copy.

    Raises:
        UsageError: it holds something else that cannot be copied.
    """
    computed = {
        id(tensor): tensor.detach().clone()
        for layer in module.modules()
        for tensor in _computed(list(vars(layer).values()))
    }
    try:
        return copy.deepcopy(module, computed)
    except Exception as error:  # somebody else's network may hold anything
        raise UsageError(
            f"{type(module).__name__} cannot be copied (copy.deepcopy), and headstart changes nothing of yours: "
            f"{type(error).__name__}: {error}. Build the network anew, load its weights with load_state_dict, and hand that over."
        ) from error


def _computed(value: Any) -> list[torch.Tensor]:
    """The tensors in a value, its lists, tuples and dictionaries that came out of a computation with gradients."""
    if isinstance(value, torch.Tensor):
        return [] if value.is_leaf else [value]
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for one in inside for tensor in _computed(one)]


def norm_layers(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch-norm layers that keep statistics."""
    return [layer for layer in module.modules() if isinstance(layer, _Norm) and layer.track_running_stats]


@contextmanager
def in_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Training or evaluation mode inside the block; stored statistics do not move, and everything is put back afterwards."""
    modes = {layer: layer.training for layer in module.modules()}
    momenta = {layer: layer.momentum for layer in norm_layers(module)}
    counts = [
        (count, count.clone()) for layer in momenta if isinstance(count := layer.num_batches_tracked, torch.Tensor)
    ]
    for norm in momenta:
        norm.momentum = 0.0
    module.train(training)
    try:
        yield
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for count, before in counts:
            count.copy_(before)
        for layer, mode in modes.items():
            layer.training = mode
