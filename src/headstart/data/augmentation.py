"""Random shifts, crops, colours and mirror images, drawn anew for every image, computed for a whole batch at once.

What is drawn is small and always drawn on the CPU; the pixels are moved where they are.
"""

import math
from collections.abc import Iterable
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from headstart.data.transfer import to_device
from headstart.records import USUAL_SHIFT, Augmentation, Booleans, Images

_SMALLEST_AREA = 0.6
"""Share of the image that a crop keeps at least; an ImageNet crop's 0.08 loses the object of a small image. Measured with the
jitter below, pretraining small32_m for four epochs, probe with 5,000 CIFAR-10 labels: 76.7%; with 0.35 and 0.3, 74.6%."""

_ASPECT = 4 / 3  # Szegedy et al. 2015, "Going deeper with convolutions", section 6
_JITTER = 0.1  # measured (see above): brightness, contrast and saturation change by at most this share
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def augment(
    images: torch.Tensor,
    kind: Augmentation,
    rng: np.random.Generator,
    mirrored: Booleans | None = None,
    max_shift: float = USUAL_SHIFT,
) -> torch.Tensor:
    """Augment a batch.

    Args:
        images: `(B, C, H, W)`, any type of number, on any device. It is not changed.
        kind: `none` returns the batch itself; `shift` moves each image by up to `max_shift` (at least one pixel),
            filling by reflection; `shift-flip` also mirrors each image left to right with probability one half,
            `shift-alternate` those that `mirrored` names.
        rng: the only source of randomness. It stays on the CPU, so that every device sees the same draws.
        mirrored: `(B,) bool`, for `shift-alternate` (Jordan 2024, "94% on CIFAR-10 ...", section 3.6: an image seen once in
            each direction teaches more than one seen twice in the same).
        max_shift: share of the side.

    Returns:
        `(B, C, H, W)` of the same type, channels last in memory.
    """
    if kind == "none":
        return images
    count, channels, height, width = images.shape
    shifts = _shifts(height, max_shift, count, rng), _shifts(width, max_shift, count, rng)
    if kind == "shift-flip":
        mirrored = rng.random(count) < 0.5
    elif mirrored is None:
        mirrored = np.zeros(count, bool)
    if images.device.type != "cpu":
        return _moved_there(images, *to_device(np.stack([*shifts, mirrored]), images.device))
    rows, columns = (_reflected(length, shift) for length, shift in zip((height, width), shifts, strict=True))
    columns = np.where(mirrored[:, None], columns[:, ::-1], columns)
    # One index per number, not per pixel: index_select on a vector is plain copying in one thread (0.3 ms for 128
    # images of 32 x 32); on rows of three it wakes a second thread and waits for it (up to 8 ms on 2 busy cores).
    row_starts = (np.arange(count)[:, None] * height + rows) * (width * channels)
    within_row = (columns[:, :, None] * channels + np.arange(channels)).reshape(count, 1, width * channels)
    positions = torch.from_numpy(row_starts[:, :, None] + within_row)
    numbers = images.permute(0, 2, 3, 1).reshape(-1)
    moved = numbers.index_select(0, positions.reshape(-1))
    return moved.view(count, height, width, channels).permute(0, 3, 1, 2)


