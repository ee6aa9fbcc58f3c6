"""Proving what predictions on test show: classes in another order (15), duplicates that flatter (16)."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from headstart.analysis.diagnosis import LEAST_POINTS, Finding, best_meanings, judged
from headstart.analysis.metrics import confusion_matrix
from headstart.analysis.statistics import Estimate, gap_estimate, paired_difference, wilson
from headstart.diagnosis.copies import Twins
from headstart.randomness import generator
from headstart.records import Booleans, Labels, Logits

Classes = npt.NDArray[np.int64]

_ONE_NETWORK = 0.99  # chosen: predictions that agree so often are one network's, on two machines

_DISAGREE = 0.01  # chosen: so much less, for certain, than the network itself gets right
_BELOW_CURVE = 0.15  # chosen: val and test of one data set lie closer together than this

_RECOVERED = 0.9
"""Chosen: of the way from the accuracy as it stands to a convex head's, what relabelling must recover. Mixed-up names lose the whole
way and get it back; an untrained head of ten classes gets a third of it."""


def prove_order(
    finding: Finding, predicted: Classes | None, labels: Labels, classes: int, probe: float | None = None
) -> tuple[Finding, Booleans | None]:
    """Cause 15: points that a relabelling recovers on predictions that it was not chosen on.

    Each half of the predictions is relabelled as is best for the other half, so that nothing is gained by chance.

    Args:
        finding: from the look.
        predicted, labels: of the test images.
        classes: number of classes.
        probe: what a convex head reaches on the same features, 0..1, where that is known. An untrained head, too, gets better by
            being relabelled, but not nearly as good as that: then nobody can say whether its classes were mixed up or never learned.

    Returns:
        The finding, judged, and which images are right once relabelled, `(1, n) bool`: `None` if that is not proved.
    """
    if finding.status != "suspected" or predicted is None:
        return finding, None
    drawn = generator(0, "diagnosis", "halves").permutation(len(labels))
    halves = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    relabelled = np.zeros(len(labels), bool)
    for chosen_on, used_on in (halves, halves[::-1]):
        meant = meanings(predicted[chosen_on], labels[chosen_on], classes)
        relabelled[used_on] = meant[predicted[used_on]] == labels[used_on]
    plain = predicted == labels
    found = judged(finding, in_points(paired_difference(relabelled[None], plain[None])))
    if probe is not None and relabelled.mean() - plain.mean() < _RECOVERED * (probe - plain.mean()):
        unsure = found.status != "cleared"
        found = replace(found, status="suspected", points=None, like=(21,)) if unsure else found
    untrained = found.like == (21,)
    values = {"accuracy": round(float(plain.mean()), 4), "permuted": round(float(relabelled.mean()), 4)}
    code = "permutation-or-untrained" if untrained else "permutation-recovers"
    code = "permutation-by-chance" if found.status == "cleared" else code
    return replace(found, code=code, values=values), relabelled[None] if found.status == "proved" else None


def meanings(predicted: Classes, labels: Labels, classes: int) -> Classes:
    """What each predicted class means, `(C,) int64`, by all predictions: the relabelling that makes most of them right."""
    return best_meanings(confusion_matrix(labels, predicted, classes))


def prove_own_order(
    finding: Finding,
    predictions: Logits | None,
    predicted: Classes | None,
    labels: Labels,
    classes: int,
    probe: float | None,
) -> tuple[Finding, Booleans | None]:
    """Cause 15, and whether it is a fault of the network's own predictions or only of those that its owner keeps.

    Args:
        finding: from the look.
        predictions: the network's own outputs on test, where it has a head.
        predicted: the classes that its owner says it predicts there, otherwise its own.
        labels, classes, probe: as for `prove_order`.

    Returns:
        The finding, judged, and which of the network's own predictions are right once relabelled, `(1, n) bool`: `None` if that
        is not proved of them. The points of others lie apart: the accuracy that is diagnosed is not theirs.
    """
    found, relabelled = prove_order(finding, predicted, labels, classes, probe)
    if predictions is None or predicted is None:
        return replace(found, apart=True), None
    own = predictions.argmax(1)
    if (own == predicted).mean() >= _ONE_NETWORK:
        return found, relabelled
    lost = paired_difference((own == labels)[None], (predicted == labels)[None])
    if found.status == "cleared" and lost.low > _DISAGREE:
        accuracies = {
            "accuracy": round(float((predicted == labels).mean()), 4),
            "own": round(float((own == labels).mean()), 4),
        }
        found = Finding(15, "suspected", "evaluations-disagree", accuracies)
    return replace(found, apart=True), None


def beside_curve(finding: Finding, predicted: Classes, labels: Labels, val: float | None) -> Finding:
    """Cause 15 of predictions whose network is not there: whether they are far worse than its curve says of val.

    Args:
        finding: judged; only a cleared one is looked at again.
        predicted, labels: of the test images.
        val: the best accuracy of the curve on val, 0..1; `None` where there is none.
    """
    right = predicted == labels
    if finding.status != "cleared" or val is None or val - wilson(int(right.sum()), len(right)).high <= _BELOW_CURVE:
        return finding
    values = {"accuracy": round(float(right.mean()), 4), "val": round(val, 4)}
    return replace(finding, status="suspected", code="far-below-curve", values=values)


def prove_duplicates(finding: Finding, correct: Booleans, twins: Twins) -> Finding:
    """Cause 16: accuracy on all test images against that without those that have a copy in train.

    The copies' share times what they are easier by. The points are negative, since repairing this takes them away: they were not
    deserved. If they are there for certain, those of copies with the same pixels count whatever their size; others, which may be easier
    for a reason of their own (a plain background), from one point.

    Args:
        finding: from the look.
        correct: `(S, n) bool`, of the test images.
        twins: of them, those with a copy among the images that the network was trained on.
    """
    if finding.status != "suspected":
        return finding
    of_all, of_equal = _added(correct, twins.alike), _added(correct, twins.equal)
    if of_all is None:
        return finding
    counts = of_all.high < 0 and of_all.mean <= -LEAST_POINTS
    if of_equal is not None and of_equal.high < 0 and not counts:
        found = _flattering(finding, correct, twins.equal, of_equal, "duplicates-flatter")
        return replace(found, status="proved")
    code = "duplicates-flatter" if twins.are_equal else "copies-flatter"
    found = _flattering(finding, correct, twins.alike, of_all, code)
    if counts:
        return replace(found, status="proved")
    return replace(found, status="cleared") if of_all.low > -LEAST_POINTS else found


def rule_out_duplicates(finding: Finding, correct: Booleans, twins: Twins, learned: Twins) -> Finding:
    """Cause 16 of a probe that learned from a part of the training images, and so from a part of the copies.

    How much easier the copies are that it learned from, times the share of all copies, is what all of them would add. Where that is
    less than a point for certain, duplicates are cleared; otherwise they stay as suspected as they were.

    Args:
        finding: from the look.
        correct: `(S, n) bool`, of the test images.
        twins: of them, those with a copy among all training images.
        learned: those with a copy among the images that the probe learned from.
    """
    told = learned.alike | ~twins.alike
    added = _added(correct[:, told], learned.alike[told], share=float(twins.alike.mean()))
    if finding.status != "suspected" or added is None or added.low <= -LEAST_POINTS:
        return finding
    values = {**finding.values, "learned": int(learned.alike.sum())}
    return replace(finding, status="cleared", code="copies-add-little", values=values, points=added)


def proved_twins(finding: Finding, twins: Twins) -> Booleans:
    """Which of the copies a finding that is proved speaks of: `(n,) bool`, of the test images."""
    return twins.equal if finding.code == "duplicates-flatter" else twins.alike


def _flattering(finding: Finding, correct: Booleans, copied: Booleans, points: Estimate, code: str) -> Finding:
    values = {
        "count": int(copied.sum()),
        "share": round(float(copied.mean()), 4),
        "accuracy": round(float(correct.mean()), 4),
        "without": round(float(correct[:, ~copied].mean()), 4),
    }
    return replace(finding, code=code, values=values, points=points)


def _added(correct: Booleans, copied: Booleans, share: float | None = None) -> Estimate | None:
    """The points, below zero, that go with these test images, or with another share of such; `None` where there are none of them, or
    no others.
    """
    if not copied.any() or copied.all():
        return None
    easier = gap_estimate(list(correct[:, copied]), list(correct[:, ~copied]))
    share = float(copied.mean()) if share is None else share
    mean, low, high = (-100 * share * value for value in (easier.mean, easier.high, easier.low))
    return Estimate(mean, low, high, easier.method)


def in_points(share: Estimate) -> Estimate:
    """A difference of accuracies in percentage points."""
    return Estimate(100 * share.mean, 100 * share.low, 100 * share.high, share.method)
