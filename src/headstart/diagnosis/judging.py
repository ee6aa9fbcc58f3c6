"""A pipeline on all data, failing and repaired: our recipes as trials, somebody's own network by a probe on its features."""

from dataclasses import dataclass, replace

from headstart.analysis.diagnosis import Cell, Finding, Status
from headstart.analysis.statistics import Estimate, bootstrap_accuracy, paired_difference
from headstart.diagnosis.examine import HEAD_BEHIND, Control, Examination
from headstart.diagnosis.look_training import gap_finding
from headstart.diagnosis.probing import held_out
from headstart.diagnosis.prove import stratified
from headstart.models.backbones import Backbone
from headstart.records import Booleans, ImageSet, Recipe, Split, TrialResult
from headstart.study.kinds import Bench
from headstart.study.ledger import Ledger
from headstart.study.run import finished_trial
from headstart.training.engine import DivergedError

SEED = 0
"""Of the failing and the repaired trial."""

_MOST_LABELS, _MOST_JUDGED = 5000, 5000  # chosen: somebody's own network runs in PyTorch, image by image


@dataclass(frozen=True)
class Judged:
    """A pipeline on all data: its accuracy, which images it got right `(S, n)`, and how many labels it learned from."""

    accuracy: Estimate
    correct: Booleans
    labels: int


def judge_trial(result: TrialResult, split: Split) -> Judged:
    """What one of our trials got right on test."""
    correct = _correct(result)
    return Judged(bootstrap_accuracy(correct), correct, len(split.train))


def judge_failing(examination: Examination, images: ImageSet, split: Split) -> Judged:
    """The network's own predictions on test, where it has a head; otherwise the probe on its features."""
    if examination.predictions is not None:
        correct = (examination.predictions.argmax(1) == images.labels[split.test])[None]
        return Judged(bootstrap_accuracy(correct), correct, 0)
    return judge_cell(examination, frozenset(examination.factors), images, split)


def judge_cell(examination: Examination, faults: Cell, images: ImageSet, split: Split) -> Judged:
    """The probe on the features of a pipeline with these faults, on as many labels and test images as take seconds."""
    train = stratified(images, split.train, _MOST_LABELS, "all labels")
    test = stratified(images, split.test, _MOST_JUDGED, "all judged")
    pipeline, labels = examination.pipeline, images.labels
    pipeline.expect([faults], len(train) + len(test))
    features, judged = (pipeline.features(faults, part, own_images=train) for part in (train, test))
    correct = held_out(features, labels[train], judged, labels[test], len(images.class_names))[None]
    return Judged(bootstrap_accuracy(correct), correct, len(train))


def with_training(
    examination: Examination,
    recipe: Recipe,
    result: TrialResult,
    bench: Bench,
    backbone: Backbone,
    ledger: Ledger,
) -> Examination:
    """What the failing trial itself says: its gap (22), its head (21), and whether fine-tuning made it worse (11).

    Args:
        examination: from the sample.
        recipe, result: the failing recipe and its trial.
        bench, backbone, ledger: of its trials.
    """
    train, val = float(result.train_correct.mean()), float((result.val_logits.argmax(1) == result.val_labels).mean())
    changed = [gap_finding(train, val)]
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
        points = Estimate(100 * better.mean, 100 * better.low, 100 * better.high, better.method)
        proved = better.low > 0 and better.mean > HEAD_BEHIND
        status: Status = "proved" if proved else "cleared"
        if recipe.kind == "finetune":
            code = "below-probe" if proved else "training-calm"
            seen = {"accuracy": values["head"], "probe": values["probe"]} if proved else {}
            changed.append(Finding(11, status, code, seen, points if proved else None))
        else:
            code = "head-below-probe" if proved else "head-at-probe"
            changed.append(Finding(21, status, code, values, points))
            controls.append(Control("convex-head", bootstrap_accuracy(theirs), bootstrap_accuracy(ours), code))
    return replace(examination.with_findings(changed), controls=tuple(controls))


def _correct(result: TrialResult) -> Booleans:
    right: Booleans = (result.test_logits.argmax(1) == result.test_labels)[None]
    return right
