"""Proving what its owner's evidence shows of training and use: other pixels (6), the optimizer (12), the loss (14).

None of these is a fault of the pipeline that is measured elsewhere (diagnosis/prove.py), so each has a counterfactual of its own.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from headstart.analysis.diagnosis import LEAST_POINTS, Finding, judged
from headstart.analysis.statistics import Estimate, paired_difference
from headstart.diagnosis.look_network import head_parameters
from headstart.diagnosis.look_training import TRAINED_IN_ANOTHER_ORDER, TRAINED_IN_ANOTHER_RANGE, middle_score
from headstart.diagnosis.modules import in_batches, in_mode, one_tensor, pooled
from headstart.diagnosis.pipeline import features_of
from headstart.diagnosis.probing import held_out
from headstart.diagnosis.prove import stratified
from headstart.diagnosis.prove_loss import prove_loss
from headstart.diagnosis.prove_predictions import Classes, in_points, meanings
from headstart.diagnosis.subject import Prepare, Subject
from headstart.models.backbones import seeded_torch
from headstart.randomness import generator
from headstart.records import Booleans, ImageSet, Indices, Logits, Split

Array = npt.NDArray[np.float32]

_SERVED = 2400
"""Test images that a network with a head is asked again, as they are served (chosen: the difference is then known to a point)."""

_OF_THE_PIXELS = (3, 4, 5)  # causes that another range or order of the pixels may be, too

_SERVED_TO_A_PROBE = (
    1200  # and where a probe is fitted first, on as many: three passes through somebody's own network instead of one
)


def own_predictions(subject: Subject, images: ImageSet, part: Indices, prepare: Prepare | None = None) -> Logits | None:
    """What the network itself says of a part, `(n, C)`, as it is run; `None` where it has no head.

    `prepare` is another path from images to its input.
    """
    outputs = own_outputs(subject, images, part, prepare)
    return None if outputs is None else of_each_class(outputs)


def own_outputs(subject: Subject, images: ImageSet, part: Indices, prepare: Prepare | None = None) -> Logits | None:
    """The same in the network's own columns: `(n, 1)` where it gives two classes one score."""
    if subject.head is None and subject.classifier is None:
        return None

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        given = one_tensor(subject.module(inputs))
        return given if subject.head is None else one_tensor(subject.head(given))

    return _asked(subject, prepare or subject.prepare, answer, images, part)


def own_features(subject: Subject, images: ImageSet, part: Indices, prepare: Prepare | None = None) -> Array:
    """Features of a part, `(n, D) float32`, as the network is run; `prepare` is another path from images to its input."""
    found = _asked(
        subject,
        prepare or subject.prepare,
        lambda inputs: pooled(features_of(subject.module, subject, subject.module, inputs)),
        images,
        part,
    )
    return np.nan_to_num(found, posinf=0.0, neginf=0.0)


def of_each_class(outputs: Array) -> Array:
    """`(n, C)` as they are; `(n, 2)` from one score of the second of two classes, `(n, 1)`."""
    if outputs.shape[1] != 1:
        return outputs
    return np.concatenate([np.full_like(outputs, middle_score(outputs)), outputs], axis=1)


def prove_evidence(
    findings: list[Finding],
    behind: Estimate | None,
    subject: Subject,
    images: ImageSet,
    split: Split,
    sample: Indices,
    predictions: Logits | None,
    *,
    reordered: bool,
) -> list[Finding]:
    """Prove what its owner's evidence made suspicious.

    Args:
        findings: from the look, that of the head (21) among them.
        behind: points by which the head is behind the convex one, where it was compared.
        subject, images, split: as they are.
        sample: images of train.
        predictions: the network's own outputs on test, where it has a head.
        reordered: whether these were proved to have their classes in another order.

    Returns:
        The findings, those of causes 6, 12 and 14 judged.
    """
    known = {finding.cause: finding for finding in findings}
    optimizer, head = prove_optimizer(known[12], known[21], behind, subject)
    loss = prove_loss(known[14], subject, images, sample)
    if head.status == "proved" and loss.status in ("proved", "suspected"):  # the head may be behind because of its loss
        head, loss = replace(head, like=(loss.cause,)), replace(loss, like=(head.cause,))
    meant = None
    if predictions is not None and reordered:
        meant = meanings(predictions.argmax(1), images.labels[split.test], len(images.class_names))
    if known[6].code in (TRAINED_IN_ANOTHER_RANGE, TRAINED_IN_ANOTHER_ORDER):
        pixels = [known[cause] for cause in _OF_THE_PIXELS if cause in known]
        paths = prove_training_path(known[6], pixels, subject, images, split, predictions, meant)
    else:
        paths = prove_paths(known[6], subject, images, split, sample, predictions, meant)
    known |= {finding.cause: finding for finding in (optimizer, head, loss, paths)}
    return list(known.values())


