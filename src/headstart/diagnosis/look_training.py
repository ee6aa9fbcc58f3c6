"""Looking at how the network was trained and judged, from what its owner handed over (causes 6, 14 to 16, 18, 19)."""

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from headstart.analysis.diagnosis import Finding, best_assignment
from headstart.analysis.metrics import confusion_matrix
from headstart.diagnosis.copies import Twins
from headstart.diagnosis.flat_colours import measure_flat_colours
from headstart.diagnosis.subject import Loss, Prepare, Subject
from headstart.errors import UsageError
from headstart.models.weights import read_weights_file
from headstart.records import Images, ImageSet, Indices, Labels

_PERMUTED = 0.10  # chosen: points gained by the best relabelling; from chance alone it gains less with 10 or more images a class
_LOSS_FLOOR = 0.1  # chosen: share of ln(classes) below which a perfect answer's loss must lie
_SURE = 50.0  # a logit so large that softmax gives the class probability one
_DUPLICATED = 0.01  # chosen: share of test images with a twin in train from which an accuracy is flattered
_DIFFERENT = 1e-3  # relative: what float arithmetic in another order explains
_DRAWN = 0.02  # chosen: deviations of the pixels; one level in one pixel moves a plain path's output by less than a thousandth

TRAINED_IN_ANOTHER_RANGE, TRAINED_IN_ANOTHER_ORDER = "training-range-differs", "training-order-differs"
"""Codes of cause 6 where it is training's path that differs from the evaluation's."""


def look_at_paths(subject: Subject, images: Images) -> Finding:
    """Cause 6: whether the serving path gives the same input as the evaluation's, and training's the same range and channel order."""
    serve, augment = subject.evidence.serve, subject.evidence.augment
    served = _look_at_serving(subject, serve, images) if serve is not None else None
    if augment is None or (served is not None and served.status == "suspected"):
        return served or Finding(6, "could-not-look", "one-path", {})
    trained = _look_at_training_path(subject, augment, images.shape[1])
    return trained if served is None or trained.status == "suspected" else served


def look_at_augmentation(subject: Subject, images: Images) -> Finding:
    """Cause 19: whether augmentation is drawn anew each time.

    Two epochs that are alike are no fault where nothing is drawn. That something is shows in images that differ by one level in one pixel,
    or in one image twice in a batch, if they become quite different inputs: then the draws are kept.
    """
    augment = subject.evidence.augment
    if augment is None:
        return Finding(19, "could-not-look", "no-training-path", {})
    first, second = augment(images), augment(images)
    if first.shape != second.shape or not torch.equal(first, second):
        return Finding(19, "cleared", "epochs-differ", {})
    if torch.equal(first, subject.prepare(images)):
        return Finding(19, "cleared", "no-augmentation", {})
    # Equal draws in another range or order: a path without augmentation, or one whose draws are cached; the pixels do not tell.
    if _look_at_training_path(subject, augment, images.shape[1]).status == "suspected":
        return Finding(19, "could-not-look", "training-path-differs", {})
    if _draws_something(augment, images, first):
        return Finding(19, "proved", "draws-are-kept", {})
    return Finding(19, "suspected", "epochs-identical", {})


def _draws_something(augment: Prepare, images: Images, first: torch.Tensor) -> bool:
    """Whether a path that gives the same images equal inputs draws at random for others: ones that nobody could tell from them."""
    nudged = images.copy()
    nudged[:, 0, 0, 0] ^= 1
    twice = augment(np.repeat(images[:1], 2, axis=0))
    again = augment(nudged)
    scale = float(first.std()) or 1.0
    moved = float((again - first).abs().mean()) / scale if again.shape == first.shape else math.inf
    apart = float((twice[0] - twice[1]).abs().mean()) / scale if len(twice) == 2 else 0.0
    return max(moved, apart) > _DRAWN


