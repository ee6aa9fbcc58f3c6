"""How good a pretrained backbone is on other data than it was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.data.near_duplicates import SIMILAR, find_near_duplicates
from headstart.data.sources import load_images
from headstart.data.splits import draw_stratified, has_own_test, make_split
from headstart.errors import UsageError
from headstart.files import read_rows
from headstart.models.backbones import build_backbone, find_backbone
from headstart.randomness import generator
from headstart.records import Booleans, ImageSet, Indices, Split
from headstart.study.observer import Observer, decoding_progress
from headstart.study.resolving import backbone_preprocessing
from headstart.training.features import extract_features
from headstart.training.probe import fit_probe

JUDGED_LABELS = 5000
"""Training images of a judged set that the probe may see; the number that docs/small-images.md compares at."""

_JUDGED_VAL = 1000


@dataclass(frozen=True)
class Judge:
    """A data set that a backbone is judged on: its images, and few of them to fit the probe on, with all of its test part."""

    images: ImageSet
    split: Split


def load_judges(sources: Sequence[str], trained_on: ImageSet, observer: Observer) -> tuple[Judge, ...]:
    """Load and split the data sets to judge on: what cannot be judged on must not be found out after hours of training.

    Args:
        sources: as for `load_images`.
        trained_on: the images of the training.
        observer: told how the decoding goes.

    Raises:
        UsageError: a source holds the very images of the training.
        DataError: a source cannot be used, or cannot be split.
    """
    judges = []
    for source in sources:
        images = load_images(source, progress=decoding_progress(observer))
        if images.fingerprint == trained_on.fingerprint and not has_own_test(images):
            raise UsageError(
                f"--judge {source} holds the very images that are trained on, so it cannot judge what was learned. Name "
                "other data, or leave it out: the model card has the accuracy on a validation part of the training images."
            )
        split, _ = make_split(images)
        judges.append(Judge(images, _few_labels(images, split)))
    return tuple(judges)


def judge_backbone(
    judge: Judge, weights: Path, pretrained_on: ImageSet, train: Indices, device: torch.device, observer: Observer
) -> dict[str, Any]:
    """A linear probe on another data set than that of the training, and the duplicates between the two.

    Args:
        judge: the data set.
        weights: file of the backbone.
        pretrained_on: images of the pretraining; `train`: `(n,) int64`, which of them it learned from.
        device: where features are extracted.
        observer: told of the progress.

    Returns:
        JSON values, as docs/weights.md describes `judged`; `None` stands where there is nothing to count.
    """
    images, split = judge.images, judge.split
    backbone = find_backbone(str(weights))
    preprocessing = backbone_preprocessing(backbone, images.canvas)
    features = extract_features(
        images,
        build_backbone(backbone),
        f"{backbone.weights_sha256}",
        preprocessing,
        device=device,
        reporter=observer,
    )
    observer.stage("head", 1)
    head = fit_probe(features.values, images.labels, split.train, split.val, len(images.class_names))
    correct = head.logits(read_rows(features.values, split.test)).argmax(1) == images.labels[split.test]
    found = find_near_duplicates(images.images, split.test, pretrained_on.images, train)
    observer.advance(1)
    return {
        "data": images.name,
        "fingerprint": images.fingerprint,
        "input_size": preprocessing.input_size,
        "labels": len(split.train),
        "test_images": len(split.test),
        "probe_accuracy": _accuracy(correct),
        "near_duplicates": found.count,
        "probe_accuracy_without_near_duplicates": _accuracy(correct[found.correlation < SIMILAR]),
        "exact_duplicates": _exact_duplicates(images, split.test, pretrained_on, train),
    }


def _accuracy(correct: Booleans) -> float | None:
    """Rounded to four digits; `None` of no images."""
    return round(float(correct.mean()), 4) if len(correct) else None


def _exact_duplicates(images: ImageSet, test: Indices, pretrained_on: ImageSet, train: Indices) -> int | None:
    """Test images whose pixels are in the backbone's training set; `None` where no size is in both, so that none can be."""
    sizes, others = ({(size.width, size.height) for size in one.original_sizes} for one in (images, pretrained_on))
    if not sizes & others:
        return None
    return int(np.isin(images.image_hashes[test], pretrained_on.image_hashes[train]).sum())


def _few_labels(images: ImageSet, split: Split) -> Split:
    """At most 5,000 training images and 1,000 to choose the L2 on, stratified, the same ones every time."""
    classes = len(images.class_names)

    def fewer(part: Indices, most: int, purpose: str) -> Indices:
        if len(part) <= most:
            return part
        return part[draw_stratified(images.labels[part], classes, most, generator(0, "judge", purpose))]

    return replace(split, train=fewer(split.train, JUDGED_LABELS, "train"), val=fewer(split.val, _JUDGED_VAL, "val"))
