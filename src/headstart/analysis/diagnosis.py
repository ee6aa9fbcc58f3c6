"""What the counterfactual runs of a diagnosis say: shares of the lost points, interactions, and the order of the causes.

A pipeline has some faults; every subset of them, called a cell, was measured on the same images. The points lost between
"all faults" and "none" are shared out by the Shapley value (Shapley 1953; for regression Lipovetsky and Conklin 2001): the
mean, over the orders in which the faults could be repaired, of what each repair adds. The shares sum to the whole loss.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart.analysis.statistics import Estimate, mean_estimate
from headstart.randomness import generator
from headstart.records import Booleans

Status = Literal["proved", "suspected", "could-not-look", "cleared"]
Cell = frozenset[int]
Floats = npt.NDArray[np.floating]

CATALOGUE: dict[int, str] = {
    1: "input-size",
    2: "padding",
    3: "pixel-range",
    4: "double-scaling",
    5: "channel-order",
    6: "train-serve-mismatch",
    7: "interpolation",
    8: "batch-norm-training",
    9: "batch-norm-overwritten",
    10: "batch-norm-domain",
    11: "learning-rate",
    12: "optimizer-misses-parameters",
    13: "weights-not-loaded",
    14: "loss-activation",
    15: "label-order",
    16: "duplicates",
    17: "test-used-for-selection",
    18: "pretraining-overlap",
    19: "cached-augmentation",
    20: "domain-gap",
    21: "underfit-head",
    22: "overfit",
    23: "unfair-scratch",
}
"""Ways in which transfer learning fails, by number (docs/why-transfer-fails.md)."""

NOT_LOADED, DOMAIN_GAP = 13, 20
OF_PIXELS = frozenset({1, 2, 3, 4, 5, 7})
"""Causes that another preprocessing repairs."""

FULL_FACTORIAL = 5
"""Up to this many faults every subset is measured (32 cells); beyond it only those on a few orders of repair (chosen)."""

LEAST_POINTS = 1.0
"""Chosen: a share below one point is no reason to change a recipe."""

_SAMPLED_ORDERS = 6  # and as many reversed: a fault's first and last places then come up equally often
_PAIR = 2
_NAMED_INTERACTION = 2.0  # points: chosen, twice what counts as a cause
_SAME_FEATURES = 0.01  # chosen: of the features' length; float32 in another order stays below 1e-4
_RANK: dict[Status, int] = {"proved": 0, "suspected": 1, "could-not-look": 2, "cleared": 3}


@dataclass(frozen=True)
class Finding:
    """What is known of one cause.

    Attributes:
        cause: its number in `CATALOGUE`.
        status: `proved` (its points were measured), `suspected`, `could-not-look`, `cleared`.
        code: of the evidence (`diagnosis_evidence.<code>` in the report's texts).
        values: measured, for the evidence's sentence.
        points: lost to it, its share, in percentage points.
        alone: what it would still cost once every other suspected cause is repaired, in points.
        like: causes that this data cannot tell it from.
        apart: whether its points lie outside the way from the failing to the repaired accuracy, such as those of serving.
    """

    cause: int
    status: Status
    code: str
    values: Mapping[str, Any]
    points: Estimate | None = None
    alone: Estimate | None = None
    like: tuple[int, ...] = ()
    apart: bool = False


@dataclass(frozen=True)
class Interaction:
    """What `cause` costs while `other` is there too, and once it is repaired, in points; `difference` is the first minus the second."""

    cause: int
    other: int
    points_with: float
    points_without: float
    difference: Estimate


def repair_orders(factors: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    """The orders of repair to average over: all of them for up to five faults, otherwise a balanced sample.

    Args:
        factors: the faults.
        seed: of the sample.
    """
    if len(factors) <= FULL_FACTORIAL:
        return list(itertools.permutations(factors))
    rng = generator(seed, "orders of repair")
    drawn = [tuple(int(cause) for cause in rng.permutation(factors)) for _ in range(_SAMPLED_ORDERS)]
    return [*drawn, *(order[::-1] for order in drawn)]


def needed_cells(orders: Iterable[tuple[int, ...]]) -> list[Cell]:
    """The subsets of faults still present that the orders pass through, and each fault and pair alone; the most faulty first."""
    orders = list(orders)
    cells = {frozenset(order[repaired:]) for order in orders for repaired in range(len(order) + 1)}
    cells |= {frozenset(few) for size in range(1, _PAIR + 1) for few in itertools.combinations(orders[0], size)}
    return sorted(cells, key=lambda cell: (-len(cell), sorted(cell)))


def shapley_shares(
    cells: Mapping[Cell, Booleans], orders: Sequence[tuple[int, ...]], confidence: float = 0.95
) -> dict[int, Estimate]:
    """Share the lost points out among the faults.

    The Shapley value is linear in the accuracies, so every image has its own: intervals come from resampling images and
    from the spread of the seeds, as for any accuracy.

    Args:
        cells: for each set of faults still present `(S, n) bool`, seeds by images, which were right.
        orders: from `repair_orders`.
        confidence: of the intervals.

    Returns:
        Points lost to each fault, largest first; they sum to 100 times (accuracy without faults - accuracy with all).
    """
    some = next(iter(cells.values()))
    sums = {cause: np.zeros(some.shape) for cause in orders[0]}
    for order in orders:
        for place, cause in enumerate(order):
            before, after = frozenset(order[place:]), frozenset(order[place + 1 :])
            sums[cause] += cells[after].astype(np.float64) - cells[before]
    shares = {
        cause: mean_estimate(100 * contributions / len(orders), confidence=confidence)
        for cause, contributions in sums.items()
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1].mean))


def interactions(cells: Mapping[Cell, Booleans], factors: Sequence[int], confidence: float = 0.95) -> list[Interaction]:
    """Pairs of faults of which one costs something else while the other is there; all further faults repaired.

    Each of the two changes by the same number of points; a pair is named for the one that changes more in proportion. Those
    whose difference is there for certain and counts; the one that changes most in proportion comes first.

    Args:
        cells: as for `shapley_shares`; every pair, every fault alone and none at all are among them.
        factors: the faults.
        confidence: that the intervals of all pairs cover together (Bonferroni: each has its share of what is left to chance).
    """
    right = {cell: 100 * correct.astype(np.float64) for cell, correct in cells.items() if len(cell) <= _PAIR}
    pairs = list(itertools.combinations(factors, _PAIR))
    found = []
    for first, second in pairs:
        clean, one, other, both = (right[frozenset(some)] for some in ((), (first,), (second,), (first, second)))
        difference = mean_estimate(other - both - (clean - one), confidence=1 - (1 - confidence) / len(pairs))
        certain = difference.low > 0 or difference.high < 0
        if certain and abs(difference.mean) >= _NAMED_INTERACTION:
            costs = (float(values.mean()) for values in (other - both, clean - one, one - both, clean - other))
            with_second, without_second, with_first, without_first = costs
            either = (
                Interaction(first, second, with_second, without_second, difference),
                Interaction(second, first, with_first, without_first, difference),
            )
            found.append(max(either, key=_change))
    return sorted(found, key=_change, reverse=True)


def _change(pair: Interaction) -> float:
    """How much the other fault changes what one costs, in proportion; 2 where it turns a loss into as large a gain."""
    return abs(pair.difference.mean) / max(abs(pair.points_with), abs(pair.points_without))


def alike(features: Mapping[Cell, Floats], factors: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Faults that these data cannot tell apart: whichever of the two is left, the network says the same.

    A pair is compared in every set of further faults that was measured with each of the two alone. Faults that change nothing
    are not alike, they are no faults.

    Args:
        features: for each set of faults still present `(m, D)`, of the same images.
        factors: the faults.

    Returns:
        For each fault that has such a twin all its twins.
    """
    twins: dict[int, list[int]] = {cause: [] for cause in factors}
    for one, other in itertools.combinations(factors, 2):
        contexts = [
            cell
            for cell in features
            if not cell & {one, other} and cell | {one} in features and cell | {other} in features
        ]
        pairs = [(features[cell], features[cell | {one}], features[cell | {other}]) for cell in contexts]
        equal = all(_same(left, right) for _, left, right in pairs)
        if equal and any(not _same(without, left) for without, left, _ in pairs):
            twins[one].append(other)
            twins[other].append(one)
    return {cause: tuple(others) for cause, others in twins.items() if others}


def _same(first: Floats, second: Floats) -> bool:
    scale = float(np.linalg.norm(first)) or 1.0
    return float(np.linalg.norm(first - second)) <= _SAME_FEATURES * scale


def costs_alone(
    cells: Mapping[Cell, Booleans], factors: Sequence[int], confidence: float = 0.95
) -> dict[int, Estimate]:
    """What each fault costs when it is the only one left, in points."""
    clean = cells[frozenset()].astype(np.float64)
    return {cause: mean_estimate(100 * (clean - cells[frozenset({cause})]), confidence=confidence) for cause in factors}


def judged(finding: Finding, points: Estimate, alone: Estimate | None = None) -> Finding:
    """A suspicion after its counterfactual.

    It is proved if its share counts, or if leaving it would still cost points that count: another fault may hide it, as a
    wrong range costs nothing at 32 px, where there is nothing left to lose, and eleven points once the size is right. It is
    cleared if both are shown to be too small to count; in between it stays a suspicion.
    """
    known = [estimate for estimate in (points, alone) if estimate is not None]
    status: Status = "suspected"
    if any(estimate.low > 0 and estimate.mean >= LEAST_POINTS for estimate in known):
        status = "proved"
    elif all(estimate.high < LEAST_POINTS for estimate in known):
        status = "cleared"
    return replace(finding, status=status, points=points, alone=alone)


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """By weight: proved ones by their points, then suspicions, then what could not be looked at, then what was cleared."""

    def weight(finding: Finding) -> tuple[int, float, int]:
        points = finding.points.mean if finding.points is not None else -math.inf
        return _RANK[finding.status], -points, finding.cause

    return sorted(findings, key=weight)


def waterfall(failing: float, repaired: float, proved: Sequence[Finding]) -> list[tuple[int | None, float]]:
    """Steps from the failing to the repaired accuracy: each proved cause with its points, then what they do not explain.

    Args:
        failing, repaired: accuracies 0..1, of the whole data.
        proved: with points measured on a part of the data; what is left over is the difference between the two. Points that
            lie apart are no step.
    """
    steps: list[tuple[int | None, float]] = [
        (finding.cause, finding.points.mean) for finding in proved if finding.points is not None and not finding.apart
    ]
    rest = 100 * (repaired - failing) - sum(points for _, points in steps)
    return [*steps, (None, rest)]


def best_meanings(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The relabelling of the predicted classes that makes most predictions right (Kuhn 1955): `(C,) int64`, one to one.

    Of several that are as good, one that leaves most classes as they are.

    Args:
        confusion: `(C, C) int64`, true by predicted.
    """
    from scipy.optimize import linear_sum_assignment  # here, so that other commands do not wait for it

    classes = len(confusion)
    rows, columns = linear_sum_assignment(confusion * (classes + 1) + np.eye(classes, dtype=np.int64), maximize=True)
    meant = np.empty(classes, np.int64)
    meant[columns] = rows
    return meant


def best_assignment(confusion: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Accuracy as it stands, and under the relabelling of the classes that is best for it.

    Args:
        confusion: `(C, C) int64`, true by predicted.

    Returns:
        Both 0..1; a large difference says that classes were permuted.
    """
    total = max(int(confusion.sum()), 1)
    meant = best_meanings(confusion)
    relabelled = float(confusion[meant, np.arange(len(confusion))].sum())
    return float(np.trace(confusion)) / total, relabelled / total
