"""What a user asks of a pretraining, checked before any work, and the material that it works on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from headstart.data.sources import load_images
from headstart.data.splits import TRAIN, UNASSIGNED, VAL, draw_stratified, find_duplicates
from headstart.errors import DataError
from headstart.models.backbones import Backbone, build_backbone, find_backbone
from headstart.models.small32 import FAMILY, LARGEST_IMAGE, NATIVE_SIZE
from headstart.randomness import generator
from headstart.records import MIRRORING, Augmentation, DuplicateReport, ImageSet, Preprocessing, Recipe, Split
from headstart.study.checks import require, training_checks
from headstart.study.judge import Judge, load_judges
from headstart.study.observer import Observer, decoding_progress
from headstart.study.resolving import backbone_preprocessing, channel_contract, interpolation_at
from headstart.training.distillation import BothDirections

_IMAGES_SEEN, _FEWEST_EPOCHS, _MOST_EPOCHS = 1_600_000, 16, 100
"""By default (chosen): sixteen epochs of Tiny ImageNet's 100,000 images; of smaller sets as many images, up to a hundred epochs. With 2,700
of its images a hundred epochs of `small32_s` gave 54.6% in a probe on CIFAR-10, sixteen 51.3% (docs/log.md)."""

_LEAST_VAL_SHARE = 0.02  # chosen: enough of a large set (2,000 of Tiny ImageNet's images: +-1 point)
_LARGEST_VAL_SHARE = 0.1  # chosen: no more of a small one, which needs its images to learn from
_VAL_IMAGES = 1000  # chosen: +-1.5 points at most; a dozen images would tell nothing
_NOT_USED = -1

_TEACHER_ENLARGED, _STRIDE = 3, 32
"""Times a teacher's images are enlarged at least, and what its size is a multiple of. Measured (docs/log.md) with 64 px alone: a probe on
MobileNetV2's features of Tiny ImageNet was best at 192 px."""


@dataclass(frozen=True)
class PretrainRequest:
    """What a user asks of a pretraining; see the command line's help for each option."""

    data: str
    out: Path | None = None
    architecture: str = "small32_m"
    teacher: str | None = None
    weights_dir: Path | None = None
    input_size: int = NATIVE_SIZE
    epochs: int | None = None
    budget_seconds: float | None = None
    batch_size: int = 128
    learning_rate: float = 0.03
    mixup: float = 0.0
    augmentation: Augmentation | None = None
    title: str = ""
    licence: str = ""
    judges: tuple[str, ...] = ()
    limit: int | None = None
    seed: int = 0

    @property
    def path(self) -> Path:
        """Where the weight file goes."""
        return self.out or Path(f"{self.architecture}.safetensors")

    @property
    def card(self) -> Path:
        """Where the model card goes."""
        return self.path.with_suffix(".md")

    @property
    def folder(self) -> Path:
        """Where plan, learning curve and resume file are while it trains."""
        return self.path.with_suffix(".pretraining")


@dataclass(frozen=True)
class Material:
    """What a pretraining works on and with.

    Attributes:
        request: as the user made it.
        images: all of them.
        split: train and val of them; test is empty, since a test part of their own is left alone.
        recipe: complete but for the epochs that a budget allows.
        teacher: whose features are learnt beside the labels.
        judges: data sets that the backbone is judged on in the end.
        device: where the network trains.
    """

    request: PretrainRequest
    images: ImageSet
    split: Split
    recipe: Recipe
    teacher: Backbone | None
    judges: tuple[Judge, ...]
    device: torch.device


def gather_material(request: PretrainRequest, device: torch.device, observer: Observer) -> Material:
    """Check a request and bring together what it names; nothing is trained, and nothing is written but caches.

    Raises:
        UsageError: the request cannot be meant.
        DataError: images that cannot be used, to train on or to judge on.
        WeightsError: the teacher's weights are not there, or do not fit.
    """
    _require_meaning(request)
    teacher = find_backbone(request.teacher, request.weights_dir) if request.teacher else None
    images = load_images(request.data, limit=request.limit, seed=request.seed, progress=decoding_progress(observer))
    split, duplicates = train_and_val(images, request.seed)
    judges = load_judges(request.judges, images, observer)
    observer.data_ready(images, split, duplicates)
    return Material(request, images, split, _recipe(request, images, split, teacher), teacher, judges, device)


