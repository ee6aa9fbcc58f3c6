"""Near duplicates between two sets: the same photograph, resized, compressed anew or mirrored.

Exact duplicates have equal hashes; a photograph that came into two data sets by different ways has not. Both sets are
brought to 16 x 16 px, each image is centred and scaled to length one, and the largest correlation over all pairs is found.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.data.preprocessing import pixels_only
from headstart.records import Images, Indices, Preprocessing

SIMILAR = 0.95
"""Correlation from which a pair is counted. Chosen by looking: below it, pairs on CIFAR-10 and Tiny ImageNet shared no more
than a bright sky; above it, the same photograph appears."""

_SIDE = 16
_BLOCK = 2048  # 2048 x 100,000 float32 correlations are 0.8 GB; the other side is taken in blocks, too
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
    wanted = _signatures(judged, judged_indices)
    mirrored = np.ascontiguousarray(wanted.reshape(-1, _SIDE, _SIDE, 3)[:, :, ::-1]).reshape(wanted.shape)
    best = np.full(len(wanted), -1, np.float32)
    nearest = np.zeros(len(wanted), np.int64)
    for first in range(0, len(indices), _BLOCK):
        part = indices[first : first + _BLOCK]
        against = _signatures(others, part).T
        for signatures in (wanted, mirrored):
            correlations = signatures @ against
            place = correlations.argmax(axis=1)
            value = correlations[np.arange(len(place)), place]
            closer = value > best
            best[closer] = value[closer]
            nearest[closer] = part[place[closer]]
    return NearDuplicates(best, nearest)


def _signatures(images: Images, indices: Indices) -> npt.NDArray[np.float32]:
    """`(n, 768) float32`: small, centred, of length one; an image without any contrast has length zero and is like none."""
    rows = np.empty((len(indices), _SIDE * _SIDE * 3), np.float32)
    for first in range(0, len(indices), _BLOCK):
        pixels = pixels_only(images[indices[first : first + _BLOCK]], Preprocessing(_SIDE))
        rows[first : first + len(pixels)] = pixels.reshape(len(pixels), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > _FLAT)
    return result
