"""The convex probe: a linear head on frozen features, fitted to convergence, its L2 chosen on val.

Multinomial logistic regression with an L2 penalty on standardised features, z = (x - mean) / deviation
(softmax_regression.py). It is convex: the result does not depend on a start, a rate or a patience (Bishop 2006, section 4.3.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from headstart.records import Labels, Logits
from headstart.training.softmax_regression import SoftmaxRegression, time_of_a_pass

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
    overwrite_train: bool = False,
) -> LinearHead:
    """Fit the probe for each L2 of the path and keep the one with the lowest val loss.

    Args:
        train_features, val_features: `(n, D) float32`.
        train_labels, val_labels: `(n,) int64` in `0..classes-1`.
        classes: number of classes.
        l2_path: penalties to try, from the strongest to the weakest.
        whole_path: fit all of them closely, even where val has become worse twice.
        overwrite_train: the training features may be used up: a copy less, of a quarter of a gigabyte with 50,000 images.

    Returns:
        The head; it is a function of its arguments alone.
    """
    mean = train_features.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = np.subtract(train_features, mean, out=train_features if overwrite_train else None)
    deviation = np.sqrt(np.einsum("nd,nd->d", centred, centred, dtype=np.float64) / len(centred)).astype(np.float32)
    deviation = np.where(deviation > _SMALLEST_DEVIATION, deviation, 1.0).astype(np.float32)
    centred /= deviation
    rows = SoftmaxRegression(torch.from_numpy(centred), torch.from_numpy(train_labels), classes)
    del centred
    val = torch.from_numpy((val_features - mean) / deviation)
    val_targets = torch.from_numpy(val_labels)
    fitted = best = rows.start
    best_loss, losses, worse = np.inf, [], 0
    for l2 in l2_path:
        fitted = rows.minimise(l2, fitted, TO_COMPARE if whole_path else _TO_CHOOSE)
        logits = val @ fitted[:, :-1].T + fitted[:, -1]
        val_loss = float(torch.nn.functional.cross_entropy(logits, val_targets))
        losses.append((l2, val_loss))
        if val_loss < best_loss:
            best, best_loss, worse = fitted, val_loss, 0
        else:
            worse += 1
            if worse == _GIVE_UP_AFTER and not whole_path:
                break
    chosen = min(losses, key=lambda pair: pair[1])[0]
    best = rows.minimise(chosen, best, _TO_THE_END)
    folded = best[:, :-1].numpy() / deviation
    return LinearHead(
        weight=folded.astype(np.float32),
        bias=(best[:, -1].numpy() - folded @ mean).astype(np.float32),
        l2=chosen,
        val_losses=tuple(losses),
    )


def predict_probe_seconds(images: int, features: int, classes: int) -> float:
    """Predict how long `fit_probe` takes on this machine, from its products timed on random rows: a quarter of a second.

    Args:
        images: number of training images.
        features: numbers that each image has.
        classes: number of classes.
    """
    once, each = time_of_a_pass(images, features, classes)
    return once + _PASSES * each
