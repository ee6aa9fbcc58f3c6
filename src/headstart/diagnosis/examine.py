"""An examination: look at everything, prove what is suspected, check the controls."""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from headstart.analysis.diagnosis import (
    DOMAIN_GAP,
    NOT_LOADED,
    OF_PIXELS,
    Cell,
    Finding,
    Status,
    alike,
    costs_alone,
    interactions,
    judged,
    needed_cells,
    ranked,
    repair_orders,
    shapley_shares,
)
from headstart.analysis.statistics import bootstrap_accuracy, paired_difference
from headstart.diagnosis.arrival import Arrival, not_understood
from headstart.diagnosis.examination import Control, Examination, Remade
from headstart.diagnosis.look import Looked, look, without_domain
from headstart.diagnosis.look_head import (
    HeadProbe,
    is_as_good,
    knows_train,
    look_at_head,
    overfit_or_behind,
    probe_on_test,
    prove_fine_tuning,
)
from headstart.diagnosis.look_history import first_seen, look_at_learning
from headstart.diagnosis.pipeline import Pipeline
from headstart.diagnosis.prove import OF_THE_NETWORK, PROVABLE, MeasuredCell, measure_cells, measure_random, sweep_sizes
from headstart.diagnosis.prove_predictions import Classes, meanings, prove_own_order
from headstart.diagnosis.prove_training import prove_evidence
from headstart.diagnosis.subject import Subject
from headstart.records import Booleans, ImageSet, Indices, Split
from headstart.training.progress import Reporter

GOOD_ENOUGH = 0.9
"""Chosen: a probe that is right nine times in ten needs no excuse."""

_SIZE = 1  # the cause of which other values are shown, too

_NO_GAIN = 0.05
"""Chosen: pretraining brings nothing if it is better than chance weights by no more than this, for certain; fewer images leave it open."""


def examine(subject: Subject, images: ImageSet, split: Split, reporter: Reporter) -> Examination:
    """Look at a subject and prove what is suspected, on a sample of train.

    Args:
        subject: as it is run.
        images, split: its data.
        reporter: told how far it is.

    Raises:
        UsageError: the network or its preprocessing cannot be run.
    """
    started = time.perf_counter()
    reporter.stage("look", 1)
    looked = look(subject, images, split)
    reporter.advance(1)
    look_seconds = time.perf_counter() - started
    started = time.perf_counter()
    factors = _factors(looked.findings, subject, looked.arrival)
    pipeline = Pipeline(subject, looked.arrival, looked.repairs, factors, images)
    cells = _prove(pipeline, looked.sample, reporter)
    probe = probe_on_test(pipeline, cells, looked.sample, split) if looked.predictions is not None else None
    tuned = looked.fine_tuned or (subject.recipe is None and knows_train(pipeline, cells, probe, looked.sample))
    findings = _shared_out(looked.findings, cells, factors, tuned=tuned)
    if tuned:  # features that have learned these labels are better than random ones for that reason alone
        controls, gap = list[Control](), Finding(DOMAIN_GAP, "could-not-look", "features-trained-further", {})
    else:
        controls, gap = _controls(pipeline, cells, looked.sample)
    seen_loaded = next(finding for finding in findings if finding.cause == NOT_LOADED).status == "cleared"
    if gap.status == "suspected" and not seen_loaded and NOT_LOADED not in factors:
        gap = replace(gap, like=(NOT_LOADED,))  # weights that were never loaded are random ones, too
    findings, relabelled, meant = _judge_order(looked, findings, probe, cells.get(frozenset(factors)), images, split)
    findings, control = _judge_training(looked, findings, relabelled, probe, pipeline, split)
    mended = {finding.cause for finding in findings if finding.status == "proved"}
    left = frozenset(factors) - mended
    sizes = sweep_sizes(pipeline, left, looked.sample, looked.native) if _SIZE in mended else []
    found = interactions({cell: measured.correct for cell, measured in cells.items()}, factors)
    return Examination(
        findings=tuple(ranked([*findings, gap])),
        remade=Remade(
            arrival=looked.arrival,
            pipeline=pipeline,
            factors=factors,
            cells=cells,
            sample=looked.sample,
            repaired=looked.repaired(subject, images.canvas, mended),
        ),
        found_interactions=tuple(found),
        controls=(*controls, *([control] if control is not None else [])),
        predictions=looked.predictions,
        look_seconds=look_seconds,
        prove_seconds=time.perf_counter() - started,
        relabelled=relabelled,
        meant=meant,
        tuned=tuned,
        sizes=tuple(sizes),
        copies=looked.copies,
    )


