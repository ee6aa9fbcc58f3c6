"""What a path from images to the network makes of images of one colour: its range and its channel order, whatever it draws at random.

A crop, a mirroring or a resizing leaves an image of one colour as it is, and what brightness, hue or erasing do at random does not change
how far most draws lie from black. So two paths can be compared of which one augments.
"""

from dataclasses import dataclass

import numpy as np
import torch

from headstart.diagnosis.subject import Prepare
from headstart.models.backbones import seeded_torch

_COLOURS = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255))
_DRAWS = 16  # chosen: of each colour
_MIDDLE = 3 / 8  # of the side lies before the part that is looked at: a frame or a shifted crop leaves its edges there
_REACHED = 0.8  # chosen: share of the draws of white that may be darkened, erased or solarized
_CLEARLY = (
    1.5  # chosen: times as much of one colour as of the next; random hue by a tenth leaves 1.8, any hue mixes all three
)
_APART = 0.35
"""Chosen: of the smaller range, half the distance between the two nearest of the usual ones; torchvision's augmentations stay below a
tenth (tests/diagnosis/test_flat_colours.py)."""
_STILL = 1e-6


@dataclass(frozen=True)
class FlatColours:
    """What black and white become, mean over channels, and which pixel channel each input channel shows; `None` if that is not clear."""

    low: float
    high: float
    order: str | None

    def same_range(self, other: "FlatColours") -> bool:
        """Whether two paths scale pixels alike, but for what random augmentation explains."""
        moved = max(abs(self.low - other.low), abs(self.high - other.high))
        return moved <= _APART * min(abs(self.high - self.low), abs(other.high - other.low))

    def same_order(self, other: "FlatColours") -> bool:
        """Whether two paths have their channels in the same order, as far as that is clear of both."""
        return None in (self.order, other.order) or self.order == other.order


def measure_flat_colours(prepare: Prepare, side: int) -> FlatColours | None:
    """Send images of one colour along a path.

    Args:
        prepare: the path.
        side: of the images, in pixels.

    Returns:
        What they become; `None` where that says nothing, as of a path that fails on them or standardises each image by itself.
    """
    images = np.empty((len(_COLOURS), _DRAWS, side, side, 3), np.uint8)
    images[:] = np.array(_COLOURS, np.uint8)[:, None, None, None]
    try:
        with np.errstate(all="ignore"), seeded_torch(0):
            inputs = prepare(images.reshape(-1, side, side, 3)).double()
    except Exception:  # noqa: BLE001 - somebody else's path may not be made for such images; it has shown that it takes others
        return None
    channels, height, width = inputs.shape[1:]
    top, left = int(height * _MIDDLE), int(width * _MIDDLE)
    middle = inputs[:, :, top : max(height - top, top + 1), left : max(width - left, left + 1)]
    draws = middle.reshape(len(_COLOURS), _DRAWS, channels, -1).median(3).values  # (colours, draws, channels)
    black = draws[0].median(0).values
    away = draws - black
    white = away[1][away[1].abs().sum(1).argsort()[int(_REACHED * (_DRAWS - 1))]]
    low, high = float(black.mean()), float((black + white).mean())
    if not bool(draws.isfinite().all()) or abs(high - low) < _STILL:
        return None
    return FlatColours(low, high, _order(away[2:].abs().mean(1) / white.abs().clamp(min=_STILL)))


def _order(shown: torch.Tensor) -> str | None:
    """The order of three channels, by how much each of them, `(3, C)` by columns, shows of red, green and blue."""
    if shown.shape[1] != 3:
        return None
    most = shown.sort(0, descending=True)
    order = "".join("RGB"[int(colour)] for colour in most.indices[0])
    clear = bool((most.values[0] >= _CLEARLY * most.values[1]).all())
    return order if clear and len(set(order)) == 3 else None
