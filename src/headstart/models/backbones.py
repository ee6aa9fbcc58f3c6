"""Backbones: pretrained feature extractors, where their weights come from, and the pixels that they expect."""

import difflib
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import huggingface_hub
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from headstart.errors import UsageError, WeightsUnavailableError
from headstart.models.metadata import three_floats
from headstart.models.small32 import FAMILY, LARGEST_IMAGE
from headstart.models.timm_networks import create_network, fixed_side
from headstart.models.weights import (
    WeightsFile,
    find_weights_file,
    hash_of_state,
    load_strictly,
    network_of,
    read_weights_file,
    weights_folders,
)
from headstart.records import Preprocessing

ALIASES = {"mobilenetv2": "mobilenetv2_100"}
"""Short names for the backbones that people ask for most."""

HUB_FILE = "model.safetensors"
"""What a timm model's repository on the hub calls its weights."""
_REACHABLE_SECONDS = 5.0  # chosen: a slow connection answers within it, an absent one does not hold the user up

_SMALL_STRIDE = 8  # of the backbones made for small images

_SMALLEST_INPUT, _UPSAMPLED_INPUT, _STRIDE = 96, 128, 32
# Measured with MobileNetV2 on CIFAR-10 (32 px): probe accuracy .799 at 96 px, .851 at 128, .861 at 160, .849 at 224,
# and each step costs the square of the size: 128 is where the next step stops paying for itself.


@dataclass(frozen=True)
class Backbone:
    """A feature extractor without its classifier.

    Attributes:
        name: as the user asked for it, or the architecture.
        architecture: timm's name.
        timm_arguments: keyword arguments for `timm.create_model`.
        source: `file`, `hub` (timm's download) or `random` (no pretrained weights at all).
        weights_sha256: of names and tensors; `None` for random weights.
        licence, pretraining: words for people.
        native_size: side in pixels that it was pretrained at.
        features: width of its pooled output.
        preprocessing: at its native size.
        path: of the weight file, where there is one.
        fixed_size: whether it takes images of its native size only, as many transformers do.
        pretrained_on: fingerprint of the images of its pretraining, where its file has it.
    """

    name: str
    architecture: str
    timm_arguments: Mapping[str, Any]
    source: Literal["file", "hub", "random"]
    weights_sha256: str | None
    licence: str
    pretraining: str
    native_size: int
    features: int
    preprocessing: Preprocessing
    path: Path | None = field(default=None, compare=False)
    fixed_size: bool = False
    pretrained_on: str | None = field(default=None, compare=False)


def find_backbone(name: str, weights_dir: Path | None = None) -> Backbone:
    """Find a backbone's pretrained weights: a file named outright, the weight folders, then timm's hub.

    Args:
        name: a timm model name, an alias, or the path of a weight file.
        weights_dir: searched first; see `weights_folders`.

    Raises:
        UsageError: timm has no such model, or other weights of it; the message suggests near names.
        WeightsUnavailableError: nowhere on this machine and not reachable; the message says where the file should be.
        WeightsError: a file was found and does not fit.
    """
    if name.endswith(".safetensors"):
        return _from_file(read_weights_file(Path(name)))
    resolved = ALIASES.get(name, name)
    if file := find_weights_file(resolved, weights_folders(weights_dir)):
        return _from_file(file)
    require_known(resolved)
    if resolved in FAMILY:
        raise WeightsUnavailableError(
            f"No pretrained weights for {resolved!r} here, and no hub has them. `headstart pretrain DATA --architecture "
            f"{resolved}` makes them (docs/small-images.md); `headstart backbones` lists what this machine has."
        )
    return _from_hub(resolved, weights_dir)


def located(name: str, weights_dir: Path | None = None) -> str:
    """A backbone's name as it is, or the path of the weight file in the weight folders that alone goes by it."""
    if name.endswith(".safetensors") or timm.is_model(name.split(".")[0]):
        return name
    file = find_weights_file(name, weights_folders(weights_dir))
    return name if file is None else str(file.path)


def made_for_small_images(name: str) -> bool:
    """Whether a backbone, by its name or in its weight file, was pretrained at a size that small images have."""
    if name.endswith(".safetensors"):
        return read_weights_file(Path(name)).input_size <= LARGEST_IMAGE
    return name in FAMILY


def untrained_backbone(name: str) -> Backbone:
    """Describe a timm architecture without pretrained weights, for the random-features control.

    Raises:
        UsageError: timm has no such model.
    """
    resolved = ALIASES.get(name, name)
    require_known(resolved)
    return _describe(timm.create_model(resolved, pretrained=False, num_classes=0), resolved, "random", None)


