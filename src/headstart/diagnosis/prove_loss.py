"""Proving that a loss does not suit the outputs (14): a linear head that is trained with it cannot fit fifty images.

The network's last linear layer is trained anew on its own frozen features of a few training images, from zero, by plain gradient
steps on all of them: once through the network's own output function and its owner's loss, once with cross-entropy on the layer's
raw scores. Both have the same steps and the same choice of rates, so that a loss of another scale is not blamed for its scale:
softmax twice, which is slow but fits, stays a suspicion.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from headstart.analysis.diagnosis import LEAST_POINTS, Finding
from headstart.analysis.statistics import paired_difference
from headstart.diagnosis.modules import find_classifier, in_mode, one_tensor
from headstart.diagnosis.prove import stratified
from headstart.diagnosis.subject import Loss, Subject
from headstart.randomness import generator
from headstart.records import Booleans, ImageSet, Indices

_FEW = 50  # the catalogue's test: a network that cannot fit fifty images is broken
_CLASSES = 10  # that they come from: five images of each
_STEPS = 2000  # chosen: cross-entropy takes 20 to 500 on 20 to 1280 features; half a second in all
_LOOK_EVERY = 10
_RATES = (1.0, 10.0, 100.0)  # chosen, times what cross-entropy descends with for certain: softmax twice takes 10 to 100
_AS_FAST = 2  # chosen: a loss that takes at most so many times the steps of cross-entropy costs nothing
_ONLY_HIGH = (
    "first-loss-off"  # the one suspicion that this can clear: probabilities given as scores are a fault at any speed
)
_SAME = 1e-4  # absolute: float32 of an output function computed in another order
_SMALLEST_DEVIATION = 1e-6

_OUTPUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda scores: scores,
    "softmax": lambda scores: scores.softmax(1),
    "log-softmax": lambda scores: scores.log_softmax(1),
    "sigmoid": lambda scores: scores.sigmoid(),
    "relu": lambda scores: scores.relu(),
    "tanh": lambda scores: scores.tanh(),
    "softmax over the batch": lambda scores: scores.softmax(0),
}
"""What may stand between the last linear layer and a network's outputs."""


@dataclass(frozen=True)
class _LastLayer:
    """Features that go into the last linear layer, `(n, D)`, its columns, and what its scores become; `None` where that is not known."""

    features: torch.Tensor
    columns: int
    output: Callable[[torch.Tensor], torch.Tensor] | None


@dataclass(frozen=True)
class _Fit:
    """Which images were right at best, `(n,) bool`, and after how many steps all of them were with the first rate, if ever."""

    correct: Booleans
    steps: int | None


def prove_loss(finding: Finding, subject: Subject, images: ImageSet, sample: Indices) -> Finding:
    """Cause 14: whether the owner's loss, on outputs as the network gives them, can fit what cross-entropy on raw scores fits.

    Args:
        finding: from the look.
        subject: with its loss.
        images: the set.
        sample: images of train.

    Returns:
        Proved if the loss gets fewer of the images right, with 95% and by at least one point; cleared if nothing was strange but
        its floor and it fits all of them as fast as cross-entropy (label smoothing never comes to zero, and does no harm);
        otherwise as it was looked at. No points: a few training images say that training fails, not what it costs.
    """
    loss = subject.evidence.loss
    classes = len(images.class_names)
    if loss is None or finding.status not in ("suspected", "cleared"):
        return finding
    part = _few(images, sample)
    layer = _last_layer(subject, images, part, classes)
    if layer is None or layer.output is None:
        return finding
    labels = torch.from_numpy(images.labels[part])
    inputs = _coordinates(layer.features)
    right = _fit(inputs, labels, classes, _OUTPUTS["none"], cross_entropy)
    ours = _fit(inputs, labels, layer.columns, layer.output, loss)
    if right is None or ours is None:
        return finding
    behind = paired_difference(right.correct[None], ours.correct[None])
    if behind.low > 0 and 100 * behind.mean >= LEAST_POINTS:
        values = {
            "count": len(part),
            "head": round(float(ours.correct.mean()), 4),
            "probe": round(float(right.correct.mean()), 4),
        }
        return replace(finding, status="proved", code="cannot-fit-few", values=values)
    as_fast = ours.steps is not None and right.steps is not None and ours.steps <= _AS_FAST * right.steps
    if finding.code == _ONLY_HIGH and as_fast:
        return replace(finding, status="cleared", code="fits-few", values={"count": len(part)})
    return finding


