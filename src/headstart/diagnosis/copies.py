"""Test images whose picture is also among those that a network was trained on (16)."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from headstart.data.near_duplicates import SamePictures, find_same_pictures
from headstart.files import write_text
from headstart.records import Booleans, ImageSet, Indices, Split

COPIES = "copies.csv"
"""Beside `diagnosis.json`: each test image that has copies in train, with these."""


_MOST_NAMED = 50  # chosen: of blank images every one is a copy of every other


@dataclass(frozen=True)
class Twins:
    """Which test images have a copy among the training images, `(n,) bool`.

    Attributes:
        equal: with the same pixels.
        all: with the same pixels, or of the same picture.
        could_be_told: whether copies whose pixels differ can be told from different pictures in these data.
    """

    equal: Booleans
    all: Booleans
    could_be_told: bool

    @property
    def are_equal(self) -> bool:
        """Whether all of them have the same pixels."""
        return bool((self.equal == self.all).all())


@dataclass(frozen=True)
class Copies:
    """What the test images have copies of, in the rest of the data: the same pixels, or the same picture.

    `pictures` are the pairs that are alike, whether their pixels are the same or not.
    """

    images: ImageSet
    pictures: SamePictures

    @classmethod
    def sought(cls, images: ImageSet, split: Split) -> Self:
        """Look for copies of all test images among all others."""
        return cls(images, find_same_pictures(images.images, split.test, trained_on(split)))

    def twins(self, part: Indices, others: Indices) -> Twins:
        """Which images of a part of test have a copy among others."""
        hashes = self.images.image_hashes
        equal: Booleans = np.isin(hashes[part], hashes[others])
        return Twins(equal, equal | self.pictures.among(part, others), self.pictures.can_tell)

    def pairs(self, part: Indices, others: Indices) -> list[tuple[int, int, bool]]:
        """Every image of a part of test with its copies, fifty of equal pixels at most: both as places in the data, and whether their
        pixels are the same."""
        hashes = self.images.image_hashes
        equal: dict[str, list[int]] = {}
        for place in others.tolist():
            equal.setdefault(hashes[place], []).append(place)
        found = {(one, other): True for one in part.tolist() for other in equal.get(hashes[one], [])[:_MOST_NAMED]}
        wanted = np.isin(self.pictures.judged, part) & np.isin(self.pictures.others, others)
        for one, other in zip(
            self.pictures.judged[wanted].tolist(), self.pictures.others[wanted].tolist(), strict=True
        ):
            found.setdefault((one, other), False)
        return [(*pair, same) for pair, same in sorted(found.items())]


def trained_on(split: Split) -> Indices:
    """What whoever trains on the data as it is trains on: all but test; the duplicates that we take out stay in."""
    return np.concatenate([split.train, split.val, split.removed_duplicates])


def write_copies(folder: Path, copies: Copies | None, part: Indices, trained: Indices) -> None:
    """Write `copies.csv` of the judged test images into the folder of a diagnosis, if there are copies; otherwise none stays there.

    Images are named by their paths, or where the source has no files by their places in it, counted from 0.
    """
    pairs = copies.pairs(part, trained) if copies is not None else []
    (folder / COPIES).unlink(missing_ok=True)  # of an earlier diagnosis
    if copies is None or not pairs:
        return
    paths, text = copies.images.paths, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("test_image", "training_image", "same_pixels"))
    for one, other, same in pairs:
        names = (paths[one], paths[other]) if paths else (one, other)
        writer.writerow((*names, "yes" if same else "no"))
    write_text(folder / COPIES, text.getvalue())
