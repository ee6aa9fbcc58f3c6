"""Correct transfer learning as people write it, in plain PyTorch: one pipeline, six styles of code around it.

A `Setup` says what its author does; `written_out` turns it into the functions and modules that the author would have in a
script. The styles hide the same pipeline in different places, so that nothing but the tensors tells what happens:

torchvision   v2.Compose on a PIL image; the network as timm makes it
numpy         a function on one (H, W, 3) array, resized with Pillow
batch         a function on a batch of arrays, resized with torch.nn.functional.interpolate
inside        the last Normalize is a layer of an nn.Sequential, before the network
wrapper       a module of the author's own that enlarges the images in its forward
children      the network taken apart into nn.Sequential(*network.children()), so that its tensors have other names
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from headstart.records import ImageSet

STYLES = ("torchvision", "numpy", "batch", "inside", "wrapper", "children")
Triple = tuple[float, float, float]
Normalization = tuple[Triple, Triple]  # mean and standard deviation, of what comes in
Floats = npt.NDArray[np.float32]

_TORCHVISION = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}
_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class Pixels:
    """What an author does to pixels, in this order.

    Attributes:
        size: side that images are resized to; `None` leaves them as they are.
        interpolation: `bilinear`, `bicubic` or `nearest`.
        divisions: how often they are divided by 255.
        outer: normalizations in the preprocessing, one after another.
        inner: normalizations that are layers of the model.
        frame: side that images are framed to; `None` for no frame.
        black: whether the frame is made of black pixels (before scaling) or of zeros (after it).
        reversed_channels: whether BGR goes in.
        standardised: whether each image is standardised by its own mean and deviation, before `outer`.
    """

    size: int | None
    interpolation: str
    outer: tuple[Normalization, ...]
    inner: tuple[Normalization, ...] = ()
    divisions: int = 1
    frame: int | None = None
    black: bool = True
    reversed_channels: bool = False
    standardised: bool = False


@dataclass(frozen=True)
class Setup:
    """Somebody's transfer learning: data, a pretrained network, how it is run, and what else its author kept.

    Attributes:
        data: the images.
        backbone: the network without a classifier, as its author has it.
        published: the state that its file has, for the cure of what happened to it.
        norm: the normalization that it was trained with, of pixels 0..1.
        pixels: how images become its input.
        style: one of `STYLES`.
        training, batch: whether it is run in training mode, and how many images at a time.
        ending: `features`, `head` (a linear layer kept apart) or `whole` (the classifier is the model's last layer).
        head: how the head came about: `fitted`, `one-step`, or `through-softmax`, whose model ends in a Softmax.
        permuted: what got into another order: nothing (`nowhere`), the class names of the `head` or of the `predictions`, or the
            `images` that the predictions are of.
        predictions: whether the author kept per-image predictions of the test part.
        serving: how the deployed service makes its input: `none` shown, the `same` way, with `another-resize` or
            `another-range`.
        augmentation: `none` shown, `fresh` or `cached`.
        optimizer: `none` shown, `complete`, or `early`: made while the backbone was frozen.
        history: `none` kept, `calm`, `jump`, `gap`, or `calm` with the `test` part's scores for those of val.
        keep_duplicates: whether equal images may stand on both sides of the split.
        preprocess: in place of all of `pixels` that is not a layer of the model; from a PIL image.
        tuned: whether the author trains the whole network on these images, `no`, `gently` or `roughly`; `own_head` is the head that
            comes of it.
        detached: whether the backbone is asked without gradients in the model's forward, as it was written while it was frozen.
        weights: folder of the backbone's file, where the author made it; `None` where it is a public one.
        scratch: the network from scratch that the transfer met in a run of headstart's: `none`, one `made-for-small-images`, or one
            `made-for-large-images`.
    """

    data: ImageSet
    backbone: nn.Module
    published: Mapping[str, torch.Tensor]
    norm: Normalization
    pixels: Pixels
    style: str
    training: bool = False
    batch: int = 64
    ending: str = "features"
    head: str = "fitted"
    permuted: str = "nowhere"
    predictions: bool = False
    serving: str = "none"
    augmentation: str = "none"
    optimizer: str = "none"
    history: str = "none"
    keep_duplicates: bool = False
    preprocess: Callable[[Any], Any] | None = None
    tuned: str = "no"
    own_head: nn.Linear | None = None
    detached: bool = False
    weights: Path | None = None
    scratch: str = "none"


@dataclass(frozen=True)
class Script:
    """The author's script: `body` stops at features, `model` is what is handed over, the rest are diagnose's arguments."""

    body: nn.Module
    model: nn.Module
    preprocess: Callable[[Any], Any]
    prepare: Callable[[npt.NDArray[np.uint8]], torch.Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)


class Normalize(nn.Module):
    """A normalization inside a model, as many people write it."""

    def __init__(self, mean: Triple, std: Triple) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = (inputs - self.mean) / self.std  # type: ignore[operator]
        return result


class Enlarger(nn.Module):
    """An author's own network: enlarges what it is given, then extracts features."""

    def __init__(self, network: nn.Module, size: int, mode: str) -> None:
        super().__init__()
        self.network, self.size, self.mode = network, size, mode

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.network(interpolated(inputs, self.size, self.mode))
        return result


class Detached(nn.Module):
    """An author's feature extractor, written when nothing of it was to be trained."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @torch.no_grad()
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.network(inputs)
        return result


def written_out(setup: Setup, head: nn.Linear | None = None) -> Script:
    """Write a setup out as its author's script.

    Args:
        setup: what the author does.
        head: the trained classifier, where the setup ends in one.
    """
    inside = setup.style == "wrapper" and setup.pixels.frame is None
    preprocess = setup.preprocess or preprocessing_of(setup.pixels, setup.style, resized=not inside)
    layers: list[nn.Module] = [Normalize(*normalization) for normalization in setup.pixels.inner]
    network = nn.Sequential(*setup.backbone.children()) if setup.style == "children" else setup.backbone
    if inside and setup.pixels.size is not None:
        network = Enlarger(network, setup.pixels.size, setup.pixels.interpolation)
    body = nn.Sequential(*layers, network) if layers else network
    if setup.detached:
        body = Detached(body)
    model, arguments = body, dict[str, Any]()
    if setup.ending == "whole" and head is not None:
        model = nn.Sequential(body, head, *([nn.Softmax(1)] if setup.head == "through-softmax" else []))
    if setup.ending == "head" and head is not None:
        arguments["head"] = head
    if setup.ending != "features" and head is not None:
        arguments["loss"] = nn.CrossEntropyLoss()
    model.train(setup.training)
    if setup.optimizer != "none" and (head is not None or setup.ending == "features"):
        arguments["optimizer"] = _optimizer(setup, model, head if setup.ending == "head" else None)
    if setup.serving != "none":
        arguments["serve"] = preprocessing_of(_served(setup), setup.style, resized=not inside)
    if setup.augmentation != "none":
        arguments["augment"] = augmentation_of(preprocess, setup.style, cached=setup.augmentation == "cached")
    prepare = _prepare(preprocess, setup.style)
    return Script(body, model, preprocess, prepare, {"batch": setup.batch, "preprocess": preprocess, **arguments})


def preprocessing_of(pixels: Pixels, style: str, *, resized: bool = True) -> Callable[[Any], Any]:
    """The preprocessing in an author's style.

    Args:
        pixels: what is done.
        style: one of `STYLES`.
        resized: whether the resize happens here, and not in the model.
    """
    size = pixels.size if resized else None
    if style == "numpy":
        return _numpy_style(pixels, size)
    return _batch_style(pixels, size) if style == "batch" else _torchvision_style(pixels, size)


def _torchvision_style(pixels: Pixels, size: int | None) -> Callable[[Any], Any]:
    steps: list[Any] = [v2.ToImage()]
    if size is not None:
        steps.append(v2.Resize((size, size), interpolation=_TORCHVISION[pixels.interpolation], antialias=True))
    if pixels.frame is not None and pixels.black:
        steps.append(v2.CenterCrop(pixels.frame))  # it pads what is smaller
    if pixels.reversed_channels:
        steps.append(v2.Lambda(lambda image: image.flip(0)))
    steps.append(v2.ToDtype(torch.float32, scale=pixels.divisions > 0))
    steps += [v2.Lambda(lambda image: image / 255)] * (pixels.divisions - 1)
    if pixels.standardised:
        steps.append(v2.Lambda(lambda image: (image - image.mean()) / image.std()))
    steps += [v2.Normalize(list(mean), list(std)) for mean, std in pixels.outer]
    if pixels.frame is not None and not pixels.black:
        steps.append(v2.CenterCrop(pixels.frame))
    composed: Callable[[Any], Any] = v2.Compose(steps)
    return composed


def _numpy_style(pixels: Pixels, size: int | None) -> Callable[[Any], Any]:
    def framed(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        assert pixels.frame is not None
        before = (pixels.frame - picture.shape[0]) // 2
        after = pixels.frame - picture.shape[0] - before
        return np.pad(picture, ((before, after), (before, after), (0, 0)))

    def preprocess(picture: npt.NDArray[np.uint8]) -> Floats:
        if pixels.reversed_channels:
            picture = picture[..., ::-1]
        if size is not None:
            image = Image.fromarray(np.ascontiguousarray(picture))
            picture = np.asarray(image.resize((size, size), _PILLOW[pixels.interpolation]))
        if pixels.frame is not None and pixels.black:
            picture = framed(picture)
        values: npt.NDArray[Any] = picture.astype(np.float32)
        for _ in range(pixels.divisions):
            values = values / 255
        if pixels.standardised:
            values = (values - values.mean()) / values.std()
        for mean, std in pixels.outer:
            values = (values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
        if pixels.frame is not None and not pixels.black:
            values = framed(values)
        channels_first: Floats = values.transpose(2, 0, 1)
        return channels_first

    return preprocess


def _batch_style(pixels: Pixels, size: int | None) -> Callable[[Any], Any]:
    def framed(values: torch.Tensor) -> torch.Tensor:
        assert pixels.frame is not None
        missing = pixels.frame - values.shape[-1]
        return nn.functional.pad(values, (missing // 2, missing - missing // 2) * 2)

    def preprocess(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
        values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        if pixels.reversed_channels:
            values = values[:, [2, 1, 0]]
        if size is not None:
            values = interpolated(values, size, pixels.interpolation)
        if pixels.frame is not None and pixels.black:
            values = framed(values)
        for _ in range(pixels.divisions):
            values = values / 255
        if pixels.standardised:
            values = (values - values.mean((1, 2, 3), keepdim=True)) / values.std((1, 2, 3), keepdim=True)
        for mean, std in pixels.outer:
            values = (values - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        return framed(values) if pixels.frame is not None and not pixels.black else values

    return preprocess


def interpolated(values: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Resize a batch the way that torch does it on floats."""
    if mode == "nearest":
        return nn.functional.interpolate(values, (size, size), mode=mode)
    return nn.functional.interpolate(values, (size, size), mode=mode, align_corners=False, antialias=True)


def augmentation_of(preprocess: Callable[[Any], Any], style: str, *, cached: bool) -> Callable[[Any], Any]:
    """The training path: mirrored and shifted at random, or, `cached`, as it was drawn the first time."""
    rng = np.random.default_rng(0)
    kept: dict[bytes, Any] = {}

    def moved(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        most = max(pictures.shape[-2] // 8, 1)
        shifted = np.roll(pictures, rng.integers(-most, most + 1, 2), axis=(-3, -2))
        return np.ascontiguousarray(shifted[..., ::-1, :] if rng.random() < 0.5 else shifted)

    def augment(given: Any) -> Any:
        if style in ("numpy", "batch"):
            pictures = given
            made = preprocess(moved(pictures)) if not cached else None
        else:
            pictures = np.asarray(given)
            made = preprocess(Image.fromarray(moved(pictures))) if not cached else None
        if made is not None:
            return made
        key = pictures.tobytes()
        if key not in kept:
            once = moved(pictures)
            kept[key] = preprocess(once if style in ("numpy", "batch") else Image.fromarray(once))
        return kept[key]

    return augment


def _prepare(preprocess: Callable[[Any], Any], style: str) -> Callable[[npt.NDArray[np.uint8]], torch.Tensor]:
    """The preprocessing over a batch, as the author's data loader would call it."""

    def prepare(images: npt.NDArray[np.uint8]) -> torch.Tensor:
        if style == "batch":
            whole: torch.Tensor = preprocess(np.ascontiguousarray(images))
            return whole
        if style == "numpy":
            return torch.from_numpy(np.stack([preprocess(image) for image in images]))
        return torch.stack([torch.as_tensor(preprocess(Image.fromarray(image))) for image in images])

    return prepare


def _served(setup: Setup) -> Pixels:
    if setup.serving == "another-resize":
        return replace(setup.pixels, interpolation="nearest")
    return replace(setup.pixels, divisions=0) if setup.serving == "another-range" else setup.pixels


def _optimizer(setup: Setup, model: nn.Module, head: nn.Module | None) -> torch.optim.Optimizer:
    """All parameters; or, early, those that were left when the backbone was frozen, which is thawed afterwards."""
    early = setup.optimizer == "early"
    setup.backbone.requires_grad_(not early)
    parameters = [*model.parameters(), *(head.parameters() if head is not None else ())]
    optimizer = torch.optim.AdamW([parameter for parameter in parameters if parameter.requires_grad], lr=1e-4)
    setup.backbone.requires_grad_(True)
    return optimizer


def own_copy(network: nn.Module) -> nn.Module:
    """A network to do something to, without touching anybody else's."""
    return copy.deepcopy(network)
