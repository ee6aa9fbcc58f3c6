"""How good a pretrained backbone is on a data set that took no part in its training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.data.near_duplicates import SIMILAR, find_near_duplicates
from headstart.data.splits import draw_stratified, make_split
from headstart.models.backbones import build_backbone, find_backbone
from headstart.randomness import generator
from headstart.records import ImageSet, Indices, Split
from headstart.study.observer import Observer
from headstart.study.planning import backbone_preprocessing
from headstart.training.features import extract_features
from headstart.training.probe import fit_probe

JUDGED_LABELS = 5000
"""Training images of a judged set that the probe may see; the number that docs/small-images.md compares at."""

_JUDGED_VAL = 1000


def judge_backbone(
    images: ImageSet, weights: Path, pretrained_on: ImageSet, train: Indices, device: torch.device, observer: Observer
) -> dict[str, Any]:
    """A linear probe on a data set that took no part in the training, and near duplicates between the two."""
    split, _ = make_split(images)
    few = _few_labels(images, split)
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
    head = fit_probe(
        np.asarray(features.values[few.train]),
        images.labels[few.train],
        np.asarray(features.values[few.val]),
        images.labels[few.val],
        len(images.class_names),
    )
    correct = head.logits(np.asarray(features.values[split.test])).argmax(1) == images.labels[split.test]
    found = find_near_duplicates(images.images, split.test, pretrained_on.images, train)
    observer.advance(1)
    similar = found.correlation >= SIMILAR
    return {
        "data": images.name,
        "fingerprint": images.fingerprint,
        "input_size": preprocessing.input_size,
        "labels": len(few.train),
        "test_images": len(split.test),
        "probe_accuracy": round(float(correct.mean()), 4),
        "near_duplicates": found.count,
        "probe_accuracy_without_near_duplicates": round(float(correct[~similar].mean()), 4),
        "exact_duplicates": _exact_duplicates(images, split.test, pretrained_on, train),
    }


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