def require_known(name: str) -> None:
    """Raise `UsageError` with near names if timm has no model of this name."""
    if timm.is_model(name.split(".")[0]):
        return
    if (file := Path(f"{name}.safetensors")).is_file():
        raise UsageError(
            f"There is no backbone {name!r} in timm {timm.__version__}. Do you mean the file {file}? Name it with its ending."
        )
    near = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"Did you mean {', '.join(near)}?" if near else "timm.list_models() lists them."
    raise UsageError(f"There is no backbone {name!r} in timm {timm.__version__}. {hint}")


def build_backbone(backbone: Backbone) -> nn.Module:
    """Make the network with its pretrained weights, in evaluation mode.

    Returns:
        A module from `(N, 3, H, W) float32` to `(N, features) float32`.

    Raises:
        WeightsError: a key is missing, unexpected or of another shape.
    """
    if backbone.source == "hub":
        return _create_from_hub(backbone.architecture)
    if backbone.path is None:
        raise WeightsUnavailableError(f"Backbone {backbone.name!r} has no pretrained weights to load.")
    module = create_network(backbone.architecture, backbone.timm_arguments, str(backbone.path))
    load_strictly(module, load_file(backbone.path), str(backbone.path))
    return module.eval()


def build_random_backbone(backbone: Backbone, seed: int) -> nn.Module:
    """Make the same network with freshly drawn weights; global random state is left as it was."""
    with seeded_torch(seed):
        module: nn.Module = timm.create_model(backbone.architecture, num_classes=0, **backbone.timm_arguments)
    return module.eval()


