"""Everything that is looked at before anything is proved: the pixels that arrive, the network, what its owner handed over."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from headstart.analysis.diagnosis import Finding
from headstart.diagnosis.arrival import (
    LEAST_STRIDE,
    Arrival,
    Standardised,
    last_map,
    measure_arrival,
    not_understood,
    sample_images,
    stride_of,
)
from headstart.diagnosis.copies import Copies, every_other
from headstart.diagnosis.look_contract import Guess, guess_contract
from headstart.diagnosis.look_history import (
    first_seen,
    look_at_history,
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
from headstart.diagnosis.pipeline import Repairs, pixels_with
from headstart.diagnosis.prove import draw_sample, stratified
from headstart.diagnosis.prove_predictions import Classes
from headstart.diagnosis.prove_training import of_each_class, own_outputs, own_predictions
from headstart.diagnosis.repair import repaired_preprocessing
from headstart.diagnosis.subject import Subject
from headstart.records import Images, ImageSet, Indices, Logits, Preprocessing, Split

_NATIVE = 224  # what public ImageNet backbones are made for, where nothing says otherwise
_NATIVE_SMALL = 32
_CLEAN_BATCH = 64
_SEEN_AGAIN = 1000  # chosen: training images whose accuracy is then known to three points
_OBLONG = 0.05  # chosen: share of images that are not square from which padding them would count
_FILLED = Finding(2, "cleared", "no-borders", {})
_LOOKED_AT_FOR_COLOUR, _GRAY = 48, 8  # images, and the levels by which the channels of a gray JPEG may differ


@dataclass(frozen=True)
class Looked:
    """What was seen without training anything.

    Attributes:
        findings: one of each cause but 20 and 21.
        arrival: what arrives at the first convolution.
        contract, standardised: what the network expects there, where that is known or was found; whether of each image by itself.
        native: side that its backbone was made for, in pixels.
        repairs: the pixels without what is suspected.
        sample: `(n,) int64`, images of train that proofs are made on.
        predictions: `(n, C)`, what the network itself says on test; `None` where it has no head.
        predicted: `(n,) int64`, the classes that its owner says it predicts there, otherwise its own.
        fine_tuned: whether its kernels are published ones that have moved since.
        jump, gap: causes 11 and 22 by the training's curve alone.
        copies: of test images, in the rest of the data.
    """

    findings: list[Finding]
    arrival: Arrival
    contract: Preprocessing | None
    standardised: Standardised
    native: int
    repairs: Repairs
    sample: Indices
    predictions: Logits | None
    predicted: Classes | None
    fine_tuned: bool
    jump: Finding
    gap: Finding
    copies: Copies

    def repaired(self, subject: Subject, canvas: int, causes: set[int]) -> Repairs:
        """The pixels without these causes.

        Args:
            subject: whose they are.
            canvas: side of the images, in pixels.
            causes: that are to be taken away.
        """
        return _without(causes, subject, self.arrival, self.contract, self.standardised, canvas, self.native)


def look(subject: Subject, images: ImageSet, split: Split) -> Looked:
    """Look at a subject as it is run.

    Args:
        subject: a network with its preprocessing, and what else its owner handed over.
        images, split: its data.

    Raises:
        UsageError: the network or its preprocessing cannot be run.
    """
    example = sample_images(images.images[split.train[:4096]])
    arrival = measure_arrival(subject, example)
    native = native_size(subject, arrival)
    one_size = last_map(subject.module, suitable_size(images.canvas, native)) is None
    if one_size:
        native = arrival.size
    sample = draw_sample(images, split)
    guess = None
    triable = not one_size or suitable_size(images.canvas, native) <= arrival.size
    if subject.contract is None and arrival.is_understood and triable:
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
    repairs = _without(suspected, subject, arrival, contract, standardised, images.canvas, native)
    findings += _look_at_network(subject, arrival, repairs, images.images, sample, example)
    outputs = own_outputs(subject, images, split.test)
    predictions = None if outputs is None else of_each_class(outputs)
    predicted = _classes(subject, predictions, split, images)
    labels, classes, evidence = images.labels[split.test], len(images.class_names), subject.evidence
    jump, gap = look_at_history(evidence.history)
    copies = Copies.sought(images, split, split.train if predictions is None else every_other(split))
    findings += [
        look_at_paths(subject, example),
        jump,
        gap if gap.status != "could-not-look" else _own_gap(subject, predictions, images, split),
        first_seen(look_at_loss(evidence.loss, outputs, classes), look_at_loss_curve(evidence.history, classes)),
        look_at_labels(predicted, labels, classes),
        look_at_duplicates(copies.twins(copies.test, copies.trained)),
        _selection(subject, predictions, predicted, images, split),
        look_at_overlap(subject, images),
        look_at_augmentation(subject, example),
        Finding(23, "could-not-look", "no-scratch", {}),
    ]
    return Looked(
        findings=findings,
        arrival=arrival,
        contract=contract,
        standardised=standardised,
        native=native,
        repairs=repairs,
        sample=sample,
        predictions=predictions,
        predicted=predicted,
        fine_tuned=subject.recipe is None and is_fine_tuned(subject),
        jump=jump,
        gap=gap,
        copies=copies,
    )


def native_size(subject: Subject, arrival: Arrival) -> int:
    """The side that a subject's backbone was pretrained at, or by its stride the usual one."""
    if subject.published is not None:
        return subject.published.native_size
    if subject.contract is not None:
        return subject.contract.input_size
    stride = stride_of(subject.module, arrival.size, arrival.map_side)
    return _NATIVE if stride >= LEAST_STRIDE else _NATIVE_SMALL


