"""Near duplicates: the same photograph, resized, compressed anew, brightened or darkened, or mirrored.

Exact duplicates have equal hashes; a photograph that came into the data by different ways has not. Images are brought to
16 x 16 px, each is centred and scaled to length one, and the correlation of a pair is the product of the two.

Between two sets a fixed correlation counts. Within one set there is more to go by: two pictures that are alike because all pictures
of their kind are (a plain sky) have many others that are nearly as much alike, a picture and its copy have not.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from headstart.data.preprocessing import pixels_only
from headstart.files import read_rows
from headstart.records import Booleans, Images, Indices, Preprocessing

SIMILAR = 0.95
"""Correlation from which a pair of two sets is counted. Chosen by looking: below it, pairs on CIFAR-10 and Tiny ImageNet shared no more
than a bright sky; above it, the same photograph appears, and within CIFAR-10 a sky in one pair of six (docs/log.md)."""

_ALIKE = 0.9
"""Correlation from which two images of one set may be copies. Chosen by looking, as the next two (docs/log.md)."""

_STANDS_OUT, _BACKGROUND = 0.25, 50
"""A copy's distance, `1 - correlation`, is at most this share of that of the fiftieth nearest image (of the nearest tenth of them, where
that is nearer); so up to 49 copies of an image are found."""

_ALL_ALIKE, _SAMPLED = 0.7, (500, 5000)
"""Where the fiftieth nearest of most images is as near as that, pictures are all alike; looked at on so many images, among so many
others. Chosen between measured medians, which grow with the number of others: CIFAR-10 among 100 to 20,000 0.40 to 0.63, in gray 0.43 to
0.66; digits among 50 to 1,500 0.79 to 0.86 (docs/log.md)."""

_FEWEST = 50  # chosen: among fewer images nothing is a background to stand out from
_COARSE_SIDE = 8  # where most pairs are ruled out; of the copies looked at (docs/log.md) none was below 0.91 there
_SIDE = 16
_BLOCK = 2048  # of both sides: 2048 x 2048 float32 correlations are 17 MB
_FLAT = 1e-6


@dataclass(frozen=True)
class NearDuplicates:
    """`(m,) float32` highest correlation of each judged image with any other, `(m,) int64` which one that is."""

    correlation: npt.NDArray[np.float32]
    nearest: Indices

    @property
    def count(self) -> int:
        """How many judged images have a near duplicate."""
        return int((self.correlation >= SIMILAR).sum())


def find_near_duplicates(judged: Images, judged_indices: Indices, others: Images, indices: Indices) -> NearDuplicates:
    """Find for each judged image the most similar of the others, mirrored or not.

    Args:
        judged: `(M, S, S, 3) uint8`; `judged_indices`: `(m,) int64`, which of them.
        others: `(N, T, T, 3) uint8`, of any other size; `indices`: `(n,) int64`, which of them.

    Returns:
        Correlations and, as indices into `others`, where they were found.
    """
    best = torch.full((len(judged_indices),), -1.0)
    nearest = torch.zeros(len(judged_indices), dtype=torch.int64)
    wanted = _Halves.of(_unit_rows(_thumbnails(judged, judged_indices)), _SIDE)
    for first in range(0, len(indices), _BLOCK):
        part = indices[first : first + _BLOCK]
        block, places = _Halves.of(_unit_rows(_thumbnails(others, part)), _SIDE), torch.from_numpy(part)
        for start in range(0, len(best), _BLOCK):
            rows = slice(start, start + _BLOCK)
            value, place = wanted.rows(rows).correlations(block).max(dim=1)
            closer = value > best[rows]
            best[rows] = torch.where(closer, value, best[rows])
            nearest[rows] = torch.where(closer, places[place], nearest[rows])
    return NearDuplicates(best.numpy(), nearest.numpy())


@dataclass(frozen=True)
class SamePictures:
    """Pairs of images of one set that show the same picture.

    Attributes:
        judged, others: `(p,) int64` places in the set; a pair is at one place in both.
        can_tell: whether copies can be told from other pictures of these data. Where most of them have many others that are much
            alike (digits, for one), or there are very few, they cannot, and there are no pairs.
    """

    judged: Indices
    others: Indices
    can_tell: bool

    def among(self, part: Indices, others: Indices) -> Booleans:
        """Which images of a part have a copy among others, `(n,) bool`."""
        found: Booleans = np.isin(part, self.judged[np.isin(self.others, others)])
        return found


def find_same_pictures(images: Images, judged: Indices, others: Indices) -> SamePictures:
    """Find the images that have a copy of another size, compression, light or direction among others of their set.

    A copy that was cropped or turned is not found, nor one of an image with fifty copies. Frames of a film and pictures of a series may
    be as much alike as copies are, and are found, too.

    Args:
        images: `(N, S, S, 3) uint8`.
        judged: `(m,) int64`, whose copies are looked for.
        others: `(n,) int64`, among which.
    """
    nothing = np.zeros(0, np.int64)
    if len(others) < _FEWEST or not len(judged):
        return SamePictures(nothing, nothing, can_tell=False)
    wanted, against = _thumbnails(images, judged), _thumbnails(images, others)
    background = min(_BACKGROUND, max(len(others) // 10, 2))
    if _are_all_alike(wanted, against):
        return SamePictures(nothing, nothing, can_tell=False)
    candidates = np.flatnonzero(_most_alike(wanted, against) >= _ALIKE)
    if not len(candidates):
        return SamePictures(nothing, nothing, can_tell=True)
    correlation, place = _nearest(wanted[candidates], against, background)
    stands_out = (1 - correlation) <= _STANDS_OUT * (1 - correlation[:, -1:])
    rows, columns = np.nonzero((correlation >= _ALIKE) & stands_out)
    return SamePictures(judged[candidates[rows]], others[place[rows, columns]], can_tell=True)


def _are_all_alike(wanted: Images, against: Images) -> bool:
    """Whether most pictures have many others that are much alike; looked at on some, so that it does not depend on how many there are."""
    few, others = (_evenly_spaced(one, most) for one, most in ((wanted, _SAMPLED[0]), (against, _SAMPLED[1])))
    correlation, _ = _nearest(few, others, min(_BACKGROUND, max(len(others) // 10, 2)))
    return float(np.median(correlation[:, -1])) >= _ALL_ALIKE


def _evenly_spaced(thumbnails: Images, most: int) -> Images:
    return thumbnails[np.linspace(0, len(thumbnails) - 1, min(len(thumbnails), most)).astype(np.int64)]


def _most_alike(wanted: Images, against: Images) -> npt.NDArray[np.float32]:
    """Each thumbnail's highest correlation with any of the others, mirrored or not, at 8 x 8 px: `(m,) float32`."""
    best, signatures = torch.full((len(wanted),), -1.0), _Halves.of(_coarse(_unit_rows(wanted)), _COARSE_SIDE)
    for first in range(0, len(against), _BLOCK):
        block = _Halves.of(_coarse(_unit_rows(against[first : first + _BLOCK])), _COARSE_SIDE)
        for start in range(0, len(wanted), _BLOCK):
            part = slice(start, start + _BLOCK)
            torch.maximum(best[part], signatures.rows(part).correlations(block).amax(1), out=best[part])
    return best.numpy()


