"""What the parts of the benchmark share: where the data is, how often and how much is measured."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One invocation.

    Attributes:
        cifar10: `train/<class>/*.png` and `test/<class>/*.png`.
        arrays: the same images as `.npz`: `train_images`, `train_labels`, `test_images`, `test_labels`.
        weights: folder with `mobilenetv2_100.safetensors`.
        work: a folder for what the benchmark makes; it may stay.
        rounds: how often each is measured; `None` leaves it to the part.
        quick: a trial of the benchmark itself on few images; its numbers mean nothing.
        limit, epochs: of the comparison whose memory is measured; `None` is the whole of it.
        budget: of the same, such as `15m`; with one it has one seed, and headstart chooses the epochs.
        folder_images: sizes of the folders of JPEG files, at least two for the growth.
    """

    cifar10: Path
    arrays: Path
    weights: Path
    work: Path
    rounds: int | None
    quick: bool
    limit: int | None
    epochs: int | None
    budget: str | None
    folder_images: tuple[int, ...]

    def rounds_or(self, default: int) -> int:
        """The number of rounds that was asked for, or else the part's own."""
        return self.rounds or (1 if self.quick else default)
