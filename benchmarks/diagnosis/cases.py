"""The benchmark's cases: data sets, correct setups, single faults, pairs of faults, all drawn by fixed rules.

Every case belongs to the part `tune` or `report`, in turns within its kind: thresholds are chosen on the first, what is
reported comes from the second. 24 cases are networks that headstart cannot recognise (unknown.py), whose contract it has to
find by trying, with wrong pixels and with the right ones. Seven hand over no code but a finished run of headstart's, with a
network from scratch beside the transfer recipe: three of them an unfair one (23). Twelve are of authors who trained the whole
network, four of them on wrong pixels, four with too high a rate and from a head that knew nothing (11).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from faults import FAULTS, ROUGHLY_TUNED, STANDARDISED_ALONE, WITHOUT_GRADIENTS, Fault, Place, correct_pixels, image_set
from measuring import re_estimated
from PIL import Image
from setups import Setup
from sklearn.datasets import load_digits
from unknown import WANTED, rebuilt
from weight_files import load_backbone

from headstart.records import ImageSet

_PER_CLASS = 250
_TINY_CLASSES = 10  # of Tiny ImageNet's 200, evenly spaced by name
_LARGEST_CLASS, _SHRINKING = 700, 0.75  # imbalanced: every class has three quarters of the one before
_FOG = (0.25, 150.0)  # contrast and brightness
_SINGLE_PLACES, _PAIR_PLACES = 3, 2

PARTS = ("tune", "report")

CANVAS = {
    "cifar": 32,
    "gray": 32,
    "imbalanced": 32,
    "fog": 32,
    "tiny": 16,
    "upscaled": 64,
    "digits": 8,
    "tiny-imagenet": 64,
}
"""Side of the images of each data set; `tiny` and `upscaled` are CIFAR-10, shrunk and enlarged."""

_UNCOLOURED = ("digits", "gray")

# In turns: two fast backbones made for small images, two that are ImageNet's. Tiny ImageNet is what the small ones were
# pretrained on, so it is left to the others.
_WHERE = (
    ("cifar", "small32_m", "torchvision"),
    ("digits", "mobilenetv2_035", "numpy"),
    ("tiny", "small32_s", "batch"),
    ("cifar", "mobilenetv2_035", "inside"),
    ("gray", "small32_m", "wrapper"),
    ("imbalanced", "mobilenetv2_035", "torchvision"),
    ("upscaled", "small32_s", "numpy"),
    ("tiny-imagenet", "mobilenetv2_100", "batch"),
    ("digits", "small32_m", "inside"),
    ("gray", "mobilenetv2_035", "children"),
    ("imbalanced", "small32_s", "inside"),
    ("tiny", "mobilenetv2_035", "wrapper"),
    ("cifar", "small32_s", "numpy"),
    ("upscaled", "mobilenetv2_035", "batch"),
    ("tiny", "small32_m", "torchvision"),
    ("tiny-imagenet", "mobilenetv2_035", "torchvision"),
    ("imbalanced", "small32_m", "batch"),
    ("cifar", "mobilenetv2_100", "children"),
)
_FOGGY = (("fog", "mobilenetv2_035", "torchvision"), ("fog", "small32_m", "numpy"), ("fog", "small32_s", "inside"))

_EVIDENCE = ("none", "whole", "head")
"""What the author hands over beside the network: nothing; a whole classifier with loss, optimizer, augmentation, service and
history; a head kept apart with its predictions and the service."""

_RUN = "run"
"""In place of code: a finished run of headstart's, in which the transfer recipe met a network from scratch."""

TUNED = "tuned"
"""The whole classifier of an author who has trained all of it on these images, and keeps nothing else."""

_TUNED_PLACES = (
    ("cifar", "small32_m", "torchvision"),
    ("imbalanced", "small32_s", "inside"),
    ("cifar", "small32_s", "numpy"),
    ("gray", "small32_m", "wrapper"),
)
_TUNED_FAULTS = ("raw", "raw", "not-normalized", "divided-twice")

_EVERY_FIFTH = 5  # of the places; none of those is digits, where a network from scratch is better in truth