def prove_paths(
    finding: Finding,
    subject: Subject,
    images: ImageSet,
    split: Split,
    sample: Indices,
    predictions: Logits | None,
    meant: Classes | None = None,
) -> Finding:
    """Cause 6: accuracy on the same test images through `prepare` and through `serve`.

    The network's own answers where it has a head; otherwise those of a probe on the features that `prepare` leads to.

    Args:
        finding: from the look.
        subject, images, split: as they are.
        sample: images of train to fit a probe on.
        predictions: the network's own, on test.
        meant: what its classes mean, where their order was proved to be another.

    Returns:
        The finding, judged; its points are of the network in use, not of the accuracy that is diagnosed.
    """
    serve = subject.evidence.serve
    if finding.status != "suspected" or serve is None:
        return finding
    part = np.sort(stratified(images, split.test, _SERVED_TO_A_PROBE if predictions is None else _SERVED, "served"))
    labels = images.labels[part]
    try:
        with in_mode(subject.module, training=False), torch.inference_mode():
            subject.module(serve(images.images[part[:2]]))
    except Exception as error:  # noqa: BLE001 - somebody else's path may give what the network cannot take; that is said
        return replace(finding, code="serving-fails", values={"error": f"{type(error).__name__}: {error}"[:200]})
    answers = own_predictions(subject, images, part, serve)
    if predictions is None or answers is None:
        evaluated, served = _probed(subject, serve, images, sample, part)
    else:
        order = np.arange(len(images.class_names)) if meant is None else meant
        evaluated = order[predictions[np.searchsorted(split.test, part)].argmax(1)] == labels
        served = order[answers.argmax(1)] == labels
    points = in_points(paired_difference(evaluated[None], served[None]))
    values = {
        **finding.values,
        "accuracy": round(float(evaluated.mean()), 4),
        "serving": round(float(served.mean()), 4),
    }
    code = "shapes-compared" if finding.code == "paths-differ-in-shape" else "paths-compared"
    found = replace(judged(finding, points), code=code, values=values, apart=True)
    # Where serving does better, the evaluation has the wrong pixels: nothing that could be cleared.
    return replace(found, status="suspected") if points.low <= -LEAST_POINTS and found.status == "cleared" else found


def prove_training_path(
    finding: Finding,
    pixels: list[Finding],
    subject: Subject,
    images: ImageSet,
    split: Split,
    predictions: Logits | None,
    meant: Classes | None = None,
) -> Finding:
    """Cause 6: accuracy on the same test images through `prepare` and through `augment`, whose pixels the network learned from.

    Args:
        finding: from the look.
        pixels: those of range and order (3, 4, 5), judged. Where evaluation has the wrong pixels for the backbone, too, that is what
            the finding looks like, and nothing more is measured.
        subject, images, split: as they are.
        predictions: the network's own, on test; without a head nothing shows what training has made of its pixels.
        meant: what its classes mean, where their order was proved to be another.

    Returns:
        Proved if training's pixels make more images right; otherwise as it was looked at, since random augmentation costs something.
    """
    alike = tuple(one.cause for one in pixels if one.status in ("proved", "suspected"))
    if alike:
        return replace(finding, like=alike)
    part = np.sort(stratified(images, split.test, _SERVED, "served"))
    answers = None
    if (
        predictions is not None
        and subject.evidence.augment is not None
        and _runs(subject, subject.evidence.augment, images)
    ):
        answers = own_predictions(subject, images, part, subject.evidence.augment)
    if predictions is None or answers is None:
        return finding
    order = np.arange(len(images.class_names)) if meant is None else meant
    evaluated = order[predictions[np.searchsorted(split.test, part)].argmax(1)] == images.labels[part]
    trained = order[answers.argmax(1)] == images.labels[part]
    found = judged(finding, in_points(paired_difference(trained[None], evaluated[None])))
    values = {"accuracy": round(float(evaluated.mean()), 4), "train": round(float(trained.mean()), 4)}
    if found.status != "proved":
        return finding
    return replace(found, code="training-compared", values={**finding.values, **values}, apart=True)


