"""What really arrives at a network's first layer, told as a picture of the pixels: size, borders, range, channel order.

The tensor at the first convolution is compared with the images that went in: for each way of bringing an image to that size
(resized by this or that interpolation, cropped, framed) the best affine map from its pixels is fitted by least squares; the way
that explains the tensor best is taken. So nobody needs to say what their preprocessing does.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from headstart.diagnosis.modules import convolutions, copied, fed_at_first_convolution
from headstart.diagnosis.subject import Subject
from headstart.errors import UsageError
from headstart.randomness import generator
from headstart.records import Images, Preprocessing

Floats = npt.NDArray[np.float64]

Standardised = Literal["none", "image", "channel"]

UNDERSTOOD = 0.9
"""Chosen: share of the tensor's variance that an affine picture of the pixels must explain."""

LARGE, LEAST_STRIDE = 128, 16
"""Pixels at which a network's stride can be read off its last map, and the stride from which it is not made for small images."""

_COLOURED = 16  # synthetic images of coloured patches: gray data would not show the order of its channels
_PATCHES = 4
_SAMPLED_PIXELS = 40_000
_CROPS = (1.0, 0.875)  # the whole image; the centre of it, as ImageNet's evaluation cuts it (256 to 224)
_STILL = 1e-6
_ASKED_TWICE = 16  # chosen: images of which a random mirroring leaves all as they are in one case of 65,536
_FIELD_IMAGES = 4  # the field is a property of the network; chosen: enough that no closed ReLU hides a part of it
_FIELD_EDGE = 0.0455  # Luo et al. 2016: what lies outside two deviations of a normal curve
_EXPLAINED = 0.995  # chosen: a picture of the pixels that explains so much needs no other explanation
_MODES = {
    "bilinear": (InterpolationMode.BILINEAR, True),
    "bicubic": (InterpolationMode.BICUBIC, True),
    "nearest": (InterpolationMode.NEAREST_EXACT, False),
    "bilinear-aliased": (InterpolationMode.BILINEAR, False),
}


@dataclass(frozen=True)
class Arrival:
    """The tensor at the first convolution.

    Attributes:
        size: its height and width (the smaller), in pixels.
        content: side of the part that depends on the image; smaller than `size` where a frame was put around it.
        interpolation: `bilinear`, `bicubic`, `nearest` or `bilinear-aliased`; `none` where sizes are equal.
        crop: share of the image's side that is seen.
        order: which pixel channel each input channel shows, such as `RGB` or `BGR`; `gray` if each shows all.
        mean, std: `(pixel / 255 - mean) / std` is what arrives; per input channel.
        border: value of the frame.
        fit: share of variance explained, 0..1.
        map_side: side of the last convolution's output, in positions.
        field: side of what the middle position of it sees, in pixels of the input (`effective_receptive_field`).
        repeats: whether the same images arrive equal twice.
        standardised: whether each image is standardised by its own mean and deviation, over all channels (`image`) or in each
            (`channel`); `mean` and `std` then come after that.
        channels: of the input, 1 or 3.
        oblong: whether height and width differ; `fit` is then 0, since pipelines are made again with squares alone.
    """

    size: int
    content: int
    interpolation: str
    crop: float
    order: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    border: float
    fit: float
    map_side: int
    field: int
    repeats: bool
    standardised: Standardised = "none"
    channels: int = 3
    oblong: bool = False

    @property
    def is_understood(self) -> bool:
        """Whether it is a picture of the pixels that can be made again."""
        return self.fit >= UNDERSTOOD

    @property
    def shuffled(self) -> list[int] | None:
        """Which pixel channel each input channel shows where that is neither RGB nor BGR, such as three times the red one."""
        return None if self.order in ("RGB", "BGR", "gray") else ["RGB".index(colour) for colour in self.order]

    @property
    def low(self) -> float:
        """What a black pixel becomes, mean over channels."""
        return float(np.mean([-mean / std for mean, std in zip(self.mean, self.std, strict=True)]))

    @property
    def high(self) -> float:
        """What a white pixel becomes, mean over channels."""
        return float(np.mean([(1 - mean) / std for mean, std in zip(self.mean, self.std, strict=True)]))

    def preprocessing(self) -> Preprocessing:
        """The same as one of our contracts (without frame and crop); for other orders than these two see `shuffled`."""
        order = "BGR" if self.order == "BGR" else "RGB"
        interpolation = {"nearest": "nearest", "bicubic": "bicubic"}.get(self.interpolation, "bilinear")
        # A contract lists mean and std in the order that the network sees.
        return Preprocessing(self.content, interpolation, self.mean, self.std, order)  # type: ignore[arg-type]