def without_domain(findings: list[Finding], code: str, values: Mapping[str, float]) -> list[Finding]:
    """The same without a suspicion of batch norm's stored statistics (10), which nothing can be read from here."""
    unclear = Finding(10, "could-not-look", code, values)
    return [unclear if one.cause == 10 and one.status != "cleared" else one for one in findings]


def _look_at_network(
    subject: Subject, arrival: Arrival, repairs: Repairs, images: Images, sample: Indices, example: Images
) -> list[Finding]:
    """Causes 8, 9, 10, 12 and 13; of batch norm's statistics (10) nothing where what arrives was not understood, or the weights moved."""
    few = images[sample[:: max(len(sample) // _CLEAN_BATCH, 1)][:_CLEAN_BATCH]]
    clean = pixels_with(arrival, repairs, frozenset(), few) if arrival.is_understood else None
    findings = look_at_network(subject, clean, example)
    if clean is None:
        findings = without_domain(findings, *not_understood(arrival))
    if subject.recipe is None and is_fine_tuned(subject):
        findings = without_domain(findings, "statistics-trained-further", {})
    return findings


def _without(
    causes: set[int],
    subject: Subject,
    arrival: Arrival,
    contract: Preprocessing | None,
    standardised: Standardised,
    canvas: int,
    native: int,
) -> Repairs:
    """The pixels as they arrive, without these causes."""
    preprocessing = repaired_preprocessing(arrival, contract, subject.published, canvas, native, causes)
    resized = frozenset(causes & {1, 2}) if 7 not in causes else frozenset[int]()
    return Repairs(preprocessing, standardised if 3 in causes else arrival.standardised, resized, ordered=5 in causes)


def _not_square(images: ImageSet) -> bool:
    """Whether a part that counts of the images were cut to their central square before anybody's code got them."""
    oblong = sum(size.count for size in images.original_sizes if size.width != size.height)
    return oblong > _OBLONG * len(images.labels)


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


def _classes(subject: Subject, predictions: Logits | None, split: Split, images: ImageSet) -> Classes | None:
    given = subject.evidence.predictions
    if given is not None:
        return predicted_classes(given, split.test, len(images.labels), len(images.class_names))
    return None if predictions is None else predictions.argmax(1)