_PAIRS = (
    ("without-resize", "not-normalized"),
    ("without-resize", "reversed-channels"),
    ("shrunk", "raw"),
    ("framed-black", "not-normalized"),
    ("framed-zero", "reversed-channels"),
    ("raw", "reversed-channels"),
    ("divided-twice", "reversed-channels"),
    ("normalized-twice", "nearest"),
    ("without-resize", "divided-twice"),
    ("framed-black", "normalized-twice"),
    ("nearest", "imagenet-numbers"),
    ("not-normalized", "left-training"),
    ("shrunk", "left-training"),
    ("raw", "statistics-of-noise"),
    ("reversed-channels", "statistics-of-noise"),
    ("without-resize", "statistics-of-noise"),
    ("shrunk", "half-loaded"),
    ("raw", "never-loaded"),
    ("framed-black", "left-training"),
    ("without-resize", "optimizer-before-thawing"),
    ("not-normalized", "softmax-twice"),
    ("raw", "head-in-another-order"),
    ("not-normalized", "copied-images"),
    ("shrunk", "one-step"),
    ("divided-twice", "cached-augmentation"),
    ("framed-zero", "serves-another-range"),
    ("without-resize", "overfitted"),
    ("only-centred", "rate-too-high"),
    ("left-training", "optimizer-before-thawing"),
    ("statistics-of-noise", "copied-images"),
    ("statistics-of-noise", "one-step"),
    ("left-training", "cached-augmentation"),
    ("half-loaded", "predictions-in-another-order"),
    ("optimizer-before-thawing", "copied-images"),
    ("softmax-twice", "cached-augmentation"),
    ("serves-another-range", "rate-too-high"),
    ("not-normalized", "statistics-as-published"),
    ("raw", "stopped-by-test"),
)

Where = tuple[str, str, str] | tuple[str, str, str, str, str]
"""Data, backbone, style; of a network that is not known also the way in which it was rebuilt and the pixels that it wants."""

_UNKNOWN_HEALTHY: tuple[Where, ...] = (
    ("cifar", "small32_m", "torchvision", "ported", "imagenet"),
    ("imbalanced", "mobilenetv2_035", "numpy", "fused", "minus-one"),
    ("upscaled", "small32_s", "batch", "cut", "unit"),
    ("tiny-imagenet", "mobilenetv2_100", "torchvision", "ported", "imagenet"),
    ("cifar", "mobilenetv2_035", "inside", "ported", "caffe"),
    ("tiny", "small32_m", "numpy", "fused", "bytes"),
    ("gray", "small32_s", "inside", "ported", "cifar10"),
    ("upscaled", "mobilenetv2_100", "batch", "cut", "minus-one"),
)
_UNKNOWN_FAULTY: tuple[tuple[tuple[str, ...], Where], ...] = (
    (("raw",), ("cifar", "small32_m", "torchvision", "ported", "imagenet")),
    (("raw",), ("imbalanced", "mobilenetv2_035", "numpy", "fused", "minus-one")),
    (("not-normalized",), ("upscaled", "small32_s", "batch", "ported", "imagenet")),
    (("not-normalized",), ("tiny-imagenet", "mobilenetv2_100", "torchvision", "cut", "imagenet")),
    (("not-normalized",), ("cifar", "mobilenetv2_035", "inside", "ported", "bytes")),
    (("standardised-alone",), ("cifar", "small32_m", "numpy", "fused", "imagenet")),
    (("standardised-alone",), ("imbalanced", "mobilenetv2_035", "torchvision", "ported", "minus-one")),
    (("reversed-channels",), ("cifar", "small32_s", "batch", "ported", "imagenet")),
    (("reversed-channels",), ("upscaled", "mobilenetv2_035", "torchvision", "fused", "caffe")),
    (("divided-twice",), ("cifar", "mobilenetv2_035", "torchvision", "ported", "imagenet")),
    (("divided-twice",), ("imbalanced", "small32_m", "numpy", "cut", "unit")),
    (("normalized-twice",), ("tiny", "small32_s", "torchvision", "fused", "imagenet")),
    (("without-resize", "raw"), ("tiny", "mobilenetv2_035", "torchvision", "ported", "imagenet")),
    (("raw", "reversed-channels"), ("cifar", "small32_m", "batch", "fused", "minus-one")),
    (("without-resize", "reversed-channels"), ("cifar", "mobilenetv2_035", "numpy", "ported", "imagenet")),
    (("not-normalized", "reversed-channels"), ("upscaled", "small32_m", "torchvision", "fused", "imagenet")),
)


@dataclass(frozen=True)
class Case:
    """A setup with nothing, one or two faults, and the part that it belongs to."""

    name: str
    kind: str
    part: str
    place: Place
    evidence: str
    faults: tuple[Fault, ...]

    @property
    def planted(self) -> tuple[int, ...]:
        """The planted causes."""
        return tuple(fault.cause for fault in self.faults)


