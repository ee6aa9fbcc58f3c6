"""A probe's training rows, each feature with mean 0 and deviation 1: in memory, or in a file where they would take much of it."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedRandom
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from headstart.errors import DataError
from headstart.files import cache_folder, read_rows
from headstart.records import Indices

Array = npt.NDArray[np.float32]

BLOCK = 1000  # measured: a pass in blocks of so many rows takes 55 ms instead of 80 for 45,000 x 1,280 features (docs/log.md)
_IN_MEMORY = 1 << 26
"""Bytes of rows that are held in memory (chosen): those of 13,000 images with 1,280 features. More of them are read again from a file in
every pass, which is no slower (docs/log.md): their memory does not grow with the images."""

_PREFIX = "headstart-probe-"
_SMALLEST_DEVIATION = 1e-6  # a feature that never moves says nothing; it must not be divided by zero


class StandardisedRows:
    """Rows `(z - mean) / deviation` of some features, for as many passes as a fit needs; to be closed in the end.

    Args:
        features: `(N, D)` of any floating type, possibly memory-mapped.
        rows: `(n,) int64`, which of them.

    Attributes:
        mean, deviation: `(D,) float32` each; the deviation of a feature that never moves is 1.

    Raises:
        DataError: they go to a file, which cannot be written, since its disk is full, or cannot be read any more.
    """

    def __init__(self, features: npt.NDArray[np.floating], rows: Indices) -> None:
        self._count: int = len(rows)
        self._width: int = features.shape[1]
        self._file: BufferedRandom | None = None
        self._held: torch.Tensor | None = None
        if self._count * self._width * np.dtype(np.float32).itemsize <= _IN_MEMORY:
            held = _taken(features, rows)
            self.mean = _narrowed(held.sum(axis=0, dtype=np.float64) / self._count)
            held -= self.mean
            self.deviation = _deviation(np.einsum("nd,nd->d", held, held, dtype=np.float64) / self._count)
            held /= self.deviation
            self._held = torch.from_numpy(held)
            return
        blocks = [rows[first : first + BLOCK] for first in range(0, self._count, BLOCK)]
        total, squares = np.zeros(self._width), np.zeros(self._width)
        for block in blocks:
            total += _taken(features, block).sum(axis=0, dtype=np.float64)
        self.mean = _narrowed(total / self._count)
        for block in blocks:
            centred = _taken(features, block) - self.mean
            squares += np.einsum("nd,nd->d", centred, centred, dtype=np.float64)
        self.deviation = _deviation(squares / self._count)
        try:
            self._file = _opened()
            for block in blocks:
                self._file.write(self.applied(_taken(features, block)).data)
            self._file.flush()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise DataError(
                    f"The training features of a probe cannot be kept in a temporary file ({error}). Free some space in {cache_folder()}, "
                    "or let the environment variable HEADSTART_CACHE name a folder that can be written."
                ) from error
            raise

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def width(self) -> int:
        """How many features a row has."""
        return self._width

    def applied(self, features: Array) -> Array:
        """Standardise other rows by these rows' mean and deviation, in place."""
        features -= self.mean
        features /= self.deviation
        return features

    def blocks(self) -> Iterator[torch.Tensor]:
        """All rows in their order, `(BLOCK, D) float32` at a time, the last ones fewer: each good until the next is asked for."""
        if self._held is not None:
            yield from torch.split(self._held, BLOCK)
        if self._file is None:
            return
        buffer = np.empty((BLOCK, self._width), np.float32)
        self._file.seek(0)
        for first in range(0, self._count, BLOCK):
            block = buffer[: min(BLOCK, self._count - first)]
            try:
                count = self._file.readinto(block.data.cast("B"))
            except OSError as error:
                raise _unreadable(str(error)) from error
            if count != block.nbytes:
                raise _unreadable("it ends too early")
            yield torch.from_numpy(block)

    def close(self) -> None:
        """Remove the file, if there is one."""
        if self._file is not None:
            with suppress(OSError):  # on a full disk what was not written is said once more
                self._file.close()


def _opened() -> BufferedRandom:
    """A file without a name in the cache folder; where others share a cache that can only be read, among the system's temporary files."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=cache_folder(), prefix=_PREFIX)
    except OSError:
        return tempfile.TemporaryFile(prefix=_PREFIX)


def _unreadable(why: str) -> DataError:
    return DataError(
        f"The temporary file of a probe's training features cannot be read any more ({why}). Run the same command again, or let the "
        "environment variable HEADSTART_CACHE name a folder on another disk."
    )


def _taken(features: npt.NDArray[np.floating], rows: Indices) -> Array:
    """A copy of some rows."""
    return np.asarray(read_rows(features, rows), np.float32)


def _narrowed(values: npt.NDArray[np.float64]) -> Array:
    narrowed: Array = values.astype(np.float32)
    return narrowed


def _deviation(variance: npt.NDArray[np.float64]) -> Array:
    deviation = np.sqrt(variance)
    return _narrowed(np.where(deviation > _SMALLEST_DEVIATION, deviation, 1.0))
