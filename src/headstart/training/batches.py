"""Where the engine's batches come from: images prepared anew for every epoch, or arrays kept from a frozen network.

Both are prepared on the device that they are wanted on; what is random about them is drawn on the CPU, so that every device
sees the same.
"""

import time
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from headstart.data.augmentation import augment, random_crops
from headstart.data.preprocessing import apply_preprocessing
from headstart.randomness import generator
from headstart.records import USUAL_SHIFT, Augmentation, Booleans, Images, Indices, Labels, Preprocessing
from headstart.training.rows import Rows

_HOST = torch.device("cpu")


class Batches(Protocol):
    """Inputs with labels, by position; `seconds` were spent on preparing inputs so far, as the host's clock sees it."""

    labels: Labels
    seconds: float

    def begin_epoch(self, epoch: int, seed: int) -> None:
        """Told before each epoch of training, counted from 1."""
        ...

    def inputs(self, positions: Indices, rng: np.random.Generator | None) -> torch.Tensor:
        """Return the network's inputs at `positions`; `rng` draws the augmentation, `None` means none."""
        ...


class ImageBatches:
    """Batches of images: augmentation (if a generator is given), then the one `Preprocessing`.

    Args:
        images: `(N, S, S, 3) uint8`, all images of the set.
        labels: `(N,) int64`, all labels of the set.
        indices: `(n,) int64`, the images that belong to this part.
        preprocessing: the same object for every part.
        augmentation: drawn anew whenever a generator is given.
        device: where the batches are prepared; a GPU keeps the pixels if they fit (`Rows`).
        max_shift: by which share of its side the augmentation moves an image at most, where it moves any.
    """

    def __init__(
        self,
        images: Images,
        labels: Labels,
        indices: Indices,
        preprocessing: Preprocessing,
        augmentation: Augmentation = "none",
        device: torch.device = _HOST,
        max_shift: float = USUAL_SHIFT,
    ) -> None:
        self._rows = Rows(images, indices, device)
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._max_shift = max_shift
        self.labels = labels[indices]
        self.seconds = 0.0
        self._mirrored: Booleans | None = None

    def begin_epoch(self, epoch: int, seed: int) -> None:
        """Choose each image's direction, where it alternates: drawn for the first epoch, the other one in the next."""
        if self._augmentation == "shift-alternate":
            drawn = generator(seed, "direction").random(len(self.labels)) < 0.5
            self._mirrored = drawn ^ (epoch % 2 == 0)

    def inputs(self, positions: Indices, rng: np.random.Generator | None) -> torch.Tensor:
        started = time.perf_counter()
        pixels = self._rows.at(positions)
        if rng is not None and self._augmentation in ("crop", "crop-flip"):
            size = self._preprocessing.input_size
            pixels = random_crops(pixels, size, rng, mirror=self._augmentation == "crop-flip")
        elif rng is not None and self._augmentation != "none":
            mirrored = None if self._mirrored is None else self._mirrored[positions]
            channels_first = torch.as_tensor(pixels).permute(0, 3, 1, 2)
            moved = augment(channels_first, self._augmentation, rng, mirrored, self._max_shift)
            pixels = moved.permute(0, 2, 3, 1)
        prepared = apply_preprocessing(pixels, self._preprocessing)
        self.seconds += time.perf_counter() - started
        return prepared


class ArrayBatches:
    """Batches of a frozen network's activations; there is no augmentation, the network has already seen the pixels.

    Args:
        arrays: `(N, ...)` floating point, for all images of the set.
        labels: `(N,) int64`, all labels of the set.
        indices: `(n,) int64`, the images that belong to this part.
        device: where the batches are wanted; a GPU keeps the part if it fits (`Rows`).
    """

    def __init__(
        self, arrays: npt.NDArray[np.floating], labels: Labels, indices: Indices, device: torch.device = _HOST
    ) -> None:
        self._rows = Rows(arrays, indices, device)
        self.labels = labels[indices]
        self.seconds = 0.0

    def begin_epoch(self, epoch: int, seed: int) -> None:
        """Nothing changes from epoch to epoch."""

    def inputs(self, positions: Indices, rng: np.random.Generator | None) -> torch.Tensor:
        started = time.perf_counter()
        rows = torch.as_tensor(self._rows.at(positions)).float()
        prepared = rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows
        self.seconds += time.perf_counter() - started
        return prepared