@dataclass(frozen=True)
class Folders:
    """Where data and weights are."""

    cifar10: Path
    tiny_imagenet: Path
    weights: Path


def all_cases() -> list[Case]:
    """Every case; the kinds take turns, so that a beginning of the list is a fair sample of it."""
    kinds = (list(_healthy()), list(_singles()), list(_pairs()), *_unknown())
    spread = [
        ((number + 0.5) / len(cases), kind, case)
        for kind, cases in enumerate(kinds)
        for number, case in enumerate(cases)
    ]
    return [case for _, _, case in sorted(spread, key=lambda one: one[:2])]


def correct_setup(place: Place, folders: Folders, evidence: str = "none") -> Setup:
    """The setup of a place before anything is planted."""
    backbone, published, norm, interpolation = load_backbone(place.backbone, folders.weights)
    shown: dict[str, dict[str, Any]] = {
        "none": {},
        "whole": {
            "ending": "whole",
            "optimizer": "complete",
            "augmentation": "fresh",
            "serving": "same",
            "history": "calm",
        },
        "head": {"ending": "head", "predictions": True, "serving": "same"},
        _RUN: {"scratch": "made-for-small-images"},
        TUNED: {"ending": "whole", "tuned": "gently"},
    }
    setup = Setup(
        data=load_data(place.data, folders),
        backbone=backbone,
        published=published,
        norm=norm,
        pixels=correct_pixels(place.size, interpolation, norm, place.style),
        style=place.style,
        **shown[evidence],
    )
    if not place.known:
        wanted = WANTED[place.wanted]
        setup = replace(
            setup,
            backbone=rebuilt(backbone, norm, wanted, place.network),
            published={},
            norm=(wanted.mean, wanted.std),
            pixels=wanted.pixels(place.size, interpolation, place.style),
        )
    return re_estimated(setup) if place.data == "fog" else setup


def planted(setup: Setup, faults: tuple[Fault, ...]) -> Setup:
    """A setup with these faults, one after another."""
    for fault in faults:
        setup = fault.plant(setup)
    return setup


def _place(where: Where) -> Place:
    data, backbone, style, *rest = where
    canvas = CANVAS[data]
    # What suits the data: small backbones at their native 32 px or the images' own size, ImageNet's at 96 to 128 px.
    size = max(32, canvas) if backbone.startswith("small32") else (96 if canvas < 32 else 128)
    return Place(data, backbone, style, canvas, size, data not in _UNCOLOURED, *rest)


def _case(kind: str, number: int, where: Where, evidence: str, faults: tuple[Fault, ...]) -> Case:
    names = "+".join(fault.name for fault in faults) or "healthy"
    data, backbone, style, *rest = where
    name = f"{names}/{data}/{'-'.join([backbone, *rest])}/{style}/{evidence}"
    return Case(name, kind, PARTS[number % 2], _place(where), evidence, faults)


def _healthy() -> Iterator[Case]:
    number = 0
    for turn, evidence in enumerate(_EVIDENCE):
        # The third round takes every second place: the costliest evidence is the same network again.
        for where in (*_WHERE, *_FOGGY[turn : turn + 1])[:: 2 if turn == 2 else 1]:
            yield _case("healthy", number, where, evidence, ())
            number += 1
    for evidence, places in ((_RUN, _WHERE[::_EVERY_FIFTH]), (TUNED, _TUNED_PLACES)):
        for where in places:
            yield _case("healthy", number, where, evidence, ())
            number += 1


def _singles() -> Iterator[Case]:
    number = cursor = 0
    for fault in FAULTS:
        for _ in range(_SINGLE_PLACES):
            where, cursor = _next_place((fault,), cursor)
            yield _case("single", number, where, _evidence_for((fault,), number), (fault,))
            number += 1
    by_name = {fault.name: fault for fault in FAULTS}
    for name, where in zip(_TUNED_FAULTS, _TUNED_PLACES, strict=True):
        assert by_name[name].fits(_place(where))
        yield _case("single", number, where, TUNED, (by_name[name],))
        number += 1
    for _ in range(_SINGLE_PLACES):
        where, cursor = _next_place((WITHOUT_GRADIENTS,), cursor)
        yield _case("single", number, where, _evidence_for((WITHOUT_GRADIENTS,), number), (WITHOUT_GRADIENTS,))
        number += 1
    for where in _TUNED_PLACES:
        yield _case("single", number, where, TUNED, (ROUGHLY_TUNED,))
        number += 1