def _shared_out(
    findings: list[Finding], cells: Mapping[Cell, MeasuredCell], factors: tuple[int, ...], *, tuned: bool
) -> list[Finding]:
    """The findings with the points that each suspected cause of the pipeline costs, judged by them."""
    correct = {cell: measured.correct for cell, measured in cells.items()}
    if factors:
        shares = shapley_shares(correct, repair_orders(factors))
        alone = costs_alone(correct, factors)
        findings = [judged(f, shares[f.cause], alone.get(f.cause)) if f.cause in shares else f for f in findings]
    if tuned:
        findings = without_domain([_adapted(one) for one in findings], "statistics-trained-further", {})
    if not factors:
        return findings
    return _told_apart(_shared_as_repaired(findings, correct, factors), cells, factors)


def _shared_as_repaired(
    findings: list[Finding], correct: Mapping[Cell, Booleans], factors: tuple[int, ...]
) -> list[Finding]:
    """The proved causes' points anew, with all others left in, as the repair leaves them: they sum to what the repair brings.

    Where the cells for that were not measured (more than five suspected causes), the points stay those of all of them repaired.
    """
    proved = tuple(one.cause for one in findings if one.cause in factors and one.status == "proved")
    left = frozenset(factors) - set(proved)
    repaired = {cell - left: right for cell, right in correct.items() if left <= cell}
    if not (proved and left) or len(repaired) < 2 ** len(proved):
        return findings
    shares = shapley_shares(repaired, repair_orders(proved))
    return [replace(one, points=shares[one.cause]) if one.cause in proved else one for one in findings]


def _judge_order(
    looked: Looked,
    findings: list[Finding],
    probe: HeadProbe | None,
    as_it_is: MeasuredCell | None,
    images: ImageSet,
    split: Split,
) -> tuple[list[Finding], Booleans | None, Classes | None]:
    """Cause 15: the findings, which of the network's own predictions are right once relabelled, and what each predicted class means."""
    labels, classes = images.labels[split.test], len(images.class_names)
    reached = probe.right if probe is not None else None if as_it_is is None else as_it_is.correct
    seen = next(finding for finding in findings if finding.cause == 15)
    reaches = None if reached is None else float(reached.mean())
    order, relabelled = prove_own_order(seen, looked.predictions, looked.predicted, labels, classes, reaches)
    findings = [order if finding.cause == 15 else finding for finding in findings]
    if order.status != "cleared" and looked.gap.status == "could-not-look":
        # Mixed-up names hide a gap: both parts are at chance.
        findings = [looked.gap if finding.cause == 22 else finding for finding in findings]
    meant: Classes | None = None
    if order.status == "proved" and looked.predicted is not None:
        meant = meanings(looked.predicted, labels, classes)
    return findings, relabelled, meant


def _judge_training(
    looked: Looked,
    findings: list[Finding],
    relabelled: Booleans | None,
    probe: HeadProbe | None,
    pipeline: Pipeline,
    split: Split,
) -> tuple[list[Finding], Control | None]:
    """The head (21), a fine-tuning (11), and what its owner's evidence shows (6, 12, 14); the head's control beside them.

    Permuted classes are another cause: where they are proved, the network is judged as relabelled.
    """
    subject, images = pipeline.subject, pipeline.images
    labels, classes, history = images.labels[split.test], len(images.class_names), subject.evidence.history
    predictions = looked.predictions
    own = (predictions.argmax(1) == labels)[None] if predictions is not None and relabelled is None else relabelled
    head, control, behind = look_at_head(own, probe, looked.arrival, split)
    if subject.recipe is None and head.status == "cleared" and split.origin == "drawn":
        head = replace(head, status="could-not-look", code="may-know-test")
    if looked.fine_tuned:
        rough = prove_fine_tuning(looked.jump, own, probe, pipeline, looked.sample, split)
        findings = [rough if finding.cause == 11 else finding for finding in findings]
        if rough.status == "suspected" and head.cause in rough.like and head.status == "proved":
            head = replace(head, like=(rough.cause,))  # a training that was too rough trains the head, too
    findings = prove_evidence(
        [*findings, head],
        behind,
        subject,
        images,
        split,
        looked.sample,
        predictions,
        reordered=relabelled is not None,
    )
    known = {finding.cause: finding for finding in findings}
    if not known[21].like and all(known[cause].status not in ("proved", "suspected") for cause in (12, 14)):
        known[22], known[21] = overfit_or_behind(known[22], known[21])
    findings = list(known.values())
    learning = look_at_learning(history, classes)
    if learning.code != "learns-little" or not is_as_good(history, probe):
        findings = [first_seen(one, learning) if one.cause == 21 else one for one in findings]
    return findings, control


