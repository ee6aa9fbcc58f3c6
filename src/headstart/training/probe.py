"""The convex probe: a linear head on frozen features, fitted to convergence, its L2 chosen on val.

Multinomial logistic regression with an L2 penalty (softmax_regression.py) on standardised features, z = (x - mean) / deviation
(standardised.py). It is convex: the result does not depend on a start, a rate or a patience (Bishop 2006, section 4.3.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headstart.files import read_rows
from headstart.records import Indices, Labels, Logits
from headstart.training.softmax_regression import SoftmaxRegression, time_of_a_pass
from headstart.training.standardised import BLOCK, StandardisedRows

Array = npt.NDArray[np.float32]

L2_PATH = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Tried from the strongest to the weakest, each starting from the one before. Chosen: it spans what val prefers from
100 to 50,000 images; the path ends early once val has become worse twice."""

_GIVE_UP_AFTER = 2
_TO_CHOOSE, TO_COMPARE, _TO_THE_END = 1e-4, 1e-6, 1e-7
"""At which share of the value a fit ends: one that only chooses the L2, one of a whole path, and the chosen one. Measured on 45,000 x
1,280 features of CIFAR-10: val losses of the first differ by at most 0.001, and choose the same L2 (docs/log.md)."""

_PASSES = 100
"""Over the training rows, for a whole path. Measured: 57 to 113 with 500 to 45,000 images of CIFAR-10 and with 2,000 and 10,000 of Tiny
ImageNet's 200 classes; 190 and 331 with the digits, which end at the weakest penalty (docs/log.md)."""


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
    features: npt.NDArray[np.floating],
    labels: Labels,
    train: Indices,
    val: Indices,
    classes: int,
    *,
    l2_path: Sequence[float] = L2_PATH,
    whole_path: bool = False,
) -> LinearHead:
    """Fit the probe for each L2 of the path and keep the one with the lowest val loss.

    Args:
        features: `(N, D)` of any floating type, possibly memory-mapped; computed with in float32.
        labels: `(N,) int64` in `0..classes-1`.
        train, val: `(n,) int64` each, the rows to fit on and those to choose the L2 on.
        classes: number of classes.
        l2_path: penalties to try, from the strongest to the weakest.
        whole_path: fit all of them closely, even where val has become worse twice.

    Returns:
        The head; it is a function of its arguments alone.

    Raises:
        DataError: there are so many rows that they go to a file, and its disk is full.
    """
    with StandardisedRows(features, train) as rows:
        regression = SoftmaxRegression(rows, torch.from_numpy(labels[train]), classes)
        fitted = best = regression.start
        best_loss, losses, worse = np.inf, [], 0
        for l2 in l2_path:
            fitted = regression.minimise(l2, fitted, TO_COMPARE if whole_path else _TO_CHOOSE)
            val_loss = _mean_loss(fitted, rows, features, labels, val)
            losses.append((l2, val_loss))
            if val_loss < best_loss:
                best, best_loss, worse = fitted, val_loss, 0
            else:
                worse += 1
                if worse == _GIVE_UP_AFTER and not whole_path:
                    break
        chosen = min(losses, key=lambda pair: pair[1])[0]
        best = regression.minimise(chosen, best, _TO_THE_END)
    folded = best[:, :-1].numpy() / rows.deviation
    return LinearHead(
        weight=folded.astype(np.float32),
        bias=(best[:, -1].numpy() - folded @ rows.mean).astype(np.float32),
        l2=chosen,
        val_losses=tuple(losses),
    )


def _mean_loss(
    parameters: torch.Tensor, rows: StandardisedRows, features: npt.NDArray[np.floating], labels: Labels, part: Indices
) -> float:
    """Cross-entropy of a part's rows, standardised as the training's, a block at a time."""
    total = 0.0
    for block in (part[first : first + BLOCK] for first in range(0, len(part), BLOCK)):
        some = torch.from_numpy(rows.applied(np.asarray(read_rows(features, block), np.float32)))
        logits = some @ parameters[:, :-1].T + parameters[:, -1]
        total += float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[block]), reduction="sum"))
    return total / len(part) if len(part) else float("nan")


def predict_probe_seconds(images: int, features: int, classes: int) -> float:
    """Predict how long `fit_probe` takes on this machine, from its products timed on a thousand random rows.

    Args:
        images: number of training images.
        features: numbers that each image has; timing 1,280 of them takes a quarter of a second.
        classes: number of classes.

    Returns:
        Seconds.
    """
    once, each = time_of_a_pass(images, features, classes)
    return once + _PASSES * each