def _nearest(wanted: Images, against: Images, count: int) -> tuple[npt.NDArray[np.float32], Indices]:
    """The highest correlations of each thumbnail with the others, mirrored or not, falling, and whose they are: `(m, count)` both."""
    correlation = torch.full((len(wanted), count), -1.0)
    place = torch.zeros((len(wanted), count), dtype=torch.int64)
    signatures = _Halves.of(_unit_rows(wanted), _SIDE)
    for first in range(0, len(against), _BLOCK):
        block = _Halves.of(_unit_rows(against[first : first + _BLOCK]), _SIDE)
        for start in range(0, len(wanted), _BLOCK):
            part = slice(start, start + _BLOCK)
            found = signatures.rows(part).correlations(block)
            found, order = found.topk(min(count, found.shape[1]), dim=1)
            correlation[part], chosen = torch.cat([correlation[part], found], 1).topk(count, dim=1)
            place[part] = torch.cat([place[part], order + first], 1).gather(1, chosen)
    return correlation.numpy(), place.numpy()


@dataclass(frozen=True)
class _Halves:
    """Signatures as a part that mirroring leaves as it is and one whose sign it turns: `(n, D / 2) float32` both.

    Of the products of two images' parts the sum is their correlation, the difference that of one with the other's mirror image: both for
    the work of one.
    """

    even: torch.Tensor
    odd: torch.Tensor

    @classmethod
    def of(cls, signatures: npt.NDArray[np.float32], side: int) -> Self:
        columns = torch.from_numpy(signatures).reshape(-1, side, side, 3)
        left, right = columns[:, :, : side // 2], columns.flip(2)[:, :, : side // 2]
        even, odd = ((half * 0.5**0.5).flatten(1) for half in (left + right, left - right))
        return cls(even, odd)

    def rows(self, part: slice) -> Self:
        return replace(self, even=self.even[part], odd=self.odd[part])

    def correlations(self, others: Self) -> torch.Tensor:
        """`(n, m) float32`: the higher of each pair's two correlations."""
        return (self.even @ others.even.T).add_((self.odd @ others.odd.T).abs_())


def _thumbnails(images: Images, indices: Indices) -> Images:
    """`(n, 16, 16, 3) uint8`."""
    small = np.empty((len(indices), _SIDE, _SIDE, 3), np.uint8)
    for first in range(0, len(indices), _BLOCK):
        part = slice(first, first + _BLOCK)
        small[part] = pixels_only(read_rows(images, indices[part]), Preprocessing(_SIDE))
    return small


def _coarse(signatures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same of 8 x 8 px: `(n, 192) float32`."""
    pooled = _SIDE // _COARSE_SIDE
    grid = signatures.reshape(-1, _COARSE_SIDE, pooled, _COARSE_SIDE, pooled, 3)
    return _unit_rows(grid.mean(axis=(2, 4)), flat=_FLAT / _SIDE)


def _unit_rows(values: npt.NDArray[Any], flat: float = _FLAT) -> npt.NDArray[np.float32]:
    """`(n, D) float32`: centred, of length one; those without any contrast have length zero."""
    rows = values.reshape(len(values), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > flat)
    return result