def not_understood(arrival: Arrival) -> tuple[str, dict[str, float]]:
    """The code and values that say why what arrives could not be judged by its pixels: no square, drawn at random, or no picture of
    them."""
    if arrival.oblong:
        return "input-not-square", {}
    code = "input-not-understood" if arrival.repeats else "input-is-random"
    return code, {"fit": round(arrival.fit, 3)}


def sample_images(images: Images, count: int = 48) -> Images:
    """Images spread over a set, and synthetic ones of coloured patches behind them: `(count + 16, S, S, 3) uint8`."""
    chosen = images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]
    side = images.shape[1]
    patches = generator(0, "coloured patches").integers(0, 256, (_COLOURED, _PATCHES, _PATCHES, 3), dtype=np.uint8)
    coloured = functional.resize(
        torch.from_numpy(patches).permute(0, 3, 1, 2), [side, side], interpolation=InterpolationMode.BILINEAR
    )
    result: Images = np.concatenate([chosen, coloured.permute(0, 2, 3, 1).numpy()])
    return result


def measure_arrival(subject: Subject, images: Images) -> Arrival:
    """Send images through a subject and describe what arrives at its first convolution.

    Args:
        subject: as it is run.
        images: `(n, S, S, 3) uint8`, from `sample_images`.

    Raises:
        UsageError: the network fails on its own preprocessing's output; the message has what it said.
    """
    inputs = subject.prepare(images)
    if not bool(inputs.isfinite().all()):
        raise UsageError(
            "`preprocess` returned values that are no numbers (NaN or infinite). A division by a deviation of zero is the usual "
            "reason; look at what it makes of one image."
        )
    seen, map_side = _at_first_convolution(subject.module, inputs)
    once, again = (subject.prepare(images[:_ASKED_TWICE]) for _ in range(2))
    repeats = bool(torch.equal(once, again))
    tensor = seen.double().numpy()
    if tensor.shape[1] == 1:
        tensor = np.repeat(tensor, 3, axis=1)
    top, left, height, width = _moving_box(tensor)
    inside = tensor[:, :, top : top + height, left : left + width]
    frame = float(tensor[0, :, 0, 0].mean()) if (height, width) != tensor.shape[2:] else 0.0
    best: tuple[float, Floats, Floats, str, float, Standardised] | None = None
    kinds: tuple[Standardised, ...] = ("none", "image", "channel")
    for kind in kinds:
        if best is not None and best[0] > _EXPLAINED:
            break
        for crop in _CROPS:
            for mode in _MODES:
                picture = standardise(reference(images, height, width, mode, crop), kind)
                matrix, offset, fit = _affine(picture, inside)
                # Ties go to the first, the plainest way: only a clearly better fit speaks for another one.
                if best is None or fit > best[0] + 1e-3:
                    best = (fit, matrix, offset, mode, crop, kind)
    assert best is not None
    fit, matrix, offset, name, crop, standardised = best
    if (height, width) == (images.shape[1], images.shape[2]) and crop == 1.0:
        name = "none"
    oblong = tensor.shape[2] != tensor.shape[3]
    scale = matrix.sum(axis=1)
    safe = np.where(np.abs(scale) < _STILL, _STILL, scale)
    return Arrival(
        size=min(tensor.shape[2:]),
        content=min(height, width),
        interpolation=name,
        crop=crop,
        order=_order(matrix),
        mean=_three(-offset / safe),
        std=_three(1 / safe),
        border=frame,
        fit=0.0 if oblong else fit,
        map_side=map_side,
        field=effective_receptive_field(subject.module, seen[:_FIELD_IMAGES]),
        repeats=repeats,
        standardised=standardised,
        channels=seen.shape[1],
        oblong=oblong,
    )


