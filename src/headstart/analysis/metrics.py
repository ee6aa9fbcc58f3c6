"""Classification metrics from labels and logits; each equals its counterpart in scikit-learn."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.records import Indices, Labels, Logits

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1 averaged over classes."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassReport:
    """Per-class measures, `(C,)` each, and their averages; a measure that would divide by zero is 0."""

    precision: Floats
    recall: Floats
    f1: Floats
    support: Counts
    macro: Averages
    weighted: Averages
    balanced_accuracy: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence lies in `(low, high]`: how many, their mean confidence, and how many of them are right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Confusion:
    """How often the class `true` was taken for `predicted`; `share` of the true class's images."""

    true: int
    predicted: int
    count: int
    share: float


def softmax(logits: Logits) -> Floats:
    """Return `(n, C) float64` probabilities; rows sum to 1."""
    return np.asarray(np.exp(log_softmax(logits)))


def log_softmax(logits: Logits) -> Floats:
    """Return `(n, C) float64` logarithms of the probabilities, without overflow."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def predicted_classes(logits: Logits) -> Labels:
    """Return `(n,) int64`: the class of the largest logit, the first one of equals."""
    return np.asarray(logits.argmax(axis=1), np.int64)


def accuracy(labels: Labels, logits: Logits) -> float:
    """Return the share of images whose largest logit is their label's."""
    _check(labels, logits)
    return float((predicted_classes(logits) == labels).mean())


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> Counts:
    """Return `(C, C) int64` counts: rows are true classes, columns predicted ones.

    Raises:
        ValueError: the arrays differ in length, or hold something that is not one of the classes.
    """
    if labels.shape != predicted.shape:
        raise ValueError(f"labels and predictions differ in shape: {labels.shape} and {predicted.shape}.")
    if len(labels) and not (min(labels.min(), predicted.min()) >= 0 and max(labels.max(), predicted.max()) < classes):
        raise ValueError(f"labels and predictions must lie in 0..{classes - 1}.")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def class_report(labels: Labels, predicted: Labels, classes: int) -> ClassReport:
    """Return precision, recall, F1 and support per class and averaged, as scikit-learn's `classification_report` does."""
    matrix = confusion_matrix(labels, predicted, classes).astype(np.float64)
    hits, support, claimed = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall = _ratio(hits, claimed), _ratio(hits, support)
    f1 = _ratio(2 * precision * recall, precision + recall)
    present = (support + claimed) > 0

    def averages(weights: Floats) -> Averages:
        return Averages(*(float(np.average(measure, weights=weights)) for measure in (precision, recall, f1)))

    return ClassReport(
        precision,
        recall,
        f1,
        support.astype(np.int64),
        averages(present.astype(np.float64)),
        averages(support),
        float(recall[support > 0].mean()),
    )


def log_loss(labels: Labels, logits: Logits) -> float:
    """Return the mean negative log probability of the true class, in nats."""
    _check(labels, logits)
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def reliability(labels: Labels, logits: Logits, bins: int = 15) -> tuple[ReliabilityBin, ...]:
    """Sort predictions by their confidence into equal-width bins (Guo et al. 2017, "On calibration of modern neural networks")."""
    _check(labels, logits)
    probabilities = softmax(logits)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    found = []
    for index in range(bins):
        inside = place == index
        count = int(inside.sum())
        found.append(
            ReliabilityBin(
                float(edges[index]),
                float(edges[index + 1]),
                count,
                float(confidence[inside].mean()) if count else 0.0,
                float(right[inside].mean()) if count else 0.0,
            )
        )
    return tuple(found)


def expected_calibration_error(labels: Labels, logits: Logits, bins: int = 15) -> float:
    """Return the mean distance of confidence and accuracy over the bins, weighted by their counts (Guo et al. 2017, equation 3)."""
    total = len(labels)
    return sum(item.count / total * abs(item.confidence - item.accuracy) for item in reliability(labels, logits, bins))


def top_confusions(matrix: Counts, limit: int = 10) -> tuple[Confusion, ...]:
    """Return the most frequent pairs of true and wrongly predicted class, most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = [(int(place // len(matrix)), int(place % len(matrix))) for place in order]
    return tuple(
        Confusion(true, predicted, int(wrong[true, predicted]), float(wrong[true, predicted] / matrix[true].sum()))
        for true, predicted in pairs
        if wrong[true, predicted] > 0
    )


def most_confident_mistakes(labels: Labels, logits: Logits, limit: int = 12) -> Indices:
    """Return the positions of the wrong predictions, the most confident first."""
    _check(labels, logits)
    probabilities = softmax(logits)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    order = np.argsort(-probabilities[wrong].max(axis=1), kind="stable")
    return wrong[order[:limit]].astype(np.int64)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _check(labels: Labels, logits: Logits) -> None:
    if logits.ndim != 2 or labels.shape != (len(logits),) or len(labels) == 0:
        raise ValueError(f"expected labels (n,) and logits (n, C) with n >= 1, got {labels.shape} and {logits.shape}.")
    if not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(f"labels must lie in 0..{logits.shape[1] - 1}.")
