"""The rows of a part by position: from the host's memory, or from the device's, where they fit."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.data.transfer import to_device
from headstart.files import read_rows
from headstart.records import Indices

_KEPT_SHARE = 0.25
"""Of the device's free memory, for one part; chosen: train, val and the activations of a training fit beside each other.
A quarter of 15 GB holds 1.2 million images of 32 px."""

_READ_ONCE = 1 << 28
"""Bytes of a part that the CPU reads from its file as a whole once it is asked for a second time (chosen): so much the features of 45,000
images take, of which a linear head takes thousands of small batches. Read row by row, 700 batches of 64 took 0.17 s, from memory 0.03 s
(November 2026, two cores)."""

_HELD_BYTES, _NEIGHBOURS = 1 << 26, 1 << 16
"""Of an array at a time (chosen), and what comes along with a row that is written by itself."""


class Rows:
    """Rows of an array that lives on the host, for batches on a device.

    On the CPU they are taken from the array each time, or read from its file; a small part that is gone through more than once is then
    read as a whole. On a GPU the whole part is copied there when it is first asked for, if it fits, and batches are gathered there;
    otherwise each batch is copied.

    Args:
        array: `(N, ...)` of any type, possibly memory-mapped.
        indices: `(n,) int64`, the rows that belong to this part.
        device: where the batches are wanted.
    """

    def __init__(self, array: npt.NDArray[Any], indices: Indices, device: torch.device) -> None:
        self._array = array
        self._indices = indices
        self._device = device
        self._kept: torch.Tensor | None = None
        self._decided = False
        self._asked = 0

    def at(self, positions: Indices) -> npt.NDArray[Any] | torch.Tensor:
        """The rows at positions of the part: an array on the CPU, a tensor on any other device."""
        needed = len(self._indices) * math.prod(self._array.shape[1:]) * self._array.itemsize
        if not self._decided:
            self._decided = True
            if keeps(self._device.type, needed, _free_bytes(self._device)):
                self._kept = self._copied()
        if self._kept is not None:
            return self._kept.index_select(0, to_device(positions, self._device))
        if self._device.type == "cpu" and isinstance(self._array, np.memmap) and needed <= _READ_ONCE:
            if self._asked >= len(self._indices):
                self._array, self._indices = read_rows(self._array, self._indices), np.arange(len(self._indices))
            self._asked += len(positions)
        rows = read_rows(self._array, self._indices[positions])
        return rows if self._device.type == "cpu" else to_device(rows, self._device)

    def _copied(self) -> torch.Tensor:
        dtype = torch.from_numpy(np.empty(0, self._array.dtype)).dtype
        kept = torch.empty((len(self._indices), *self._array.shape[1:]), dtype=dtype, device=self._device)
        step = held_rows(self._array)
        for first in range(0, len(kept), step):
            block = read_rows(self._array, self._indices[first : first + step])
            kept[first : first + step] = to_device(block, self._device)
        return kept


def held_rows(array: npt.NDArray[Any]) -> int:
    """How many rows of an array are copied at a time, or written before its pages are given back: about 64 MiB with their neighbours.

    >>> held_rows(np.empty((0, 32, 32, 3), np.uint8)), held_rows(np.empty((0, 256, 256, 3), np.uint8))
    (978, 256)
    """
    return max(_HELD_BYTES // (math.prod(array.shape[1:]) * array.itemsize + _NEIGHBOURS), 1)


def keeps(device_type: str, needed_bytes: int, free_bytes: int) -> bool:
    """Whether a part is kept on the device: on a GPU of known size, where it takes at most a quarter of what is free.

    >>> keeps("cuda", 3, 12), keeps("cuda", 4, 12), keeps("cpu", 3, 12)
    (True, False, False)
    """
    return device_type == "cuda" and needed_bytes <= _KEPT_SHARE * free_bytes


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