def teacher_preprocessing(teacher: Backbone, images: ImageSet) -> Preprocessing:
    """What the teacher sees of each whole image: at least what a probe would, and three times the image's side up to its native size."""
    usual = backbone_preprocessing(teacher, images.canvas)
    larger = min(-(-_TEACHER_ENLARGED * images.canvas // _STRIDE) * _STRIDE, teacher.native_size)
    return backbone_preprocessing(teacher, images.canvas, max(usual.input_size, larger))


def teacher_network(teacher: Backbone, recipe: Recipe) -> nn.Module:
    """The teacher as it is asked: about both mirror images where the student sees both."""
    network = build_backbone(teacher)
    return BothDirections(network).eval() if sees_both_directions(recipe) else network


def teacher_key(teacher: Backbone, recipe: Recipe) -> str:
    """What the teacher's features are kept under."""
    return f"{teacher.weights_sha256}{' in both directions' if sees_both_directions(recipe) else ''}"


def sees_both_directions(recipe: Recipe) -> bool:
    """Whether a student sees its images mirrored, too."""
    return recipe.augmentation in MIRRORING


def _require_meaning(request: PretrainRequest) -> None:
    require(
        (
            (
                request.architecture in FAMILY,
                f"--architecture takes {', '.join(FAMILY)}, not {request.architecture!r}.",
            ),
            (
                8 <= request.input_size <= LARGEST_IMAGE,
                f"--input-size lies between 8 and {LARGEST_IMAGE} pixels, not {request.input_size}.",
            ),
            (0 < request.learning_rate < 10, f"--learning-rate lies between 0 and 10, not {request.learning_rate}."),
            (0 <= request.mixup <= 10, f"--mixup lies between 0 and 10, not {request.mixup}."),
            *training_checks(request.epochs, request.budget_seconds, request.batch_size, request.augmentation),
            (request.path.suffix == ".safetensors", f"--out ends in .safetensors, not {request.path.name!r}."),
        )
    )


def train_and_val(images: ImageSet, seed: int) -> tuple[Split, DuplicateReport]:
    """The source's own test part is left alone; val is its own, or drawn; none of the three shares pixels with another."""
    part = np.zeros(len(images.labels), np.int8) if images.official_part is None else images.official_part.copy()
    part[part == UNASSIGNED] = TRAIN
    if not (part == VAL).any():
        pool, classes = np.flatnonzero(part == TRAIN), len(images.class_names)
        wanted = val_images(len(pool), classes)
        rng = generator(seed, "pretraining", "val")
        part[pool[draw_stratified(images.labels[pool], classes, wanted, rng, leave=1)]] = VAL
    duplicates, across = find_duplicates(images, part, removed=True)
    part[across] = _NOT_USED
    train, val = (np.flatnonzero(part == code).astype(np.int64) for code in (TRAIN, VAL))
    if len(train) < 2 or not len(val):
        raise DataError(f"{images.source} has {len(train)} images to train on and {len(val)} to watch it; add images.")
    return Split(train, val, np.array([], np.int64), seed, "drawn", across), duplicates


def val_images(pool: int, classes: int) -> int:
    """How many of the images become val: about 1,000, but from 2% to 10% of them, and one of each class.

    >>> [val_images(pool, 10) for pool in (50, 600, 20_000, 100_000)]
    [10, 60, 1000, 2000]
    """
    return max(round(_LEAST_VAL_SHARE * pool), min(round(_LARGEST_VAL_SHARE * pool), _VAL_IMAGES), classes)


def default_epochs(images: int) -> int:
    """How often a pretraining goes through its images, if nobody says.

    >>> [default_epochs(images) for images in (500, 2_700, 45_000, 98_000, 1_000_000)]
    [100, 100, 36, 16, 16]
    """
    return min(max(round(_IMAGES_SEEN / images), _FEWEST_EPOCHS), _MOST_EPOCHS)


def _recipe(request: PretrainRequest, images: ImageSet, split: Split, teacher: Backbone | None) -> Recipe:
    mean, std = channel_contract(images, split.train)
    # As `compare` brings images of this size to that one.
    interpolation = interpolation_at(request.input_size, images.canvas, "bilinear")
    return Recipe(
        name=request.architecture,
        kind="scratch",
        backbone=request.architecture,
        # The network starts from nothing; the only pretrained weights that it sees are its teacher's.
        weights_sha256=teacher.weights_sha256 if teacher else None,
        preprocessing=Preprocessing(request.input_size, interpolation, mean, std),
        input_size=request.input_size,
        augmentation=request.augmentation or ("crop-flip" if images.mirror_safe else "crop"),
        # A budget decides them later, in the plan.
        epochs=request.epochs or (_FEWEST_EPOCHS if request.budget_seconds else default_epochs(len(split.train))),
        batch_size=request.batch_size,
        optimizer="muon",
        learning_rate=request.learning_rate,
        weight_decay=0.02,
        schedule="one-cycle",
        label_smoothing=0.1,
        mixup=request.mixup,
        weight_averaging=0.998,
    )
