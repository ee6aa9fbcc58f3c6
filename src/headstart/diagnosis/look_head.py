"""The trained head beside a convex one on the same test images (21), a fine-tuned network beside a head on what it was before (11), and
whether a network's features have learned train by heart."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.analysis.diagnosis import Cell, Finding
from headstart.analysis.statistics import Estimate, bootstrap_accuracy, gap_estimate, paired_difference, wilson
from headstart.diagnosis.arrival import Arrival, not_understood
from headstart.diagnosis.examination import Control
from headstart.diagnosis.look_history import History, val_shares
from headstart.diagnosis.look_network import has_layers_of_its_own, is_as_published
from headstart.diagnosis.pipeline import Pipeline, network_before_tuning
from headstart.diagnosis.probing import cross_fitted, held_out
from headstart.diagnosis.prove import MeasuredCell, network_of_chance, stratified
from headstart.diagnosis.prove_predictions import in_points
from headstart.records import Booleans, Indices, Split

HEAD_BEHIND = 0.03
"""Chosen: a convex head must beat the trained one by this much to say that that is underfit."""

HEAD_CLEARED = 0.06
"""Chosen: a head that may be this far behind, by its interval, is not called trained to its end; on few images nobody can tell."""

_MOST_JUDGED = 2400  # chosen: of test, as many as a proof takes of train

_KNOWS_TRAIN = 0.05
"""Chosen: features that are worth so much more on train than on test, for certain, and beyond what random ones are."""


@dataclass(frozen=True)
class HeadProbe:
    """A convex head on the features of a pipeline as it is: which of the test images `part`, `(m,) int64`, it gets right, `(m,) bool`,
    and the number of labels that it was fitted on, its L2 included."""

    right: Booleans
    part: Indices
    labels: int


def probe_on_test(
    pipeline: Pipeline, cells: Mapping[Cell, MeasuredCell], sample: Indices, split: Split
) -> HeadProbe | None:
    """Fit a convex head on the sample and judge it on test, as the owner's head is; `None` where the pipeline cannot be made again.

    Args:
        pipeline: with any set of its faults.
        cells: measured on the sample; the one with all faults has kept its features.
        sample: `(n,) int64`, of train.
        split: of the data.
    """
    faults = frozenset(pipeline.factors)
    as_it_is = cells.get(faults)
    if as_it_is is None or as_it_is.features is None:
        return None
    images = pipeline.images
    part = split.test[np.isin(split.test, stratified(images, split.test, _MOST_JUDGED, "head"))]
    judged = pipeline.features(faults, part, own_images=sample)
    labels, classes = images.labels, len(images.class_names)
    right = held_out(as_it_is.features, labels[sample], judged, labels[part], classes)
    return HeadProbe(right, part, len(sample))


def look_at_head(
    own: Booleans | None, probe: HeadProbe | None, arrival: Arrival, split: Split
) -> tuple[Finding, Control | None, Estimate | None]:
    """Cause 21: the network's own head against a convex one on the same features, both on the same test images.

    Args:
        own: `(1, n) bool`, which test images the network gets right; `None` where it has no head.
        probe: the convex head.
        arrival: what arrives at the network, for the reason why there is no probe.
        split: of the data.

    Returns:
        The finding, the control, and the points by which the head is behind.
    """
    if own is None:
        return Finding(21, "could-not-look", "no-head", {}), None, None
    if probe is None:
        code, unclear = not_understood(arrival)
        return Finding(21, "could-not-look", code, unclear), None, None
    ours = own[:, np.isin(split.test, probe.part)]
    values = {
        "head": round(float(ours.mean()), 4),
        "probe": round(float(probe.right.mean()), 4),
        "labels": float(probe.labels),
    }
    behind = paired_difference(probe.right[None], ours)
    finding = judge_head(behind, values)
    control = Control("convex-head", bootstrap_accuracy(probe.right[None]), bootstrap_accuracy(ours), finding.code)
    return finding, control, in_points(behind)


def prove_fine_tuning(
    finding: Finding,
    own: Booleans | None,
    probe: HeadProbe | None,
    pipeline: Pipeline,
    sample: Indices,
    split: Split,
) -> Finding:
    """Cause 11: whether features are worth less than those of the published network, for a head on the same test images.

    Both heads are convex, fitted on the sample, and get the pixels as they are, so that faults of these and of the network's own head
    (21) are not counted here.

    Args:
        finding: what the training's curve shows of it.
        own: `(1, n) bool`, which test images the network gets right; `None` where it has no head.
        probe: a head on its features as they are.
        pipeline: of a network whose published weights are known.
        sample: `(n,) int64`, of train.
        split: of the data.

    Returns:
        Proved where the head on the published network is better than that on the network as it is, and than the network's own
        answers, for certain and by more than three points; its points are the smaller of the two. Suspected where that is certain of
        the answers alone, and the features are more than three points worse, though not for certain, or the head is not behind: then
        nobody can say whether it is the features or the head (21). Cleared where the network is less
        than six points worse for certain, no curve says otherwise, and it cannot know the test images. Else as it was, as it is in
        training mode, and where layers of its own were trained between the published ones and the head.
    """
    subject, images = pipeline.subject, pipeline.images
    if own is None or probe is None or subject.train_mode or has_layers_of_its_own(subject):
        return finding
    faults, before = frozenset(pipeline.factors), network_before_tuning(subject)
    learned, judged = (pipeline.features_through(before, faults, part) for part in (sample, probe.part))
    labels = images.labels
    right = held_out(learned, labels[sample], judged, labels[probe.part], len(images.class_names))
    ours = own[:, np.isin(split.test, probe.part)]
    losses = [paired_difference(right[None], other) for other in (ours, probe.right[None])]
    values = {"accuracy": round(float(ours.mean()), 4), "probe": round(float(right.mean()), 4)}
    certain = [is_head_behind(loss) for loss in losses]
    if all(certain):
        return Finding(11, "proved", "below-probe", values, in_points(min(losses, key=lambda loss: loss.mean)))
    behind = is_head_behind(paired_difference(probe.right[None], ours))
    if certain[0] and (losses[1].mean > HEAD_BEHIND or not behind):
        return Finding(11, "suspected", "below-probe", values, like=(21,))
    if finding.status == "could-not-look" and losses[0].high <= HEAD_CLEARED and split.origin != "drawn":
        return Finding(11, "cleared", "not-below-probe", values)
    return finding


def is_head_behind(behind: Estimate) -> bool:
    """Whether a head is behind a convex one for certain, and by more than three points."""
    return behind.low > 0 and behind.mean > HEAD_BEHIND


def judge_head(behind: Estimate, values: Mapping[str, float]) -> Finding:
    """Cause 21, from how far a head is behind a convex one, and from both accuracies, `head` and `probe`, and the probe's `labels`."""
    if is_head_behind(behind):
        return Finding(21, "proved", "head-below-probe", values, in_points(behind))
    if behind.high > HEAD_CLEARED:
        return Finding(21, "could-not-look", "head-unclear", values)
    return Finding(21, "cleared", "head-at-probe", values)


