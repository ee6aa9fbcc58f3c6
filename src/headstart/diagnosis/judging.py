"""A pipeline on test, failing and repaired: our recipes as trials, somebody's own network by a probe on its features."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from headstart.analysis.diagnosis import Cell, Finding
from headstart.analysis.statistics import Estimate, bootstrap_accuracy, paired_difference
from headstart.diagnosis.copies import every_other
from headstart.diagnosis.examination import Control, Examination
from headstart.diagnosis.look_head import HEAD_CLEARED, is_head_behind, judge_head, overfit_or_behind
from headstart.diagnosis.look_history import History, look_at_history, measured_gap, val_shares
from headstart.diagnosis.pipeline import network_before_tuning
from headstart.diagnosis.probing import held_out
from headstart.diagnosis.prove import stratified
from headstart.diagnosis.prove_predictions import in_points, prove_duplicates, proved_twins, rule_out_duplicates
from headstart.diagnosis.prove_training import own_features
from headstart.models.backbones import Backbone, build_backbone, split_for_fine_tuning
from headstart.records import Booleans, ImageSet, Indices, Recipe, Split, TrialResult
from headstart.study.kinds import Bench

SEED = 0
"""Of the failing and the repaired trial."""

RATE = 11
"""The cause that a smaller learning rate repairs, or none at all."""

_OF_THE_HEAD = {12, 21, 22}  # causes that the head alone suffers from
_MOST_LABELS, _MOST_JUDGED = 5000, 5000  # chosen: somebody's own network runs in PyTorch, image by image


@dataclass(frozen=True)
class Judged:
    """A pipeline on the test images: all of them, or where somebody's own network runs through a probe at most 5,000, learned from
    at most 5,000 labels, both stratified.

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

    @property
    def images(self) -> int:
        """How many test images it was judged on."""
        return len(self.part)


def judge_trial(result: TrialResult, split: Split) -> Judged:
    """What one of our trials got right on test."""
    return _judged(right_on_test(result), len(split.train), split.test, split.train)


def right_on_test(result: TrialResult) -> Booleans:
    """Which test images a trial got right, `(1, n) bool`."""
    right: Booleans = (result.test_logits.argmax(1) == result.test_labels)[None]
    return right


def accuracy_on_val(result: TrialResult) -> float:
    """The share of the val images that a trial got right."""
    return float((result.val_logits.argmax(1) == result.val_labels).mean())


def judge_failing(examination: Examination, images: ImageSet, split: Split) -> Judged:
    """The network's own predictions on test, where it has a head; otherwise the probe on its features."""
    if examination.predictions is not None:
        correct = (examination.predictions.argmax(1) == images.labels[split.test])[None]
        return _judged(correct, 0, split.test, every_other(split))
    return judge_cell(examination, frozenset(examination.factors), images, split)


def judge_curve(history: History) -> Judged:
    """What a training's curve says that it reached on val, after its last epoch: nothing says how sure that is.

    Args:
        history: with accuracies on val.
    """
    reached = val_shares(history)[-1]
    nobody = np.zeros(0, np.int64)
    return Judged(Estimate(reached, reached, reached, "none"), np.zeros((1, 0), bool), 0, nobody, nobody)


def judge_cell(
    examination: Examination, faults: Cell, images: ImageSet, split: Split, *, before_tuning: bool = False
) -> Judged:
    """The probe on the features of a pipeline with these faults, on as many labels and test images as take seconds.

    Args:
        examination: with the pipeline.
        faults: that are present.
        images, split: the data.
        before_tuning: whether the network is the published one, and not as it was trained further.
    """
    train = stratified(images, split.train, _MOST_LABELS, "all labels")
    test = stratified(images, split.test, _MOST_JUDGED, "all judged")
    assert examination.remade is not None
    pipeline, labels = examination.remade.pipeline, images.labels
    if before_tuning:
        module = network_before_tuning(pipeline.subject)
        features, judged = (pipeline.features_through(module, faults, part) for part in (train, test))
    elif pipeline.own_pixels and faults == pipeline.factors:  # as its owner runs it, whatever that does
        features, judged = (own_features(pipeline.subject, images, part) for part in (train, test))
    else:
        pipeline.expect([faults], len(train) + len(test))
        features, judged = (pipeline.features(faults, part, own_images=train) for part in (train, test))
    correct = held_out(features, labels[train], judged, labels[test], len(images.class_names))[None]
    return _judged(correct, len(train), test, train)