def _look_at_serving(subject: Subject, serve: Prepare, images: Images) -> Finding:
    ours, theirs = subject.prepare(images), serve(images)
    if ours.shape != theirs.shape:
        shapes = {"first": str(tuple(ours.shape[1:])), "second": str(tuple(theirs.shape[1:]))}
        return Finding(6, "suspected", "paths-differ-in-shape", shapes)
    scale = float(ours.std()) or 1.0
    difference = float((ours - theirs).abs().mean()) / scale
    if difference > _DIFFERENT:
        return Finding(6, "suspected", "paths-differ", {"difference": round(difference, 3)})
    return Finding(6, "cleared", "paths-equal", {})


def _look_at_training_path(subject: Subject, augment: Prepare, side: int) -> Finding:
    """What training and evaluation make of images of one colour, which random crops and mirrorings leave alone."""
    ours, theirs = measure_flat_colours(subject.prepare, side), measure_flat_colours(augment, side)
    if ours is None or theirs is None:
        return Finding(6, "could-not-look", "training-not-compared", {})
    values = {"low": round(ours.low, 3), "high": round(ours.high, 3)}
    if not ours.same_range(theirs):
        values |= {"train_low": round(theirs.low, 3), "train_high": round(theirs.high, 3)}
        return Finding(6, "suspected", TRAINED_IN_ANOTHER_RANGE, values)
    if not ours.same_order(theirs):
        return Finding(6, "suspected", TRAINED_IN_ANOTHER_ORDER, {"order": ours.order, "train_order": theirs.order})
    return Finding(6, "cleared", "training-alike", values)


def look_at_loss(loss: Loss | None, outputs: npt.NDArray[np.floating] | None, classes: int) -> Finding:
    """Cause 14: whether the loss can come near zero on the best outputs that the network can give.

    Softmax before a cross-entropy that takes logits never can: with one class at probability 1 its loss is still
    ln(e + C - 1) - 1.

    Args:
        loss: its owner's.
        outputs: `(n, C)` of the network, or `(n, 1)` where it gives two classes one score; the loss gets as many columns.
        classes: number of classes.

    Raises:
        UsageError: the loss fails on such outputs.
    """
    if loss is None or outputs is None:
        return Finding(14, "could-not-look", "no-outputs", {})
    labels = torch.arange(min(classes, 64))
    perfect, bounded = _perfect_answers(labels, outputs, classes)
    try:
        floor = float(loss(perfect, labels))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise UsageError(
            f"`loss` failed on outputs {tuple(perfect.shape)} and labels {tuple(labels.shape)}: {error}"
        ) from error
    chance = math.log(classes)
    if floor < -_LOSS_FLOOR * chance:
        return Finding(14, "suspected", "loss-below-zero", {"loss": round(floor, 3)})
    if not math.isfinite(floor) or floor > _LOSS_FLOOR * chance:
        if bounded:
            return Finding(14, "suspected", "outputs-are-probabilities", {})
        if not math.isfinite(floor):
            return Finding(14, "suspected", "perfect-loss-not-finite", {})
        return Finding(14, "suspected", "first-loss-off", {"loss": round(floor, 3), "expected": 0.0})
    return Finding(14, "cleared", "loss-fits", {})


def _perfect_answers(
    labels: torch.Tensor, outputs: npt.NDArray[np.floating], classes: int
) -> tuple[torch.Tensor, bool]:
    """Outputs that are right and as sure as a network's can be, in its own columns; and whether these are bounded by 0 and 1.

    Raw scores are far below zero for the wrong classes, too: a loss of one class against the rest wants that.
    """
    right = torch.nn.functional.one_hot(labels, classes).float()
    if outputs.shape[1] == 1:
        right = right[:, 1:]
    if (outputs >= 0).all() and (outputs <= 1).all():
        return right, True
    log_probabilities = bool((outputs <= 0).all()) and bool(np.abs(np.exp(outputs).sum(1) - 1).max() < 1e-3)
    return _SURE * (right - 1 if log_probabilities else 2 * right - 1), False


def look_at_labels(predicted: npt.NDArray[np.int64] | None, labels: Labels, classes: int) -> Finding:
    """Cause 15: whether a relabelling of the classes would recover accuracy."""
    if predicted is None:
        return Finding(15, "could-not-look", "no-predictions", {})
    as_is, relabelled = best_assignment(confusion_matrix(labels, predicted, classes))
    values = {"accuracy": round(as_is, 4), "permuted": round(relabelled, 4)}
    if relabelled - as_is > _PERMUTED:
        return Finding(15, "suspected", "permutation-recovers", values)
    return Finding(15, "cleared", "labels-in-order", {})


