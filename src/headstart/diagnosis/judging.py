"""A pipeline on all data, failing and repaired: our recipes as trials, somebody's own network by a probe on its features."""

from dataclasses import dataclass, replace

import numpy as np

from headstart.analysis.diagnosis import Cell, Finding, Status
from headstart.analysis.statistics import Estimate, bootstrap_accuracy, paired_difference
from headstart.diagnosis.arrival import UNDERSTOOD
from headstart.diagnosis.examination import Control, Examination
from headstart.diagnosis.examine import HEAD_BEHIND
from headstart.diagnosis.look_history import gap_finding
from headstart.diagnosis.look_training import look_at_labels
from headstart.diagnosis.probing import held_out
from headstart.diagnosis.prove import stratified
from headstart.diagnosis.prove_predictions import in_points, prove_duplicates, prove_order, trained_on, twins
from headstart.diagnosis.prove_training import own_features
from headstart.models.backbones import Backbone
from headstart.records import Booleans, ImageSet, Indices, Recipe, Split, TrialResult
from headstart.study.kinds import Bench
from headstart.study.ledger import Ledger
from headstart.study.run import finished_trial
from headstart.training.engine import DivergedError

SEED = 0
"""Of the failing and the repaired trial."""

_MENDED_BY_A_PROBE = {12, 21}  # causes that the head alone suffers from
_MOST_LABELS, _MOST_JUDGED = 5000, 5000  # chosen: somebody's own network runs in PyTorch, image by image


@dataclass(frozen=True)
class Judged:
    """A pipeline on all data.

    Attributes:
        accuracy: on test.
        correct: `(S, n) bool`, which images it got right.
        labels: how many it learned from, where that is known.
        part: the `n` test images.
        trained: the images that it learned from, as far as they are known.
    """

    accuracy: Estimate
    correct: Booleans
    labels: int
    part: Indices
    trained: Indices


def judge_trial(result: TrialResult, split: Split) -> Judged:
    """What one of our trials got right on test."""
    return _judged(_correct(result), len(split.train), split.test, split.train)


def judge_failing(examination: Examination, images: ImageSet, split: Split) -> Judged:
    """The network's own predictions on test, where it has a head; otherwise the probe on its features."""
    if examination.predictions is not None:
        correct = (examination.predictions.argmax(1) == images.labels[split.test])[None]
        return _judged(correct, 0, split.test, trained_on(split))
    return judge_cell(examination, frozenset(examination.factors), images, split)


def judge_cell(examination: Examination, faults: Cell, images: ImageSet, split: Split) -> Judged:
    """The probe on the features of a pipeline with these faults, on as many labels and test images as take seconds."""
    train = stratified(images, split.train, _MOST_LABELS, "all labels")
    test = stratified(images, split.test, _MOST_JUDGED, "all judged")
    assert examination.remade is not None
    pipeline, labels = examination.remade.pipeline, images.labels
    if (
        examination.remade.arrival.fit < UNDERSTOOD
    ):  # nobody can make its pixels again: the network gets them from its owner
        features, judged = (own_features(pipeline.subject, images, part) for part in (train, test))
    else:
        pipeline.expect([faults], len(train) + len(test))
        features, judged = (pipeline.features(faults, part, own_images=train) for part in (train, test))
    correct = held_out(features, labels[train], judged, labels[test], len(images.class_names))[None]
    return _judged(correct, len(train), test, train)


def judge_repaired(examination: Examination, failing: Judged, images: ImageSet, split: Split) -> Judged | None:
    """Somebody's own network without the proved faults that its accuracy suffers from; `None` where there is none of these.

    Faults of the pipeline and of the head: the probe on the repaired features. Only the order of its classes: its own predictions,
    relabelled. Where duplicates flatter it (16), without the test images that have a copy in train.
    """
    proved = {finding.cause for finding in examination.findings if finding.status == "proved" and not finding.apart}
    in_pipeline = proved & set(examination.factors)
    if in_pipeline or proved & _MENDED_BY_A_PROBE:
        repaired = judge_cell(examination, frozenset(examination.factors) - in_pipeline, images, split)
    elif examination.relabelled is not None:
        repaired = _judged(examination.relabelled, failing.labels, failing.part, failing.trained)
    elif 16 in proved:
        repaired = failing
    else:
        return None
    return without_twins(repaired, images, split) if 16 in proved else repaired