def prove_optimizer(
    optimizer: Finding, head: Finding, points: Estimate | None, subject: Subject
) -> tuple[Finding, Finding]:
    """Cause 12: what a head costs that the optimizer never held.

    It is cause 21's difference: a head that nobody trains is behind the convex one. The two cannot be told apart by it, and the
    optimizer is what was seen, so the points are its.

    Args:
        optimizer, head: the findings of causes 12 and 21.
        points: by which the head is behind, where it was compared.
        subject: whose head it is.

    Returns:
        Both findings. Parameters missed elsewhere in the network stay a suspicion: what training them would have brought, only
        training can say.
    """
    if optimizer.status != "suspected" or points is None or not _misses_head(subject):
        return optimizer, head
    missed = replace(optimizer, code="head-not-in-optimizer", values={**optimizer.values, **head.values}, points=points)
    if head.status == "proved":
        return (
            replace(missed, status="proved", like=(head.cause,)),
            replace(head, status="suspected", points=None, like=(optimizer.cause,)),
        )
    return replace(missed, status="cleared" if points.high < LEAST_POINTS else "suspected"), head


def _probed(
    subject: Subject, serve: Prepare, images: ImageSet, sample: Indices, part: Indices
) -> tuple[Booleans, Booleans]:
    """Which images of a part a probe gets right by each path; it is fitted once, on the evaluation's features of the sample."""
    fitted = np.sort(stratified(images, sample, _SERVED_TO_A_PROBE, "paths"))

    both = np.concatenate([own_features(subject, images, part), own_features(subject, images, part, serve)])
    labels = np.tile(images.labels[part], 2)
    right = held_out(
        own_features(subject, images, fitted), images.labels[fitted], both, labels, len(images.class_names)
    )
    return right[: len(part)], right[len(part) :]


def _asked(
    subject: Subject,
    prepare: Prepare,
    answer: Callable[[torch.Tensor], torch.Tensor],
    images: ImageSet,
    part: Indices,
) -> Array:
    """What a network answers to each image of a part, `(n, D) float32`, in the mode and the batches that it is run in."""
    # In training mode an answer depends on its batch: batches are drawn, not sorted by class.
    shuffled = generator(0, "diagnosis", "own predictions").permutation(len(part))
    outputs = []
    head = nullcontext() if subject.head is None else in_mode(subject.head, training=subject.train_mode)
    # Dropout, in training mode, draws numbers.
    with in_mode(subject.module, training=subject.train_mode), head, seeded_torch(0), torch.inference_mode():
        for some in in_batches(len(part), subject.batch):
            inputs = prepare(images.images[part[shuffled[some]]])
            outputs.append(answer(inputs).float())
    answers: Array = torch.cat(outputs).numpy()
    rows = np.empty_like(answers)
    rows[shuffled] = answers
    return rows


def _runs(subject: Subject, prepare: Prepare, images: ImageSet) -> bool:
    """Whether the network takes what a path gives; one that takes a single size may have been trained at another."""
    try:
        with in_mode(subject.module, training=False), torch.inference_mode():
            subject.module(prepare(images.images[:2]))
    except Exception:  # noqa: BLE001 - somebody else's network says in its own way that it takes no such input
        return False
    return True


def _misses_head(subject: Subject) -> bool:
    """Whether the optimizer misses a parameter of the head that is to train."""
    assert subject.evidence.optimizer is not None
    held = {id(parameter) for group in subject.evidence.optimizer.param_groups for parameter in group["params"]}
    return any(parameter.requires_grad and id(parameter) not in held for parameter in head_parameters(subject))