@contextmanager
def seeded_torch(seed: int) -> Iterator[None]:
    """Seed torch's own generators inside the block, and put their states back afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def default_input_size(canvas: int, native_size: int) -> int:
    """Choose the input size from the data and the backbone.

    Args:
        canvas: side of the kept images, in pixels.
        native_size: side that the backbone was pretrained at.

    Returns:
        For a backbone made for small images its native size, or for larger images a multiple of 8 up to one and a half times that,
        and up to 64 px. For the others a multiple of 32, their stride: small images are enlarged up to four times, to
        between 96 and 128 px; larger ones keep their size, up to the native one.

    Measured (docs/small-images.md): real images of 64 px are told apart better at 48 px than at 32 (by 3 to 4 points) and than at 64 (by 3
    to 6), by each of the three bundled backbones; enlarging adds no details, and 32 px images enlarged to 36 to 48 px lose 3 to 5 points
    with 5,000 labels and 5 to 8 with 500 (`small32_m` on CIFAR-10).

    >>> [default_input_size(canvas, 224) for canvas in (8, 32, 64, 150, 256)]
    [96, 128, 128, 160, 224]
    >>> [default_input_size(canvas, 32) for canvas in (8, 32, 50, 64, 256)]
    [32, 32, 48, 48, 48]
    >>> [default_input_size(canvas, 28) for canvas in (8, 28, 32)]
    [28, 28, 32]
    """
    if canvas <= native_size <= LARGEST_IMAGE:
        return native_size
    if native_size <= LARGEST_IMAGE:
        most = max(3 * native_size // 2 // _SMALL_STRIDE * _SMALL_STRIDE, native_size)
        return min(-(-canvas // _SMALL_STRIDE) * _SMALL_STRIDE, most, LARGEST_IMAGE)
    upsampled = min(max(4 * canvas, _SMALLEST_INPUT), _UPSAMPLED_INPUT)
    wanted = max(upsampled, canvas)
    return min(native_size, -(-wanted // _STRIDE) * _STRIDE)


def split_for_fine_tuning(backbone: nn.Module, example: torch.Tensor) -> tuple[nn.Sequential, nn.Sequential] | None:
    """Cut a backbone into a frozen trunk and a trainable tail (its last two stages), where its structure allows.

    The cut is checked, not trusted: tail after trunk must give the backbone's own output on `example`.

    Args:
        backbone: in evaluation mode.
        example: `(N, 3, H, W) float32`.

    Returns:
        `(trunk, tail)`, or `None` if this architecture cannot be cut this way.
    """
    if (stages := _stages(backbone)) is None or len(stages) < 2:
        return None
    before, middle, after = stages
    cut = max(len(middle) - 2, 0)
    trunk = nn.Sequential(*before, *middle[:cut])
    tail = nn.Sequential(*middle[cut:], *after)
    with torch.inference_mode():
        whole, parts = backbone(example), tail(trunk(example))
    if whole.shape != parts.shape or not torch.allclose(whole, parts, rtol=1e-4, atol=1e-5):
        return None
    return trunk.eval(), tail.eval()


def _stages(backbone: nn.Module) -> tuple[list[nn.Module], list[nn.Module], list[nn.Module]] | None:
    """Stem, stages and end of the two families whose forward pass is a plain sequence (EfficientNet, ResNet)."""
    children = dict(backbone.named_children())
    if {"conv_stem", "bn1", "blocks", "conv_head", "bn2", "global_pool"} <= children.keys():
        stem, end = ("conv_stem", "bn1"), ("conv_head", "bn2", "global_pool")
        return [children[name] for name in stem], list(children["blocks"].children()), [children[name] for name in end]
    if {"conv1", "bn1", "act1", "maxpool", "layer1", "layer4", "global_pool"} <= children.keys():
        return (
            [children[name] for name in ("conv1", "bn1", "act1", "maxpool")],
            [children[name] for name in ("layer1", "layer2", "layer3", "layer4")],
            [children["global_pool"]],
        )
    return None


def _from_file(file: WeightsFile) -> Backbone:
    module = network_of(file)
    state = load_file(file.path)
    load_strictly(module, state, str(file.path))
    described = _describe(module, file.architecture, "file", hash_of_state(state))
    return replace(
        described,
        timm_arguments=file.timm_arguments,
        fixed_size=fixed_side(module, file.timm_arguments) is not None,
        licence=file.licence,
        pretraining=file.pretraining,
        native_size=file.input_size,
        preprocessing=Preprocessing(file.input_size, file.interpolation, file.mean, file.std),
        path=file.path,
        pretrained_on=file.metadata.get("data_fingerprint"),
    )


def _from_hub(name: str, weights_dir: Path | None) -> Backbone:
    folders = ", ".join(str(folder) for folder in weights_folders(weights_dir))
    _require_published(name, folders)
    try:
        module = _create_from_hub(name)
    except Exception as error:  # a download fails in as many ways as the hub's client and the network have
        raise WeightsUnavailableError(
            f"No pretrained weights for {name!r}: not in {folders}, and the download failed ({type(error).__name__}). "
            f"Connect to the network, or put {name}.safetensors into one of these folders, or name its folder with "
            "--weights-dir (docs/weights.md shows the format). `headstart backbones` names files there that are not usable."
        ) from error
    return _describe(module, name, "hub", hash_of_state(module.state_dict()))


def _require_published(name: str, folders: str) -> None:
    """Refuse what no hub has: an architecture without published weights, or a name for other ones than there are.

    Raises:
        WeightsUnavailableError: there are none for the architecture.
        UsageError: there are others; the message names them.
    """
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if not timm.list_pretrained(architecture) and not tags:
        raise WeightsUnavailableError(
            f"No pretrained weights for {name!r}: not in {folders}, and timm publishes none. If you have them, put {name}.safetensors "
            "into one of these folders, or name its folder with --weights-dir (docs/weights.md shows the format); or choose another "
            "backbone, `headstart backbones` lists some."
        )
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights {tag!r} of {architecture!r}. It has: {', '.join(tags)}.")


def _create_from_hub(name: str) -> nn.Module:
    # With its own classifier first: timm loads strictly then, and would drop missing keys silently without it.
    config = timm.get_pretrained_cfg(name)
    overlay: dict[str, Any] = {}
    if config is not None and config.hf_hub_id and not config.hf_hub_filename:
        overlay = {"file": _hub_file(config.hf_hub_id)}
    module: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    module.reset_classifier(0)  # type: ignore[operator]
    return module.eval()


def _hub_file(repository: str) -> str:
    """Path of a model's weights in the hub's own cache, downloaded if need be.

    The hub's client would retry an absent network for most of a minute; one question asked first answers at once.
    """
    cached = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return cached
    _require_reachable(huggingface_hub.constants.ENDPOINT)
    return huggingface_hub.hf_hub_download(repository, HUB_FILE)


def _require_reachable(address: str) -> None:
    """Raise `OSError` unless some server answers there within a few seconds; any HTTP status is an answer."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_REACHABLE_SECONDS).close()
    except urllib.error.HTTPError:
        return


def _describe(module: Any, name: str, source: Literal["file", "hub", "random"], weights_sha256: str | None) -> Backbone:
    config = module.pretrained_cfg
    native = int(config["input_size"][-1])
    interpolation = config.get("interpolation", "bilinear")
    return Backbone(
        name=name,
        architecture=name,
        timm_arguments={},
        source=source,
        weights_sha256=weights_sha256,
        licence=str(config.get("license") or ""),
        pretraining=str(config.get("tag") or ""),
        native_size=native,
        features=int(module.num_features if not hasattr(module, "head_hidden_size") else module.head_hidden_size),
        preprocessing=Preprocessing(
            native,
            interpolation if interpolation in ("nearest", "bilinear", "bicubic") else "bicubic",
            three_floats(config["mean"]),
            three_floats(config["std"]),
        ),
        fixed_size=fixed_side(module, {}) is not None,
    )