def _few(images: ImageSet, sample: Indices) -> Indices:
    """Fifty images of the sample, of ten classes at most."""
    drawn = generator(0, "diagnosis", "few classes").permutation(len(images.class_names))[:_CLASSES]
    return stratified(images, sample[np.isin(images.labels[sample], drawn)], _FEW, "few to fit")


def _last_layer(subject: Subject, images: ImageSet, part: Indices, classes: int) -> _LastLayer | None:
    """Watch the network's last linear layer at work; `None` where there is none, or it is not called once for each image."""
    watched = subject.module if subject.head is None else subject.head
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    with in_mode(subject.module, training=False), in_mode(watched, training=False), torch.inference_mode():
        inputs = subject.prepare(images.images[part])
        outputs = one_tensor(subject.module(inputs))
        if subject.head is not None:
            outputs = one_tensor(subject.head(outputs))
        name = find_classifier(watched, outputs, classes)
        if name is None:
            return None
        layer: nn.Module = watched.get_submodule(name)
        handle = layer.register_forward_hook(lambda _, given, scores: seen.append((given[0], scores)))
        try:
            outputs = one_tensor(subject.module(inputs))
            if subject.head is not None:
                outputs = one_tensor(subject.head(outputs))
        finally:
            handle.remove()
    if len(seen) != 1 or seen[0][1].shape != outputs.shape:
        return None
    features, scores = seen[0]
    same = [one for one in _OUTPUTS.values() if torch.allclose(one(scores), outputs, rtol=0, atol=_SAME)]
    return _LastLayer(features.detach().clone().float().cpu(), scores.shape[1], same[0] if same else None)


def _coordinates(features: torch.Tensor) -> torch.Tensor:
    """Standardised features, a column of ones beside them, in the span of the images: `(n, n)` at most.

    Gradient descent from zero never leaves that span, so a layer in these coordinates takes the very same steps.
    """
    features = torch.nan_to_num(features, posinf=0.0, neginf=0.0)
    deviation = features.std(0, correction=0)
    centred = (features - features.mean(0)) / torch.where(deviation > _SMALLEST_DEVIATION, deviation, 1.0)
    left, singular, _ = torch.linalg.svd(torch.cat([centred, torch.ones(len(centred), 1)], 1), full_matrices=False)
    coordinates: torch.Tensor = (left * singular).contiguous()
    return coordinates


def _fit(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    columns: int,
    output: Callable[[torch.Tensor], torch.Tensor],
    loss: Loss,
) -> _Fit | None:
    """Train a linear layer from zero with each rate; the best that it gets right. `None` where the loss has no gradient at all.

    Its columns are one for each class, or one for the second of two.
    """
    # With this rate cross-entropy cannot diverge: its curvature is at most half of the inputs' (Böhning 1992).
    safe = 2 / float(torch.linalg.matrix_norm(inputs, 2) ** 2 / len(inputs))
    best, steps = np.zeros(len(labels), bool), None
    for rate in _RATES:
        weights = torch.zeros(inputs.shape[1], columns, requires_grad=True)
        for step in range(1, _STEPS + 1):
            value = loss(output(inputs @ weights), labels)
            if not isinstance(value, torch.Tensor) or not value.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(value, weights)
            with torch.no_grad():
                weights -= safe * rate * gradient
                if not bool(weights.isfinite().all()):
                    break
                if step % _LOOK_EVERY:
                    continue
                correct: Booleans = (_answers(output, inputs @ weights) == labels).numpy()
            if correct.mean() > best.mean():
                best = correct
            if correct.all():
                steps = step if rate == _RATES[0] else steps
                break
        if best.all():
            break
    return _Fit(best, steps)


def _answers(output: Callable[[torch.Tensor], torch.Tensor], scores: torch.Tensor) -> torch.Tensor:
    """Classes `(n,) int64`: of one column the second where the output is above that of a score of zero."""
    outputs = output(scores)
    return outputs.argmax(1) if scores.shape[1] > 1 else (outputs > output(torch.zeros_like(scores)))[:, 0].long()