def look_at_duplicates(twins: Twins) -> Finding:
    """Cause 16: how many test images have a copy among those that the network was trained on.

    Args:
        twins: of the test images.
    """
    count = int(twins.alike.sum())
    values = {"count": count, "share": round(count / max(len(twins.alike), 1), 4)}
    if count and count >= _DUPLICATED * len(twins.alike):
        return Finding(16, "suspected", "duplicates-across" if twins.are_equal else "copies-across", values)
    return Finding(16, "cleared", "no-copies" if twins.could_be_told else "no-duplicates", values)


def look_at_overlap(subject: Subject, images: ImageSet) -> Finding:
    """Cause 18: only a backbone whose file says what it was judged on can answer."""
    path = subject.published.path if subject.published is not None else None
    judged_on = json.loads(read_weights_file(path).metadata.get("judged", "[]")) if path is not None else []
    for one in judged_on:
        if one["fingerprint"] == images.fingerprint:
            count = max(one["exact_duplicates"] or 0, one["near_duplicates"])  # what is exact is near, too
            if count > _DUPLICATED * one["test_images"]:
                return Finding(18, "suspected", "knows-test-images", {"count": count})
            return Finding(18, "cleared", "pretraining-apart", {"count": count})
    return Finding(18, "could-not-look", "pretraining-not-known", {})


def middle_score(scores: npt.NDArray[np.floating]) -> float:
    """The score of the second of two classes from which it is the answer: of logits 0, of probabilities (all from 0 to 1) a half."""
    return 0.5 if scores.min() >= 0 and scores.max() <= 1 else 0.0


def on_test(outputs: npt.NDArray[Any], test: Indices, images: int) -> npt.NDArray[Any]:
    """The rows of the test images, `(t, C)` or `(t,)`, of outputs for them alone or for all images of the data, in its order.

    Raises:
        UsageError: their number is another.
    """
    if outputs.ndim in (1, 2) and len(outputs) == images:
        return outputs[test]
    if outputs.ndim not in (1, 2) or len(outputs) != len(test):
        raise UsageError(
            f"The predictions have shape {outputs.shape}, the test part has {len(test)} images and the data {images}. Give one row "
            "for each test image, or one for each image of the data (where the data has no test part of its own), in its order."
        )
    return outputs


def predicted_classes(outputs: npt.NDArray[Any], test: Indices, images: int, classes: int) -> npt.NDArray[np.int64]:
    """Classes from `(n, C)` outputs, `(n,)` classes, or of two classes the scores or probabilities of the second, `(n,)` or `(n, 1)`.

    Args:
        outputs: a row for each test image, or for each image of the data, in its order.
        test: `(t,) int64`, the test images' places in the data.
        images: how many the data has.
        classes: number of classes.

    Returns:
        `(t,) int64`.

    Raises:
        UsageError: their number is another, or they are neither outputs nor classes.
    """
    outputs = on_test(outputs, test, images)
    if outputs.ndim == 2 and outputs.shape[1] == classes:
        return np.asarray(outputs.argmax(1), np.int64)
    if outputs.ndim == 2 and outputs.shape[1] != 1:
        raise UsageError(
            f"The predictions have {outputs.shape[1]} columns, and the data has {classes} classes. Give one column for each class "
            "(leave out names and row numbers), or one with the predicted class."
        )
    values = outputs.reshape(-1)
    if classes == 2 and not np.array_equal(values, np.rint(values)):
        return np.asarray(values > middle_score(values), np.int64)
    if not np.array_equal(values, np.rint(values)) or values.min() < 0 or values.max() >= classes:
        raise UsageError(
            f"Predicted classes are whole numbers from 0 to {classes - 1}; these lie between {values.min():g} and "
            f"{values.max():g}."
        )
    return np.asarray(values, np.int64)