def _adapted(finding: Finding) -> Finding:
    """A fault of the pixels in a network that may have been trained on them: that others do not suit its weights clears nothing."""
    if finding.cause not in OF_PIXELS or finding.status != "cleared":
        return finding
    if finding.code == "own-contract-best":
        return replace(finding, status="could-not-look", code="pixels-trained-further", values={})
    return replace(finding, status="suspected") if finding.points is not None else finding


def _factors(findings: list[Finding], subject: Subject, arrival: Arrival) -> tuple[int, ...]:
    """The suspected causes that a pipeline can be made without; of two that are seen alike the first stands for both."""
    chosen: list[Finding] = []
    for finding in sorted(findings, key=lambda one: one.cause):
        twin = any(finding.cause in other.like for other in chosen)
        if finding.status == "suspected" and _provable(finding, subject, arrival) and not twin:
            chosen.append(finding)
    return tuple(finding.cause for finding in chosen)


def _told_apart(findings: list[Finding], cells: Mapping[Cell, MeasuredCell], factors: tuple[int, ...]) -> list[Finding]:
    """Say of each cause which others these data cannot tell it from; what clears a cause clears its twin."""
    twins = alike({cell: measured.few for cell, measured in cells.items()}, factors)
    cleared = {finding.cause for finding in findings if finding.cause in factors and finding.status == "cleared"}
    told = []
    for finding in findings:
        like = tuple(sorted({*finding.like, *twins.get(finding.cause, ())}))
        hidden = finding.cause not in factors and bool(cleared & set(finding.like))
        told.append(replace(finding, like=like, status="cleared" if hidden else finding.status))
    return told


def _provable(finding: Finding, subject: Subject, arrival: Arrival) -> bool:
    if finding.cause not in (PROVABLE if arrival.is_understood else OF_THE_NETWORK):
        return False
    return subject.published is not None or finding.cause not in (9, 13)


def _prove(pipeline: Pipeline, sample: Indices, reporter: Reporter) -> dict[Cell, MeasuredCell]:
    factors = tuple(sorted(pipeline.factors))
    wanted = needed_cells(repair_orders(factors)) if factors else [frozenset[int]()]
    return measure_cells(pipeline, wanted, sample, reporter)


def _controls(pipeline: Pipeline, cells: Mapping[Cell, MeasuredCell], sample: Indices) -> tuple[list[Control], Finding]:
    """Random features against the repaired pipeline (20)."""
    if pipeline.own_pixels:  # features may be bad because of pixels that nobody could judge
        code, values = not_understood(pipeline.arrival)
        return [], Finding(DOMAIN_GAP, "could-not-look", code, values)
    by_chance, own = measure_random(pipeline, cells[frozenset()], sample)
    better = paired_difference(own, by_chance)
    measured = {
        "probe": round(float(own.mean()), 4),
        "random": round(float(by_chance.mean()), 4),
        "difference": {"mean": better.mean, "low": better.low, "high": better.high},
    }
    says = "better-than-random" if better.low > 0 else "no-better-than-random"
    commonest = np.bincount(pipeline.images.labels[sample]).max() / len(sample)
    # Where nearly every answer is right there is no failure to explain: easy images need no pretraining.
    easy = better.low <= 0 and own.mean() >= GOOD_ENOUGH
    if better.low <= 0 and not easy and better.high > _NO_GAIN:
        gap = Finding(DOMAIN_GAP, "could-not-look", "too-few-images", {"images": own.shape[1]})
    else:
        status: Status = "suspected" if better.low <= 0 and not easy else "cleared"
        at_chance = status == "suspected" and bootstrap_accuracy(own).low <= commonest
        code = "images-are-easy" if easy else "features-at-chance" if at_chance else says
        gap = Finding(DOMAIN_GAP, status, code, measured)
    control = Control("random-features", bootstrap_accuracy(by_chance), bootstrap_accuracy(own), says)
    return [control], gap
