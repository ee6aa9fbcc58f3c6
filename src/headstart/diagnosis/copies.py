"""Test images whose picture is also among those that a network was trained on (16)."""

import csv
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from headstart.data.near_duplicates import SamePictures, find_same_pictures
from headstart.files import write_text
from headstart.records import Booleans, ImageSet, Indices, Split

COPIES = "copies.csv"
"""Beside `diagnosis.json`: each test image that has copies among the training images, and its copies."""

_MOST_NAMED = 50  # chosen: of blank images every one is a copy of every other


@dataclass(frozen=True)
class Twins:
    """Which test images have a copy among the training images, `(n,) bool`.

    Attributes:
        equal: with the same pixels.
        alike: with the same pixels, or of the same picture.
        could_be_told: whether copies whose pixels differ can be told from different pictures in these data.
    """

    equal: Booleans
    alike: Booleans
    could_be_told: bool

    @property
    def are_equal(self) -> bool:
        """Whether all of them have the same pixels."""
        return bool((self.equal == self.alike).all())


@dataclass(frozen=True)
class Copies:
    """What the test images have copies of: the same pixels, or the same picture.

    Attributes:
        images: the set.
        test: `(t,) int64`, the test images.
        trained: `(n,) int64`, the images that the network was trained on, as far as that is known.
        pictures: pairs of a test image and any other that are alike, whether their pixels are the same or not.
    """

    images: ImageSet
    test: Indices
    trained: Indices
    pictures: SamePictures

    @classmethod
    def sought(cls, images: ImageSet, split: Split, trained: Indices) -> Self:
        """Look for copies of all test images among all others."""
        return cls(images, split.test, trained, find_same_pictures(images.images, split.test, every_other(split)))

    def twins(self, part: Indices, others: Indices) -> Twins:
        """Which images of a part of test have a copy among others."""
        hashes = self.images.image_hashes
        equal: Booleans = np.isin(hashes[part], hashes[others])
        return Twins(equal, equal | self.pictures.among(part, others), self.pictures.can_tell)

    @cached_property
    def pairs(self) -> list[tuple[int, int, bool]]:
        """Every test image with its copies among the training images, fifty of equal pixels at most: the two places in the set, and
        whether the pixels are the same; in the order of the places.
        """
        hashes = self.images.image_hashes
        equal: dict[str, list[int]] = {}
        for place in self.trained.tolist():
            equal.setdefault(hashes[place], []).append(place)
        same = {(one, other) for one in self.test.tolist() for other in equal.get(hashes[one], [])[:_MOST_NAMED]}
        trained_on = np.isin(self.pictures.others, self.trained)
        judged, others = (places[trained_on].tolist() for places in (self.pictures.judged, self.pictures.others))
        alike = {pair for pair in zip(judged, others, strict=True) if hashes[pair[0]] != hashes[pair[1]]}
        return sorted([(*pair, True) for pair in same] + [(*pair, False) for pair in alike])


def every_other(split: Split) -> Indices:
    """All images but test, duplicates that we take out included: what somebody trains on who takes the data as they are."""
    return np.concatenate([split.train, split.val, split.removed_duplicates])


def write_copies(folder: Path, copies: Copies | None) -> None:
    """Write `copies.csv` into the folder of a diagnosis, if there are copies; otherwise none stays there.

    Images are named by their paths, or where the source has no files by their places in the set, counted from 0.
    """
    pairs = copies.pairs if copies is not None else []
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