def without_twins(judged: Judged, images: ImageSet, split: Split) -> Judged:
    """The same without the test images that have an exact copy among the training images."""
    alone = ~twins(images, judged.part, trained_on(split))
    if not alone.any():
        return judged
    return _judged(judged.correct[:, alone], judged.labels, judged.part[alone], judged.trained)


def with_duplicates(examination: Examination, failing: Judged, images: ImageSet) -> Examination:
    """How much duplicates flatter the failing accuracy (16); of relabelled predictions where the order was another.

    Args:
        examination: from the sample.
        failing: the pipeline as it is, on the whole data.
        images: the set.
    """
    finding = next(finding for finding in examination.findings if finding.cause == 16)
    correct = failing.correct if examination.relabelled is None else examination.relabelled
    return examination.with_findings([prove_duplicates(finding, correct, twins(images, failing.part, failing.trained))])


def with_training(
    examination: Examination,
    recipe: Recipe,
    result: TrialResult,
    bench: Bench,
    backbone: Backbone,
    ledger: Ledger,
) -> Examination:
    """What the failing trial itself says: its gap (22), its classes (15), its head (21), whether fine-tuning hurt it (11).

    Args:
        examination: from the sample.
        recipe, result: the failing recipe and its trial.
        bench, backbone, ledger: of its trials.
    """
    train, val = float(result.train_correct.mean()), float((result.val_logits.argmax(1) == result.val_labels).mean())
    classes = len(bench.images.class_names)
    answers = result.test_logits.argmax(1).astype(np.int64)
    order, _ = prove_order(look_at_labels(answers, result.test_labels, classes), answers, result.test_labels, classes)
    changed = [gap_finding(train, val), replace(order, apart=True)]
    controls = list(examination.controls)
    if recipe.kind == "finetune" or recipe.head == "gradient":
        probe = recipe.with_changes(name=f"{recipe.name}-convex", kind="probe", head="convex", epochs=0)
        try:
            other, _ = finished_trial(probe, backbone, bench, ledger, SEED)
        except DivergedError:  # a probe has no rate to diverge with; were it to, there is nothing to compare
            return examination.with_findings(changed)
        ours, theirs = _correct(result), _correct(other)
        better = paired_difference(theirs, ours)
        values = {"head": round(float(ours.mean()), 4), "probe": round(float(theirs.mean()), 4)}
        points = in_points(better)
        proved = better.low > 0 and better.mean > HEAD_BEHIND
        status: Status = "proved" if proved else "cleared"
        if recipe.kind == "finetune":
            code = "below-probe" if proved else "training-calm"
            seen = {"accuracy": values["head"], "probe": values["probe"]} if proved else {}
            # Apart: the repaired recipe leaves the rate to its owner.
            changed.append(Finding(11, status, code, seen, points if proved else None, apart=True))
        else:
            code = "head-below-probe" if proved else "head-at-probe"
            changed.append(Finding(21, status, code, values, points))
            controls.append(Control("convex-head", bootstrap_accuracy(theirs), bootstrap_accuracy(ours), code))
    return replace(examination.with_findings(changed), controls=tuple(controls))


def _judged(correct: Booleans, labels: int, part: Indices, trained: Indices) -> Judged:
    return Judged(bootstrap_accuracy(correct), correct, labels, part, trained)


def _correct(result: TrialResult) -> Booleans:
    right: Booleans = (result.test_logits.argmax(1) == result.test_labels)[None]
    return right
