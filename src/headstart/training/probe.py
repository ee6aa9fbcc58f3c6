"""The convex probe: a linear head on frozen features, fitted to convergence, its L2 chosen on val.

Multinomial logistic regression with an L2 penalty, minimised by L-BFGS on standardised features:

    (1/n) sum_i  -log softmax(W z_i + b)[y_i]  +  (l2 / 2) ||W||^2 ,   z = (x - mean) / deviation

It is convex: the result does not depend on a start, a rate or a patience (Bishop 2006, section 4.3.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
import torch

from headstart.records import Labels, Logits

Array = npt.NDArray[np.float32]

L2_PATH = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Tried from the strongest to the weakest, each starting from the one before. Chosen: it spans what val prefers from
100 to 50,000 images; the path ends early once val has become worse twice."""

_GIVE_UP_AFTER = 2
_MAX_ITERATIONS = 200  # chosen: enough to converge on standardised features (gradient below 1e-5)
_GRADIENT_TOLERANCE = 1e-5
_CHOICE_TOLERANCE = 3e-4
"""Of the fits that only choose the L2; the chosen one is then minimised to the end. Measured on 45,000 x 1,280 features of
CIFAR-10: val losses differ by at most 0.001, the choice does not, and the path takes half of the time (docs/log.md)."""

_APART = 1e-9
_SMALLEST_DEVIATION = 1e-6  # a feature that never moves says nothing; it must not be divided by zero


@dataclass(frozen=True)
class LinearHead:
    """`(N, D) float32` features to `(N, C) float32` logits: `features @ weight.T + bias`, standardisation folded in.

    `weight` is `(C, D) float32`, `bias` is `(C,) float32`, `l2` the penalty that val chose, `val_losses` its whole path.
    """

    weight: Array
    bias: Array
    l2: float
    val_losses: tuple[tuple[float, float], ...]

    def logits(self, features: Array) -> Logits:
        """Return `(N, C) float32` logits."""
        result: Logits = features @ self.weight.T + self.bias
        return result


def fit_probe(
    train_features: Array,
    train_labels: Labels,
    val_features: Array,
    val_labels: Labels,
    classes: int,
    *,
    l2_path: Sequence[float] = L2_PATH,
    whole_path: bool = False,
) -> LinearHead:
    """Fit the probe for each L2 of the path and keep the one with the lowest val loss.

    Args:
        train_features, val_features: `(n, D) float32`.
        train_labels, val_labels: `(n,) int64` in `0..classes-1`.
        classes: number of classes.
        l2_path: penalties to try, from the strongest to the weakest.
        whole_path: fit all of them to the end, even where val has become worse twice.

    Returns:
        The head; it is a function of its arguments alone.
    """
    mean = train_features.mean(axis=0, dtype=np.float64).astype(np.float32)
    # In place from here on: with 50,000 images each copy of the features takes a quarter of a gigabyte.
    centred = train_features - mean
    deviation = np.sqrt(np.einsum("nd,nd->d", centred, centred, dtype=np.float64) / len(centred)).astype(np.float32)
    deviation = np.where(deviation > _SMALLEST_DEVIATION, deviation, 1.0).astype(np.float32)
    centred /= deviation
    standardised = torch.from_numpy(centred)
    variances, axes = _principal_axes(standardised)
    rotated = standardised @ axes
    del centred, standardised
    val_rotated = torch.from_numpy((val_features - mean) / deviation) @ axes
    labels, val_targets = torch.from_numpy(train_labels), torch.from_numpy(val_labels)
    dimensions = rotated.shape[1]
    flat = np.zeros(classes * (dimensions + 1))
    best, best_loss, losses, worse = flat, np.inf, [], 0
    for l2 in l2_path:
        tolerance = _GRADIENT_TOLERANCE if whole_path else _CHOICE_TOLERANCE
        flat = _minimise(rotated, labels, classes, l2, variances, flat, tolerance)
        weight, bias = _unpack(flat, classes, dimensions)
        logits = val_rotated @ weight.T + bias
        val_loss = float(torch.nn.functional.cross_entropy(logits, val_targets))
        losses.append((l2, val_loss))
        if val_loss < best_loss:
            best, best_loss, worse = flat, val_loss, 0
        else:
            worse += 1
            if worse == _GIVE_UP_AFTER and not whole_path:
                break
    chosen = min(losses, key=lambda pair: pair[1])[0]
    best = _minimise(rotated, labels, classes, chosen, variances, best, _GRADIENT_TOLERANCE)
    weight, bias = _unpack(best, classes, dimensions)
    folded = (weight @ axes.T).numpy() / deviation
    return LinearHead(
        weight=folded.astype(np.float32),
        bias=(bias.numpy() - folded @ mean).astype(np.float32),
        l2=chosen,
        val_losses=tuple(losses),
    )


def _principal_axes(standardised: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variances `(D,)` and orthonormal axes `(D, D)` of the features. A rotation leaves the penalty as it is."""
    gram = (standardised.T @ standardised / len(standardised)).double()
    # Many directions without any variance make LAPACK give up now and then; a billionth of the mean variance sets them apart.
    gram.diagonal().add_(_APART * max(float(gram.diagonal().mean()), _SMALLEST_DEVIATION))
    variances, axes = torch.linalg.eigh(gram)
    return variances.clamp(min=0).float(), axes.float()


def _minimise(
    features: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    l2: float,
    variances: torch.Tensor,
    start: npt.NDArray[np.float64],
    tolerance: float,
) -> npt.NDArray[np.float64]:
    """Minimise for one L2, from `start`, in coordinates in which the loss curves about equally in every direction.

    With all classes equally likely the Hessian along principal axis d is `p (1 - p) variance_d + l2`, p = 1 / classes (Böhning
    1992). Dividing by its root saves most of L-BFGS' iterations (docs/log.md); the minimum is the same.
    """
    count, dimensions = features.shape
    one_hot = torch.nn.functional.one_hot(labels, classes).float()
    curvature = (1 - 1 / classes) / classes
    scale = (
        torch.cat([(curvature * variances + l2).sqrt().repeat(classes), torch.full((classes,), curvature**0.5)])
        .double()
        .numpy()
    )

    def value_and_gradient(scaled: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weight, bias = _unpack(scaled / scale, classes, dimensions)
        log_probabilities = torch.log_softmax(features @ weight.T + bias, dim=1)
        loss = -(log_probabilities * one_hot).sum(dtype=torch.float64) / count
        error = (log_probabilities.exp() - one_hot) / count
        gradient = torch.cat([(error.T @ features + l2 * weight).flatten(), error.sum(0)])
        penalty = 0.5 * l2 * float(weight.double().square().sum())
        return float(loss) + penalty, np.asarray(gradient.double().numpy() / scale)

    found = scipy.optimize.minimize(
        value_and_gradient,
        start * scale,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "gtol": tolerance, "ftol": 1e-10, "maxcor": 10},
    )
    return np.asarray(found.x / scale, dtype=np.float64)


def _unpack(flat: npt.NDArray[np.float64], classes: int, dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
    parameters = torch.from_numpy(flat.astype(np.float32))
    return parameters[: classes * dimensions].view(classes, dimensions), parameters[classes * dimensions :]