def judge_repaired(examination: Examination, failing: Judged, images: ImageSet, split: Split) -> Judged | None:
    """Somebody's own network without the proved faults that its accuracy suffers from; `None` where there is none of these.

    Faults of the pipeline and of the head: the probe on the repaired features. Fine-tuning that did damage (11): the same on those of
    the published network. Only the order of its classes: its own predictions,
    relabelled. Where duplicates flatter it (16), without the test images that have a copy in train.
    """
    proved = {finding.cause for finding in examination.findings if finding.status == "proved" and not finding.apart}
    in_pipeline = proved & set(examination.factors)
    if in_pipeline or proved & _OF_THE_HEAD or RATE in proved:
        left = frozenset(examination.factors) - in_pipeline
        repaired = judge_cell(examination, left, images, split, before_tuning=RATE in proved)
    elif examination.relabelled is not None:
        repaired = _judged(examination.relabelled, failing.labels, failing.part, failing.trained)
    elif 16 in proved:
        repaired = failing
    else:
        return None
    return without_twins(repaired, examination, failing.trained) if 16 in proved else repaired


def without_twins(judged: Judged, examination: Examination, trained: Indices) -> Judged:
    """The same without the test images whose copies, among those that the failing pipeline was trained on, were proved to flatter it."""
    if examination.copies is None:
        return judged
    finding = next(finding for finding in examination.findings if finding.cause == 16)
    alone = ~proved_twins(finding, examination.copies.twins(judged.part, trained))
    if not alone.any():
        return judged
    return _judged(judged.correct[:, alone], judged.labels, judged.part[alone], judged.trained)


def with_duplicates(examination: Examination, failing: Judged) -> Examination:
    """How much duplicates flatter the failing accuracy (16); of relabelled predictions where the order was another.

    Args:
        examination: from the sample.
        failing: the pipeline as it is, on test.
    """
    copies = examination.copies
    if copies is None:
        return examination
    twins = copies.twins(failing.part, copies.trained)
    finding = next(finding for finding in examination.findings if finding.cause == 16)
    correct = failing.correct if examination.relabelled is None else examination.relabelled
    if len(failing.trained) < len(copies.trained):
        learned = copies.twins(failing.part, failing.trained)
        return examination.with_findings([rule_out_duplicates(finding, correct, twins, learned)])
    return examination.with_findings([prove_duplicates(finding, correct, twins)])


def as_probe(recipe: Recipe) -> Recipe:
    """The head alone of a resolved recipe, fitted to convergence on the frozen features of the same images."""
    return Recipe(
        name=f"{recipe.name}-convex",
        kind="probe",
        backbone=recipe.backbone,
        weights_sha256=recipe.weights_sha256,
        preprocessing=recipe.preprocessing,
        input_size=recipe.input_size,
        head="convex",
    )