def standardise(pictures: Floats, kind: Standardised) -> Floats:
    """Each picture `(n, 3, H, W)` less its own mean, over its own deviation, over all channels or in each."""
    if kind == "none":
        return pictures
    axes = (1, 2, 3) if kind == "image" else (2, 3)
    least = 1 / math.sqrt(math.prod(pictures.shape[1:]))  # as TensorFlow's per_image_standardization has it
    deviation = np.maximum(pictures.std(axis=axes, keepdims=True), least)
    result: Floats = (pictures - pictures.mean(axis=axes, keepdims=True)) / deviation
    return result


def reference(images: Images, height: int, width: int, mode: str, crop: float) -> Floats:
    """Pixels 0..1 of images brought to a size in one of the usual ways: `(n, 3, height, width)`."""
    interpolation, antialias = _MODES[mode]
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    larger = [round(height / crop), round(width / crop)]
    if tuple(pixels.shape[2:]) != tuple(larger):
        pixels = functional.resize(pixels, larger, interpolation=interpolation, antialias=antialias)
    if crop != 1.0:
        pixels = functional.center_crop(pixels, [height, width])
    result: Floats = pixels.double().numpy() / 255
    return result


def watch_maps(module: nn.Module) -> tuple[list[int], list[RemovableHandle]]:
    """Have a network's next pass note the sides of its maps, in order; the last one is what its features are pooled from.

    A convolution after the pooling, or inside a squeeze-and-excitation, sees a single position and says nothing of the map.

    Returns:
        The list that is filled, and the hooks to remove.
    """
    sides: list[int] = []

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        if not sides or min(given[0].shape[2:]) > 1:
            sides.append(min(out.shape[2:]))

    return sides, [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def last_map(module: nn.Module, side: int) -> int | None:
    """Side in positions of a network's last map on inputs of this side; `None` where it takes no such input.

    One that flattens its map, or has fixed positions, takes one size.
    """
    still = copied(module).eval()
    sides, _ = watch_maps(still)
    try:
        with torch.inference_mode(), fed_at_first_convolution(still) as run:
            run(torch.zeros(2, 3, side, side))
    except Exception:  # noqa: BLE001 - somebody else's network says in its own way that it takes no such input
        return None
    return sides[-1]


def stride_of(module: nn.Module, size: int, map_side: int) -> float:
    """Pixels of the input's side for each position of the last map: read at a large input where the network takes one, since a map of
    a position or two hides it.

    Args:
        module: a copy of it is run.
        size, map_side: of an input that it takes, and of the last map then.
    """
    large = last_map(module, LARGE)
    return size / max(map_side, 1) if large is None else LARGE / large


def effective_receptive_field(module: nn.Module, inputs: torch.Tensor) -> int:
    """Side in pixels of the square that a position in the middle of the last map sees (Luo et al. 2016).

    Pixels count where the gradient of that position's sum over channels is at least 4.55% of the largest one, magnitudes averaged
    over images and channels; the square has as many pixels.

    Args:
        module: a copy of it is run, in evaluation mode.
        inputs: `(n, C, H, W) float32`, as the first convolution sees them.

    Returns:
        At most the side of the inputs; 0 where the map does not depend on them by a gradient.
    """
    still = copied(module).eval()
    maps: list[torch.Tensor] = []

    def keep(layer: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        if not maps or min(given[0].shape[2:]) > 1:  # as `watch_maps` has it
            maps[:] = [out]

    for layer in still.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(keep)
    watched = inputs.clone().requires_grad_(True)
    with torch.enable_grad(), fed_at_first_convolution(still) as run:
        run(watched)
        rows, columns = maps[0].shape[2:]
        middle = maps[0][:, :, rows // 2, columns // 2].sum()
        if not middle.requires_grad:
            return 0
        (gradient,) = torch.autograd.grad(middle, watched, materialize_grads=True)
    size = gradient.abs().mean((0, 1))
    seen = int((size >= _FIELD_EDGE * size.max()).sum()) if float(size.max()) > 0 else 0
    return round(math.sqrt(seen))


def _at_first_convolution(module: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
    """What the first convolution sees, and the side of the last convolution's output."""
    seen: list[torch.Tensor] = []

    def keep(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if not seen:
            seen.append(given[0].detach().clone())

    layers = convolutions(module)
    sides, handles = watch_maps(module)
    handles += [layer.register_forward_pre_hook(keep) for layer in layers]
    modes = {layer: layer.training for layer in module.modules()}
    try:
        with torch.inference_mode():
            module.eval()(inputs)
    except Exception as error:  # somebody else's network fails in its own ways
        raise UsageError(
            f"The network failed on what `preprocess` returned, shape {tuple(inputs.shape)}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for layer, training in modes.items():
            layer.training = training
    if not seen:
        raise UsageError("None of the network's convolutions runs; headstart diagnoses convolutional backbones.")
    channels = seen[0].shape[1]
    if channels not in (1, 3):
        raise UsageError(
            f"The network's first convolution sees {channels} channels. headstart can look only into networks whose first "
            "convolution sees the image itself, in 1 or 3 channels: not its pixels moved into channels (space-to-depth), nor "
            "coordinates beside them."
        )
    return seen[0].cpu(), sides[-1]


def _moving_box(tensor: Floats) -> tuple[int, int, int, int]:
    """Top, left, height, width of the part that differs between images."""
    moving = tensor.std(axis=0).max(axis=0) > _STILL
    rows, columns = np.flatnonzero(moving.any(axis=1)), np.flatnonzero(moving.any(axis=0))
    if not len(rows):
        return 0, 0, tensor.shape[2], tensor.shape[3]
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def _affine(picture: Floats, seen: Floats) -> tuple[Floats, Floats, float]:
    """Least squares `seen = matrix @ picture + offset` over pixels: `(3, 3)`, `(3,)`, share of variance explained."""
    xs = picture.transpose(0, 2, 3, 1).reshape(-1, 3)
    ys = seen.transpose(0, 2, 3, 1).reshape(-1, seen.shape[1])
    if len(xs) > _SAMPLED_PIXELS:
        chosen = generator(0, "pixels").integers(0, len(xs), _SAMPLED_PIXELS)
        xs, ys = xs[chosen], ys[chosen]
    design = np.column_stack([xs, np.ones(len(xs))])
    solution, *_ = np.linalg.lstsq(design, ys, rcond=None)
    rest = float(np.square(ys - design @ solution).sum())
    total = float(np.square(ys - ys.mean(axis=0)).sum())
    fit = 1 - rest / total if total > _STILL**2 * len(ys) else 0.0
    return np.asarray(solution[:3].T, np.float64), np.asarray(solution[3], np.float64), fit


def _order(matrix: Floats) -> str:
    """Which colour each input channel shows most of; `gray` where none dominates."""
    size = np.abs(matrix)
    share = size.max(axis=1) / np.maximum(size.sum(axis=1), _STILL)
    if share.min() < 0.6:  # a channel that shows two colours about equally shows no single one
        return "gray"
    return "".join("RGB"[channel] for channel in size.argmax(axis=1))


def _three(values: Floats) -> tuple[float, float, float]:
    """Three numbers to six digits, since least squares in float32 knows no more; what is nearly zero is zero."""
    first, second, third = (0.0 if abs(value) < _STILL else float(f"{value:.6g}") for value in values)
    return first, second, third