def overfit_or_behind(gap: Finding, head: Finding) -> tuple[Finding, Finding]:
    """Causes 22 and 21 of a head that is behind the convex one: one that knows its training images is not trained too little.

    The convex head's L2 was chosen by its loss on images that it had not seen, so that what it is ahead by is what regularization brings.

    Args:
        gap: what the network gets right on train and on others (22).
        head: the trained head beside the convex one (21).

    Returns:
        Both: overfitting proved with the points of the difference and the head cleared, where a gap is suspected and the head is right on
        at least as many of its training images as the convex one on test images; else as they were.
    """
    if gap.status != "suspected" or (head.status, head.code) != ("proved", "head-below-probe"):
        return gap, head
    values = {**gap.values, **head.values}
    if values["train"] < values["probe"]:
        return gap, head
    return (
        Finding(22, "proved", "regularised-head-better", values, head.points),
        Finding(21, "cleared", "head-knows-train", {"train": values["train"], "probe": values["probe"]}),
    )


def is_as_good(history: History, probe: HeadProbe | None) -> bool:
    """Whether a training's curve ends on val no worse than a convex head is on test: it learned little because there was little to learn.

    Args:
        history: with accuracies on val.
        probe: the convex head, where there is one.
    """
    val = val_shares(history)
    return (
        probe is not None
        and bool(val)
        and wilson(int(probe.right.sum()), len(probe.right)).low - val[-1] <= HEAD_BEHIND
    )


def knows_train(
    pipeline: Pipeline, cells: Mapping[Cell, MeasuredCell], probe: HeadProbe | None, sample: Indices
) -> bool:
    """Whether a network's features have learned the labels of train, though its weights do not tell that it was trained further.

    They are then worth far more on train than on test, which those of the same network with random weights are not: a test part of
    another kind, or images of train that resemble one another, show in both. A network that is as published has learned nothing here.

    Args:
        pipeline, cells, sample: as for `probe_on_test`.
        probe: what that gave.
    """
    faults = frozenset(pipeline.factors)
    if probe is None or is_as_published(pipeline.subject):
        return False
    correct = cells[faults].correct
    own = gap_estimate(list(correct), [probe.right] * len(correct))
    if own.low <= _KNOWS_TRAIN:
        return False
    images = pipeline.images
    labels, classes = images.labels, len(images.class_names)
    random = network_of_chance(pipeline, faults, sample)
    learned, judged = (pipeline.features_through(random, faults, part) for part in (sample, probe.part))
    on_train = cross_fitted(learned, labels[sample], classes).mean()
    on_test = held_out(learned, labels[sample], judged, labels[probe.part], classes).mean()
    return bool(own.low - (on_train - on_test) > _KNOWS_TRAIN)