def _pairs() -> Iterator[Case]:
    by_name = {fault.name: fault for fault in FAULTS}
    number = cursor = 0
    for first, second in _PAIRS:
        both = (by_name[first], by_name[second])
        for _ in range(_PAIR_PLACES):
            where, cursor = _next_place(both, cursor)
            yield _case("pair", number, where, _evidence_for(both, number), both)
            number += 1


def _unknown() -> Iterator[list[Case]]:
    """The networks that are not known: healthy ones, single faults, pairs."""
    by_name = {fault.name: fault for fault in (*FAULTS, STANDARDISED_ALONE)}
    every: list[tuple[str, Where, tuple[Fault, ...]]] = [("healthy", where, ()) for where in _UNKNOWN_HEALTHY]
    for names, where in _UNKNOWN_FAULTY:
        faults = tuple(by_name[name] for name in names)
        assert all(fault.fits(_place(where)) for fault in faults)
        every.append(("single" if len(faults) == 1 else "pair", where, faults))
    for kind in ("healthy", "single", "pair"):
        chosen = [(where, faults) for one, where, faults in every if one == kind]
        yield [
            _case(kind, number, where, _evidence_for(faults, number), faults)
            for number, (where, faults) in enumerate(chosen)
        ]


def _evidence_for(faults: tuple[Fault, ...], number: int) -> str:
    """In turns, the same in both parts; where labels or pictures say nothing there is no head worth handing over."""
    causes = {fault.cause for fault in faults}
    if 23 in causes:
        return _RUN
    return "none" if 20 in causes else _EVIDENCE[number // 2 % 3]


def _next_place(faults: tuple[Fault, ...], cursor: int) -> tuple[Where, int]:
    """The next place, in turns, where all of these can be planted."""
    choices = _FOGGY if any(fault.cause == 10 for fault in faults) else _WHERE
    for step in range(len(choices)):
        where = choices[(cursor + step) % len(choices)]
        if all(fault.fits(_place(where)) for fault in faults):
            return where, cursor + step + 1
    raise ValueError(f"{' and '.join(fault.name for fault in faults)} fit nowhere together.")


@lru_cache(maxsize=4)
def load_data(name: str, folders: Folders) -> ImageSet:
    """One of the data sets by name; images in memory, the same every time."""
    if name == "digits":
        bunch = load_digits()
        gray = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        return image_set(name, np.repeat(gray[..., None], 3, axis=3), bunch.target.astype(np.int64))
    if name == "tiny-imagenet":
        classes = sorted(folder for folder in folders.tiny_imagenet.iterdir() if folder.is_dir())
        return _from_folders(name, classes[:: len(classes) // _TINY_CLASSES][:_TINY_CLASSES], lambda number: _PER_CLASS)
    classes = sorted(folder for folder in _train(folders.cifar10).iterdir() if folder.is_dir())
    if name == "imbalanced":
        return _from_folders(name, classes, lambda number: round(_LARGEST_CLASS * _SHRINKING**number))
    plain = _from_folders(name, classes, lambda number: _PER_CLASS)
    changes: dict[str, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
        "cifar": lambda images: images,
        "gray": lambda images: _each(images, lambda image: image.convert("L").convert("RGB")),
        "tiny": lambda images: _each(images, lambda image: image.resize((16, 16), Image.Resampling.BOX)),
        "upscaled": lambda images: _each(images, lambda image: image.resize((64, 64), Image.Resampling.BICUBIC)),
        "fog": lambda images: np.rint(images * _FOG[0] + _FOG[1]).clip(0, 255).astype(np.uint8),
    }
    return image_set(name, changes[name](plain.images), plain.labels)


def _train(folder: Path) -> Path:
    return folder / "train" if (folder / "train").is_dir() else folder


def _from_folders(name: str, classes: list[Path], count: Callable[[int], int]) -> ImageSet:
    """Some images of each class, drawn: names often follow what is seen."""
    images, labels = [], []
    for number, folder in enumerate(classes):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for place in np.random.default_rng(number).permutation(len(files))[: count(number)]:
            with Image.open(files[place]) as image:
                images.append(np.asarray(image.convert("RGB")))
            labels.append(number)
    return image_set(name, np.stack(images), np.asarray(labels, np.int64))


def _each(images: npt.NDArray[np.uint8], change: Callable[[Image.Image], Image.Image]) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
