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
from headstart.diagnosis.arrival import (
    LEAST_STRIDE,
    UNDERSTOOD,
    Arrival,
    last_map,
    measure_arrival,
    not_understood,
    sample_images,
    stride_of,
)
from headstart.diagnosis.examination import Control, Examination, Remade
from headstart.diagnosis.look_contract import Guess, guess_contract
from headstart.diagnosis.look_head import is_as_good, knows_train, look_at_head, probe_on_test
from headstart.diagnosis.look_history import (
    first_seen,
    look_at_history,
    look_at_learning,
    look_at_loss_curve,
    look_at_selection,
    measured_gap,
)
from headstart.diagnosis.look_network import is_fine_tuned, look_at_network
from headstart.diagnosis.look_pixels import look_at_pixels, suitable_size
from headstart.diagnosis.look_training import (
    look_at_augmentation,
    look_at_duplicates,
    look_at_labels,
    look_at_loss,
    look_at_overlap,
    look_at_paths,
    on_test,
    predicted_classes,
)
from headstart.diagnosis.pipeline import Pipeline, Repairs, pixels_with
from headstart.diagnosis.prove import PROVABLE, MeasuredCell, draw_sample, measure_cells, measure_random, stratified
from headstart.diagnosis.prove_predictions import Classes, prove_own_order, trained_on, twins
from headstart.diagnosis.prove_training import of_each_class, own_outputs, own_predictions, prove_evidence
from headstart.diagnosis.repair import repaired_preprocessing
from headstart.diagnosis.subject import Subject
from headstart.records import ImageSet, Indices, Logits, Split
from headstart.training.progress import Reporter

_NATIVE = 224  # what public ImageNet backbones are made for, where nothing says otherwise
_NATIVE_SMALL = 32
GOOD_ENOUGH = 0.9
"""Chosen: a probe that is right nine times in ten needs no excuse."""

_NO_GAIN = 0.05
"""Chosen: pretraining brings nothing if it is better than chance weights by no more than this, for certain; fewer images leave it open."""