def with_training(
    examination: Examination,
    recipe: Recipe,
    result: TrialResult,
    bench: Bench,
    backbone: Backbone,
    trial: Callable[[Recipe], TrialResult],
) -> Examination:
    """What the failing trial itself says: its gap (22), its head (21), whether fine-tuning hurt it (11).

    What our training rules out is cleared (6, 12, 14, 15, 19): nobody can hand over evidence of it, and nobody needs to.

    Args:
        examination: from the sample.
        recipe, result: the failing recipe and its trial.
        bench, backbone: of its trials.
        trial: runs another one, with the same seed.
    """
    gap = measured_gap(result.train_correct, result.val_logits.argmax(1) == result.val_labels)
    changed = [gap, *_by_construction(recipe, backbone)]
    if recipe.kind == "probe" and recipe.head == "convex":
        # Whatever its gap, no other strength of its regularization that was tried had a lower loss on val.
        changed[0] = Finding(22, "cleared", "gap-of-best-l2", gap.values)
        changed += [Finding(cause, "cleared", "convex-head", {}) for cause in (11, 21)]
        return examination.with_findings(changed)
    other = trial(as_probe(recipe))
    ours, theirs = right_on_test(result), right_on_test(other)
    better = paired_difference(theirs, ours)
    labels = float(len(bench.split.train))
    values = {"head": round(float(ours.mean()), 4), "probe": round(float(theirs.mean()), 4), "labels": labels}
    points = in_points(better)
    controls = list(examination.controls)
    if recipe.kind == "finetune":
        seen = {"accuracy": values["head"], "probe": values["probe"]}
        if is_head_behind(better):
            changed.append(Finding(11, "proved", "below-probe", seen, points))
        elif better.high > HEAD_CLEARED:
            changed.append(Finding(11, "could-not-look", "fine-tuning-unclear", seen))
        else:
            changed.append(Finding(11, "cleared", "not-below-probe", seen))
        changed.append(Finding(21, "could-not-look", "head-of-fine-tuning", {}))
    else:
        head = judge_head(better, values)
        controls.append(Control("convex-head", bootstrap_accuracy(theirs), bootstrap_accuracy(ours), head.code))
        changed[0], head = overfit_or_behind(gap, head)
        changed += [_loss_curve(result), head]
    return replace(examination.with_findings(changed), controls=tuple(controls))


def with_divergence(examination: Examination, recipe: Recipe, backbone: Backbone, probe: Judged) -> Examination:
    """What is known of a recipe whose training diverged (11), and that its head alone was judged in its place.

    Args:
        examination: with what the head's trial says.
        recipe, backbone: what was to be trained.
        probe: the head, on test.
    """
    unseen = [Finding(cause, "could-not-look", "loss-diverged", {}) for cause in (21, 22)]
    control = Control("convex-head", probe.accuracy, None, "training-diverged")
    diverged = Finding(11, "suspected", "loss-diverged", {}, apart=True)
    known = examination.with_findings([diverged, *unseen, *_by_construction(recipe, backbone)])
    return replace(known, controls=(*known.controls, control))


def _by_construction(recipe: Recipe, backbone: Backbone) -> list[Finding]:
    """Causes that our own training rules out; augmentation (19) unless it is asked for where features are kept."""
    ruled_out = [Finding(cause, "cleared", "by-construction", {}) for cause in (6, 12, 14, 15)]
    if recipe.augmentation == "none":
        return [*ruled_out, Finding(19, "cleared", "no-augmentation", {})]
    if recipe.kind == "probe" or (recipe.unfreeze == "last" and _can_be_cut(recipe, backbone)):
        return [*ruled_out, Finding(19, "suspected", "augmentation-not-used", {"augmentation": recipe.augmentation})]
    return [*ruled_out, Finding(19, "cleared", "by-construction", {})]


def _can_be_cut(recipe: Recipe, backbone: Backbone) -> bool:
    """Whether fine-tuning keeps what the frozen layers make of each image, and trains the last ones on that."""
    assert recipe.preprocessing is not None
    example = torch.zeros(2, 3, recipe.preprocessing.input_size, recipe.preprocessing.input_size)
    return split_for_fine_tuning(build_backbone(backbone), example) is not None


def _loss_curve(result: TrialResult) -> Finding:
    """Cause 11 of a head that was trained by steps: whether its loss jumped."""
    jump, _ = look_at_history({"loss": [epoch.train_loss for epoch in result.history if epoch.epoch > 0]})
    return jump


def _judged(correct: Booleans, labels: int, part: Indices, trained: Indices) -> Judged:
    return Judged(bootstrap_accuracy(correct), correct, labels, part, trained)
