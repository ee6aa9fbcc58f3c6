"""The mean log loss of a linear classifier, and what the probe minimises: that and its penalty."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

_ROWS = 5000  # at a time: in double precision they are twice as large


def penalised(
    standardised: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
    weight: npt.NDArray[Any],
    bias: npt.NDArray[Any],
    l2: float,
) -> dict[str, float]:
    """Judge a fit in double precision.

    Args:
        standardised: `(n, D)` features as the penalty sees them.
        labels: `(n,)` from 0.
        weight, bias: `(C, D)` and `(C,)`.
        l2: strength of the penalty `l2 / 2 * sum(weight ** 2)` beside the mean log loss.

    Returns:
        `log_loss` (mean, nats) and `objective`, the log loss with the penalty.
    """
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    total = 0.0
    for first in range(0, len(labels), _ROWS):
        logits = standardised[first : first + _ROWS].astype(np.float64) @ weight.T + bias
        chosen = logits[np.arange(len(logits)), labels[first : first + _ROWS]]
        total += float((logsumexp(logits, axis=1) - chosen).sum())
    log_loss = total / len(labels)
    return {"log_loss": log_loss, "objective": log_loss + 0.5 * l2 * float(np.square(weight).sum())}