_CLEAN_BATCH = 64
_SEEN_AGAIN = 1000  # chosen: training images whose accuracy is then known to three points
_OBLONG = 0.05  # chosen: share of images that are not square from which padding them would count
_FILLED = Finding(2, "cleared", "no-borders", {})
_LOOKED_AT_FOR_COLOUR, _GRAY = 48, 8  # images, and the levels by which the channels of a gray JPEG may differ


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
    example = sample_images(images.images[split.train[:4096]])
    arrival = measure_arrival(subject, example)
    native = native_size(subject, arrival)
    one_size = last_map(subject.module, suitable_size(images.canvas, native)) is None
    if one_size:
        native = arrival.size
    sample = draw_sample(images, split)
    guess = None
    triable = not one_size or suitable_size(images.canvas, native) <= arrival.size
    if subject.contract is None and arrival.fit >= UNDERSTOOD and triable:
        guess = guess_contract(subject, arrival, images, split, sample, native)
    contract, standardised = (guess.contract, guess.standardised) if guess is not None else (subject.contract, "none")
    coloured = bool(np.ptp(example[:_LOOKED_AT_FOR_COLOUR], axis=3).max() > _GRAY)
    findings = look_at_pixels(arrival, contract, images.canvas, native, standardised, coloured=coloured)
    if one_size:
        findings[0] = Finding(1, "could-not-look", "fixed-input-size", {"size": arrival.size})
        findings = [replace(one, code="no-other-contract") if one.code == "no-contract" else one for one in findings]
    if subject.recipe is None and _not_square(images):
        findings = [Finding(2, "could-not-look", "squares-alone", {}) if one == _FILLED else one for one in findings]
    if guess is not None:
        findings = [_guessed(finding, guess) for finding in findings]
    suspected = {finding.cause for finding in findings if finding.status == "suspected"}
    preprocessing = repaired_preprocessing(arrival, contract, subject.published, images.canvas, native, suspected)
    repairs = Repairs(preprocessing, standardised if 3 in suspected else arrival.standardised)
    few = images.images[sample[:: max(len(sample) // _CLEAN_BATCH, 1)][:_CLEAN_BATCH]]
    clean = pixels_with(arrival, repairs, frozenset(), few) if arrival.fit >= UNDERSTOOD else None
    outputs = own_outputs(subject, images, split.test)
    predictions = None if outputs is None else of_each_class(outputs)
    predicted = _classes(subject, predictions, split, images)
    labels, classes, evidence = images.labels[split.test], len(images.class_names), subject.evidence
    findings += look_at_network(subject, clean)
    if clean is None:
        findings = _without_domain(findings, *not_understood(arrival))
    fine_tuned = subject.recipe is None and is_fine_tuned(subject)
    if fine_tuned:
        findings = _without_domain(findings, "statistics-trained-further", {})
    jump, opened = look_at_history(evidence.history)
    findings += [
        look_at_paths(subject, example),
        jump,
        opened if opened.status != "could-not-look" else _own_gap(subject, predictions, images, split),
        first_seen(look_at_loss(evidence.loss, outputs, classes), look_at_loss_curve(evidence.history, classes)),
        look_at_labels(predicted, labels, classes),
        look_at_duplicates(twins(images, split.test, split.train if predictions is None else trained_on(split))),
        _selection(subject, predictions, predicted, images, split),
        look_at_overlap(subject, images),
        look_at_augmentation(subject, example),
        Finding(23, "could-not-look", "no-scratch", {}),
    ]
    reporter.advance(1)
    look_seconds = time.perf_counter() - started
    started = time.perf_counter()
    factors = _factors(findings, subject, arrival)
    pipeline = Pipeline(subject, arrival, repairs, factors, images)
    cells = _prove(pipeline, sample, reporter)
    as_it_is = cells.get(frozenset(factors))
    probe = probe_on_test(pipeline, cells, sample, split) if predictions is not None else None
    tuned = fine_tuned or (subject.recipe is None and knows_train(pipeline, cells, probe, sample))
    if factors:
        correct = {cell: measured.correct for cell, measured in cells.items()}
        shares = shapley_shares(correct, repair_orders(factors))
        alone = costs_alone(correct, factors)
        findings = [judged(f, shares[f.cause], alone.get(f.cause)) if f.cause in shares else f for f in findings]
    if tuned:
        findings = _without_domain([_adapted(one) for one in findings], "statistics-trained-further", {})
    if factors:
        findings = _told_apart(findings, cells, factors)
    if tuned:  # features that have learned these labels are better than random ones for that reason alone
        controls, gap = list[Control](), Finding(DOMAIN_GAP, "could-not-look", "features-trained-further", {})
    else:
        controls, gap = _controls(pipeline, cells, sample)
    seen_loaded = next(finding for finding in findings if finding.cause == NOT_LOADED).status == "cleared"
    if gap.status == "suspected" and not seen_loaded and NOT_LOADED not in factors:
        gap = replace(gap, like=(NOT_LOADED,))  # weights that were never loaded are random ones, too
    seen = next(finding for finding in findings if finding.cause == 15)
    reached = probe.right if probe is not None else None if as_it_is is None else as_it_is.correct
    reaches = None if reached is None else float(reached.mean())
    order, relabelled = prove_own_order(seen, predictions, predicted, labels, classes, reaches)
    findings = [order if finding.cause == 15 else finding for finding in findings]
    if (
        order.status != "cleared" and opened.status == "could-not-look"
    ):  # mixed-up names hide a gap: both parts are at chance
        findings = [opened if finding.cause == 22 else finding for finding in findings]
    # Permuted classes are another cause: where they are proved, the head is judged as relabelled.
    own = (predictions.argmax(1) == labels)[None] if predictions is not None and relabelled is None else relabelled
    head, control, behind = look_at_head(own, probe, arrival, split)
    if subject.recipe is None and head.status == "cleared" and split.origin == "drawn":
        head = replace(head, status="could-not-look", code="may-know-test")
    reordered = relabelled is not None
    findings = prove_evidence(
        [*findings, head], behind, subject, images, split, sample, predictions, reordered=reordered
    )
    learning = look_at_learning(evidence.history, classes)
    if learning.code != "learns-little" or not is_as_good(evidence.history, probe):
        findings = [first_seen(one, learning) if one.cause == 21 else one for one in findings]
    mended = {finding.cause for finding in findings if finding.status == "proved"}
    repaired = Repairs(
        repaired_preprocessing(arrival, contract, subject.published, images.canvas, native, mended),
        standardised if 3 in mended else arrival.standardised,
    )
    found = tuple(interactions({cell: measured.correct for cell, measured in cells.items()}, factors))
    return Examination(
        findings=tuple(ranked([*findings, gap])),
        remade=Remade(arrival, pipeline, factors, cells, sample, repaired),
        found_interactions=found,
        controls=(*controls, *([control] if control is not None else [])),
        predictions=predictions,
        look_seconds=look_seconds,
        prove_seconds=time.perf_counter() - started,
        relabelled=relabelled,
        tuned=tuned,
    )


def _without_domain(findings: list[Finding], code: str, values: Mapping[str, float]) -> list[Finding]:
    """The same without a suspicion of batch norm's stored statistics (10), which nothing can be read from here."""
    unclear = Finding(10, "could-not-look", code, values)
    return [unclear if one.cause == 10 and one.status != "cleared" else one for one in findings]


def _adapted(finding: Finding) -> Finding:
    """A fault of the pixels in a network that may have been trained on them: that others do not suit its weights clears nothing."""
    if finding.cause not in OF_PIXELS or finding.status != "cleared":
        return finding
    if finding.code == "own-contract-best":
        return replace(finding, status="could-not-look", code="pixels-trained-further", values={})
    return replace(finding, status="suspected") if finding.points is not None else finding


def _selection(
    subject: Subject, predictions: Logits | None, predicted: Classes | None, images: ImageSet, split: Split
) -> Finding:
    """Cause 17: whether test was kept apart from every choice."""
    if subject.recipe is not None:
        return Finding(17, "cleared", "three-way-split", {})
    labels, given = images.labels[split.test], subject.evidence.predictions
    outputs = predictions if given is None else on_test(given, split.test, len(images.labels))
    right = None if predicted is None else predicted == labels
    return look_at_selection(subject.evidence.history, outputs, right, labels)


def _own_gap(subject: Subject, predictions: Logits | None, images: ImageSet, split: Split) -> Finding:
    """Cause 22 of somebody's own network without a curve: its answers to some training images beside those on test.

    Where test was drawn from the data nobody knows which of them it was trained on; a recipe of ours is judged by its own trial.
    """
    if subject.recipe is not None or predictions is None or split.origin == "drawn":
        return Finding(22, "could-not-look", "no-history", {})
    part = stratified(images, split.train, _SEEN_AGAIN, "seen in training")
    again = own_predictions(subject, images, part)
    assert again is not None
    train, test = again.argmax(1) == images.labels[part], predictions.argmax(1) == images.labels[split.test]
    return measured_gap(train, test)


def _guessed(finding: Finding, guess: Guess) -> Finding:
    """A finding about pixels whose contract was guessed: what was tried, and which suits the network best."""
    if finding.cause not in (3, 4, 5) or finding.code == "colour-thrown-away":
        return finding
    if guess.contract is None:
        return Finding(finding.cause, "cleared", "own-contract-best", guess.values)
    if finding.status == "suspected":
        return replace(finding, code="other-contract-better", values=guess.values)
    return Finding(finding.cause, "cleared", "not-in-better-contract", guess.values)


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


def native_size(subject: Subject, arrival: Arrival) -> int:
    """The side that a subject's backbone was pretrained at, or by its stride the usual one."""
    if subject.published is not None:
        return subject.published.native_size
    if subject.contract is not None:
        return subject.contract.input_size
    stride = stride_of(subject.module, arrival.size, arrival.map_side)
    return _NATIVE if stride >= LEAST_STRIDE else _NATIVE_SMALL


def _not_square(images: ImageSet) -> bool:
    """Whether a part that counts of the images were cut to their central square before anybody's code got them."""
    oblong = sum(size.count for size in images.original_sizes if size.width != size.height)
    return oblong > _OBLONG * len(images.labels)


def _provable(finding: Finding, subject: Subject, arrival: Arrival) -> bool:
    if finding.cause not in PROVABLE or arrival.fit < UNDERSTOOD:
        return False
    return subject.published is not None or finding.cause not in (9, 13)


def _prove(pipeline: Pipeline, sample: Indices, reporter: Reporter) -> dict[Cell, MeasuredCell]:
    if pipeline.arrival.fit < UNDERSTOOD:
        return {}
    factors = tuple(sorted(pipeline.factors))
    wanted = needed_cells(repair_orders(factors)) if factors else [frozenset[int]()]
    return measure_cells(pipeline, wanted, sample, reporter)


def _controls(pipeline: Pipeline, cells: Mapping[Cell, MeasuredCell], sample: Indices) -> tuple[list[Control], Finding]:
    """Random features against the repaired pipeline (20)."""
    if not cells:
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


def _classes(subject: Subject, predictions: Logits | None, split: Split, images: ImageSet) -> Classes | None:
    given = subject.evidence.predictions
    if given is not None:
        return predicted_classes(given, split.test, len(images.labels), len(images.class_names))
    return None if predictions is None else predictions.argmax(1)
