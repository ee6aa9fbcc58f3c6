"""Multinomial logistic regression with an L2 penalty, minimised for one penalty after another.

    (1/n) sum_i  -log softmax(W z_i + b)[y_i]  +  (l2 / 2) ||W||^2

By limited-memory BFGS (Nocedal and Wright 2006, section 7.2) that begins with the curvature where all classes are equally likely: along
the features' principal axis d that is `p (1 - p) variance_d + l2`, p = 1 / classes. Without it the steps are about ten times as
many; sampling each class' own curvature saves steps and costs more than it saves (docs/log.md).
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from headstart.training.standardised import BLOCK, StandardisedRows

_Step = tuple[torch.Tensor, torch.Tensor]  # how far it moved the parameters, and turned the gradient

_MAX_STEPS = 300  # chosen: three times what 45,000 x 1,280 features need at the weakest penalty of the path
_MOST_REMEMBERED = 40  # measured: the whole path in 189 passes over the rows instead of 364 with 10 (docs/log.md)
_REMEMBERED_BYTES = 128 * 2**20  # chosen: 40 steps of 400,000 parameters; fewer are kept of more
_SUFFICIENT_DECREASE = 1e-4  # of the linear prediction (Nocedal and Wright 2006, section 3.1)
_SHORTEST_STEP = 1e-3  # chosen: ten times halved
_TURNED = 1e-6  # chosen: a smaller cosine between step and turn is rounding
_APART, _SMALLEST_VARIANCE = 1e-9, 1e-6  # chosen: see where they are used
_AXES_SHARE = 0.017  # measured: the principal axes of D features take 0.017 D times as long as the products of 1,000 rows (docs/log.md)
_OPERATIONS = 200  # chosen: a step works through its 40 remembered ones in about five sums over all parameters each
_TIMED = 5  # chosen: times that a product is timed


class SoftmaxRegression:
    """The rows, and the way to their minimum; `parameters` are `(C, D + 1) float32`, the biases last.

    Each fit begins with the steps of the one before: where it ends depends on that within its tolerance.
    """

    def __init__(self, rows: StandardisedRows, labels: torch.Tensor, classes: int) -> None:
        """Take n rows of D features and their `(n,) int64` labels in `0..classes-1`; find the principal axes."""
        self._rows = rows
        self._labels, self._classes = labels, classes
        products = torch.zeros(rows.width, rows.width)
        for block in rows.blocks():
            products.addmm_(block.T, block)
        gram = (products / len(rows)).double()
        # Many directions without any variance make LAPACK give up now and then; a billionth of the mean variance sets them apart.
        gram.diagonal().add_(_APART * max(float(gram.diagonal().mean()), _SMALLEST_VARIANCE))
        variances, axes = torch.linalg.eigh(gram)
        self._variances, self._axes = variances.clamp(min=0).float(), axes.float()
        self._remembered: list[_Step] = []
        self._penalty = 0.0

    @property
    def start(self) -> torch.Tensor:
        """Parameters that say nothing: all zero."""
        return torch.zeros(self._classes, self._rows.width + 1)

    def minimise(self, l2: float, start: torch.Tensor, tolerance: float) -> torch.Tensor:
        """Walk down from `start`.

        Args:
            l2: the penalty.
            start: `(C, D + 1) float32`.
            tolerance: share of the value; it ends where the steps made so far predict less than that to be gained.

        Returns:
            The parameters there, `(C, D + 1) float32`.
        """
        parameters = start
        value, gradient = self._value_and_gradient(parameters, l2)
        remembered = self._remembered_at(l2)
        most = max(1, min(_MOST_REMEMBERED, _REMEMBERED_BYTES // (2 * start.nbytes)))
        for _ in range(_MAX_STEPS):
            direction = _downhill(gradient, partial(self._inverse_curvature, l2=l2), remembered)
            predicted = -float((gradient * direction).sum())
            if not predicted / 2 >= tolerance * abs(value):  # not a number, too
                break
            length = 1.0
            new_value, new_gradient = self._value_and_gradient(parameters + direction, l2)
            while new_value > value - _SUFFICIENT_DECREASE * length * predicted and length > _SHORTEST_STEP:
                length /= 2
                new_value, new_gradient = self._value_and_gradient(parameters + length * direction, l2)
            if not new_value < value:
                if not remembered:
                    break  # as far down as float32 can tell
                remembered = []  # they mislead here
                continue
            step = (length * direction, new_gradient - gradient)
            moved, _ = step
            remembered = [*remembered, *([step] if _tells_curvature(step) else [])][-most:]
            parameters, value, gradient = parameters + moved, new_value, new_gradient
        self._remembered, self._penalty = remembered, l2
        return parameters

    def _remembered_at(self, l2: float) -> list[_Step]:
        """The last fit's steps, as they would have turned its gradient under this penalty: that much is exact."""
        more = l2 - self._penalty
        steps = [
            (moved, torch.cat([turned[:, :-1] + more * moved[:, :-1], turned[:, -1:]], 1))
            for moved, turned in self._remembered
        ]
        return [step for step in steps if _tells_curvature(step)]

    def _inverse_curvature(self, gradient: torch.Tensor, l2: float) -> torch.Tensor:
        """A gradient multiplied by the inverse of the curvature where all classes are equally likely."""
        chance = 1 / len(gradient)
        curvature = chance * (1 - chance)
        weight = (gradient[:, :-1] @ self._axes) / (curvature * self._variances + l2) @ self._axes.T
        return torch.cat([weight, gradient[:, -1:] / curvature], dim=1)

    def _value_and_gradient(self, parameters: torch.Tensor, l2: float) -> tuple[float, torch.Tensor]:
        loss, gradient = 0.0, torch.zeros_like(parameters)
        # Some rows at a time: they are still in the processor's cache when the gradient needs them.
        for features, labels in zip(self._rows.blocks(), torch.split(self._labels, BLOCK), strict=True):
            loss += _add_gradient(gradient, parameters, features, labels)
        gradient /= len(self._rows)
        weight = parameters[:, :-1]
        gradient[:, :-1] += l2 * weight
        return loss / len(self._rows) + 0.5 * l2 * float(weight.double().square().sum()), gradient