def _moved_there(images: torch.Tensor, down: torch.Tensor, right: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """The same on a GPU, in few calls: each costs it more than the pixels do."""
    rows, columns = _reflected(images.shape[2], down), _reflected(images.shape[3], right)
    columns = _where(mirrored[:, None] > 0, _backwards(columns), columns)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


@overload
def random_crops(images: Images, side: int, rng: np.random.Generator, *, mirror: bool) -> Images: ...


@overload
def random_crops(images: torch.Tensor, side: int, rng: np.random.Generator, *, mirror: bool) -> torch.Tensor: ...


def random_crops(
    images: Images | torch.Tensor, side: int, rng: np.random.Generator, *, mirror: bool
) -> Images | torch.Tensor:
    """Cut a random part out of each image, bring it to one size, and change its colours a little.

    The part has 60% to 100% of the area and an aspect ratio of 3:4 to 4:3; brightness, contrast and saturation are each
    multiplied by 0.9 to 1.1.

    Args:
        images: `(B, H, W, 3) uint8`, an array, or a tensor on any device. It is not changed. The same draws give the same crop
            on both, but for colours that lie halfway between two values and may be rounded either way.
        side: of the result, in pixels. Each of its pixels averages a grid of samples of the part, 2 x 2 or as many as
            the original has.
        rng: the only source of randomness. It stays on the CPU.
        mirror: whether to mirror each image left to right with probability one half.

    Returns:
        `(B, side, side, 3) uint8`, of the images' kind and on their device.
    """
    count, height, width, channels = images.shape
    samples = max(2, round(max(height, width) / side))
    area = rng.uniform(_SMALLEST_AREA, 1, count)
    aspect = np.exp(rng.uniform(-math.log(_ASPECT), math.log(_ASPECT), count))
    down = _stretch(height, np.minimum(np.sqrt(area / aspect), 1), rng)
    right = _stretch(width, np.minimum(np.sqrt(area * aspect), 1), rng)
    mirrored = rng.random(size=(count,)) < 0.5 if mirror else np.zeros(count, bool)
    factors, matrices = _colour_maps(count, rng)
    # From here on everything is written as NumPy and torch both understand it.
    drawn: Any = np.stack([*down, *right, mirrored, factors, *matrices.reshape(count, -1).T])
    # Only a GPU that computes with float64 finds the same positions; for others they are found here.
    if isinstance(images, torch.Tensor) and images.device.type == "cuda":
        drawn = to_device(drawn, images.device)
    rows = _sampled(height, drawn[0], drawn[1], side * samples)
    within_row = _sampled(width, drawn[2], drawn[3], side * samples)
    within_row = _where(drawn[4][:, None] > 0, _backwards(within_row), within_row)
    starts = (_arange(count, drawn)[:, None] * height + rows) * width
    contrast, mixing = _single(drawn[5]), _single(drawn[6:]).T.reshape(count, channels, channels)
    if isinstance(images, torch.Tensor) and isinstance(drawn, np.ndarray):
        starts, within_row, contrast, mixing = (
            to_device(array, images.device) for array in (starts, within_row, contrast, mixing)
        )
    places = (
        starts[:, row::samples, None] + within_row[:, None, column::samples]
        for row, column in np.ndindex(samples, samples)
    )
    # One matrix and one offset per image: saturation mixes the channels, contrast and brightness scale and move them.
    recoloured = _summed(images.reshape(-1, channels), places).reshape(count, -1, channels) / samples**2
    centre = recoloured.mean(axis=(1, 2), keepdims=True)
    recoloured = ((recoloured @ mixing - centre) * contrast[:, None, None] + centre).clip(0, 255).round()
    recoloured = recoloured.reshape(count, side, side, channels)
    result: Images | torch.Tensor
    result = recoloured.astype(np.uint8) if isinstance(images, np.ndarray) else recoloured.to(torch.uint8)
    return result


def _summed(pixels: Images | torch.Tensor, places: Iterable[Any]) -> Any:
    """`(B, side, side, 3) float32`: the sum over several index arrays of the pixels `(M, 3) uint8` that each names. It is exact."""
    if isinstance(pixels, torch.Tensor):
        return sum(pixels[index].float() for index in places)
    taken = (pixels.take(index, axis=0) for index in places)
    sums = next(taken).astype(np.uint32)  # a large image may have more samples in a pixel than 16 bits can sum
    for more in taken:
        sums += more
    return sums.astype(np.float32)


def _stretch(
    length: int, share: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where a stretch of `share` of the length begins, drawn at random, and how long it is: `(count,)` each."""
    stretch = share * length
    return rng.random(len(share)) * (length - stretch), stretch


def _sampled(length: int, first: Any, stretch: Any, samples: int) -> Any:
    """`(count, samples) int64`: evenly spaced source positions over each stretch, as an array or a tensor."""
    middles = (np.arange(samples) + 0.5) / samples
    if isinstance(first, np.ndarray):
        return np.minimum((first[:, None] + stretch[:, None] * middles).astype(np.int64), length - 1)
    return (first[:, None] + stretch[:, None] * to_device(middles, first.device)).long().clamp_(max=length - 1)


def _arange(count: int, like: Any) -> Any:
    return np.arange(count) if isinstance(like, np.ndarray) else torch.arange(count, device=like.device)


def _where(condition: Any, first: Any, second: Any) -> Any:
    return (np if isinstance(condition, np.ndarray) else torch).where(condition, first, second)


def _backwards(rows: Any) -> Any:
    return rows[:, ::-1] if isinstance(rows, np.ndarray) else rows.flip(1)


def _single(values: Any) -> Any:
    return values.astype(np.float32) if isinstance(values, np.ndarray) else values.float()


def _colour_maps(count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Contrast factors `(count,)`, and matrices `(count, 3, 3)` of saturation times brightness for row vectors."""
    brightness, contrast, saturation = rng.uniform(1 - _JITTER, 1 + _JITTER, (3, count)).astype(np.float32)
    gray = np.repeat(np.array(_LUMA, np.float32)[:, None], 3, axis=1)
    mixing = saturation[:, None, None] * np.eye(3, dtype=np.float32) + (1 - saturation)[:, None, None] * gray
    return contrast, mixing * brightness[:, None, None]


def _shifts(length: int, share: float, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`(count,) int64`: by how many pixels each image moves."""
    most = min(max(1, int(length * share + 1e-9)), length - 1)
    return rng.integers(-most, most + 1, size=count)


def _reflected(length: int, shifts: Any) -> Any:
    """`(count, length) int64`: which source position each target position takes; beyond the edge it goes back inside."""
    positions = _arange(length, shifts)[None, :] + shifts[:, None]
    last = length - 1
    return last - abs(last - abs(positions))
