"""An examination of predictions whose network is not there: what they, the data and the training's curve show."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.analysis.diagnosis import CATALOGUE, Finding, ranked
from headstart.diagnosis.copies import Copies, every_other
from headstart.diagnosis.examination import Examination
from headstart.diagnosis.look_history import (
    first_seen,
    look_at_history,
    look_at_learning,
    look_at_loss_curve,
    look_at_selection,
    measured_gap,
    val_shares,
)
from headstart.diagnosis.look_training import (
    look_at_duplicates,
    look_at_labels,
    look_at_loss,
    on_test,
    predicted_classes,
)
from headstart.diagnosis.prove_predictions import Classes, beside_curve, meanings, prove_order
from headstart.diagnosis.subject import Evidence
from headstart.records import Booleans, ImageSet, Split


def examine_predictions(evidence: Evidence, images: ImageSet, split: Split) -> Examination:
    """Look at predictions on test, and at what else was kept of the training that led to them; at a curve alone where there are none.

    Args:
        evidence: with predictions or a curve; a loss is looked at if it is there.
        images, split: the data that they are of.

    Returns:
        The examination: causes that can only be seen in a network could not be looked at. Mixed-up names (15) are judged beside
        what the network reached on val, by its curve; without one they are proved only where renaming recovers nine tenths of the way
        to half way between chance and perfect, which it does not for an untrained head.

    Raises:
        UsageError: the predictions are none of these images'.
    """
    started = time.perf_counter()
    classes = len(images.class_names)
    seen = [*look_at_history(evidence.history), look_at_learning(evidence.history, classes)]
    predicted: Classes | None = None
    relabelled: Booleans | None = None
    copies: Copies | None = None
    if evidence.predictions is None:
        seen.append(look_at_loss_curve(evidence.history, classes))
    else:
        predicted = predicted_classes(evidence.predictions, split.test, len(images.labels), classes)
        copies = Copies.sought(images, split, every_other(split))
        of_test, relabelled = _look_at_test(evidence, evidence.predictions, predicted, copies, split)
        seen += of_test
        order = next(one for one in of_test if one.cause == 15)
        seen = [
            first_seen(one, _gap(evidence.predictions, order, images, split)) if one.cause == 22 else one
            for one in seen
        ]
    found = {cause: Finding(cause, "could-not-look", "no-network", {}) for cause in CATALOGUE}
    found |= {one.cause: one for one in seen if one.code not in ("no-outputs", "no-head")}
    return Examination(
        findings=tuple(ranked(list(found.values()))),
        remade=None,
        predictions=None if predicted is None else np.eye(classes, dtype=np.float32)[predicted],
        look_seconds=time.perf_counter() - started,
        prove_seconds=0.0,
        relabelled=relabelled,
        copies=copies,
        meant=None
        if relabelled is None or predicted is None
        else meanings(predicted, images.labels[split.test], classes),
    )


def _gap(given: npt.NDArray[Any], order: Finding, images: ImageSet, split: Split) -> Finding:
    """Cause 22 from predictions of all images of the data, where its test part is its own; mixed-up names (15) would hide a gap."""
    if len(given) != len(images.labels) or split.origin == "drawn" or order.status != "cleared":
        return Finding(22, "could-not-look", "no-history", {})
    train, test = (
        predicted_classes(given, part, len(images.labels), len(images.class_names)) == images.labels[part]
        for part in (split.train, split.test)
    )
    return measured_gap(train, test)


def _look_at_test(
    evidence: Evidence, given: npt.NDArray[Any], predicted: Classes, copies: Copies, split: Split
) -> tuple[list[Finding], Booleans | None]:
    """What predictions on test show; and which of them are right once relabelled, where mixed-up names are proved."""
    images = copies.images
    labels, classes = images.labels[split.test], len(images.class_names)
    outputs = on_test(given, split.test, len(images.labels))
    scores = outputs if outputs.ndim == 2 and outputs.shape[1] == classes else None
    val = max(val_shares(evidence.history), default=None)
    reached = (1 + 1 / classes) / 2 if val is None else val
    order, relabelled = prove_order(look_at_labels(predicted, labels, classes), predicted, labels, classes, reached)
    seen = [
        first_seen(look_at_loss(evidence.loss, scores, classes), look_at_loss_curve(evidence.history, classes)),
        beside_curve(order, predicted, labels, val),
        look_at_duplicates(copies.twins(copies.test, copies.trained)),
        look_at_selection(evidence.history, scores, predicted == labels, labels),
    ]
    return seen, relabelled