def _add_gradient(
    gradient: torch.Tensor, parameters: torch.Tensor, features: torch.Tensor, labels: torch.Tensor
) -> float:
    """Add some rows' gradient of the sum of their losses to `gradient`, and return that sum."""
    one_hot = torch.nn.functional.one_hot(labels, len(parameters)).float()
    log_probabilities = torch.log_softmax(torch.addmm(parameters[:, -1], features, parameters[:, :-1].T), dim=1)
    loss = -float((log_probabilities * one_hot).sum(dtype=torch.float64))
    error = log_probabilities.exp_().sub_(one_hot)
    gradient[:, :-1].addmm_(error.T, features)
    gradient[:, -1] += error.sum(0)
    return loss


def _tells_curvature(step: _Step) -> bool:
    moved, turned = step
    return float((moved * turned).sum()) > _TURNED * float(moved.norm() * turned.norm())


def _downhill(
    gradient: torch.Tensor,
    inverse: Callable[[torch.Tensor], torch.Tensor],
    remembered: list[_Step],
) -> torch.Tensor:
    """The direction of limited-memory BFGS (Nocedal and Wright 2006, algorithm 7.4); `inverse` is what it begins with."""
    rest, shares = gradient.clone(), []
    for moved, turned in reversed(remembered):
        share = float((moved * rest).sum() / (moved * turned).sum())
        shares.append(share)
        rest -= share * turned
    direction = inverse(rest)
    if remembered:
        moved, turned = remembered[-1]
        direction *= float((moved * turned).sum() / (turned * inverse(turned)).sum())
    for (moved, turned), share in zip(remembered, reversed(shares), strict=True):
        direction += (share - float((turned * direction).sum() / (moved * turned).sum())) * moved
    return -direction


def time_of_a_pass(rows: int, features: int, classes: int) -> tuple[float, float]:
    """Time the products of a fit on a block of random rows.

    Args:
        rows: of the fit.
        features: D, numbers of each row.
        classes: C.

    Returns:
        Seconds that a fit is expected to take once, before its first step, and for each pass over its rows.
    """
    some = torch.randn(BLOCK, features, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BLOCK) % classes
    parameters = torch.zeros(classes, features + 1)
    gram = _median_seconds(lambda: some.T @ some)
    block = _median_seconds(lambda: _add_gradient(torch.zeros_like(parameters), parameters, some, labels))
    operation = _median_seconds(lambda: (parameters * parameters).sum())
    blocks = rows / BLOCK
    return gram * (blocks + _AXES_SHARE * features), block * blocks + _OPERATIONS * operation


def _median_seconds(work: Callable[[], object]) -> float:
    work()  # the first one allocates
    durations: list[float] = []
    for _ in range(_TIMED):
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)
