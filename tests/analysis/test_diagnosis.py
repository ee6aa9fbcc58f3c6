"""Shares of the lost points: hand arithmetic, the sum, invariants, and the order of the causes."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from headstart.analysis.diagnosis import (
    CATALOGUE,
    Cell,
    Finding,
    alike,
    best_assignment,
    costs_alone,
    interactions,
    judged,
    needed_cells,
    ranked,
    repair_orders,
    shapley_shares,
    waterfall,
)
from headstart.analysis.statistics import Estimate
from headstart.records import Booleans


def _cell(right: int, of: int = 100) -> Booleans:
    return np.repeat((np.arange(of) < right)[None], 2, axis=0)


def _all_cells(accuracy: dict[tuple[int, ...], int]) -> dict[Cell, Booleans]:
    return {frozenset(faults): _cell(right) for faults, right in accuracy.items()}


def test_two_faults_by_hand() -> None:
    # Range costs 10 once the size is right and -2 while it is not; size costs 50 or 38.
    cells = _all_cells({(): 80, (1,): 30, (3,): 70, (1, 3): 32})
    shares = shapley_shares(cells, repair_orders([1, 3]))
    assert list(shares) == [1, 3]
    assert shares[1].mean == pytest.approx((38 + 50) / 2)
    assert shares[3].mean == pytest.approx((-2 + 10) / 2)
    assert sum(share.mean for share in shares.values()) == pytest.approx(80 - 32)
    alone = costs_alone(cells, [1, 3])
    assert [alone[1].mean, alone[3].mean] == pytest.approx([50, 10])
    # What the range costs less, the size costs less: 38 instead of 50. The pair is named for the one that changes more in proportion.
    for factors in ([1, 3], [3, 1]):
        (pair,) = interactions(cells, factors)
        assert (pair.cause, pair.other) == (3, 1)
        assert [pair.points_with, pair.points_without, pair.difference.mean] == pytest.approx([-2, 10, -12])


def test_intervals_of_interactions_cover_all_pairs_together() -> None:
    cells = _all_cells({(): 80, (1,): 30, (3,): 70, (1, 3): 32})
    more = cells | {cell | {7}: correct for cell, correct in cells.items()}  # a third fault that changes nothing
    (alone,) = interactions(cells, [1, 3])
    (among_three,) = interactions(more, [1, 3, 7])
    assert (among_three.cause, among_three.other) == (alone.cause, alone.other)
    assert among_three.difference.mean == alone.difference.mean
    assert among_three.difference.high - among_three.difference.low > alone.difference.high - alone.difference.low


def test_an_interaction_that_chance_explains_is_not_named() -> None:
    rng = np.random.default_rng(1)
    rights = {(): 0.8, (1,): 0.5, (3,): 0.7, (1, 3): 0.4}  # no interaction, but few images
    cells = {frozenset(faults): rng.random((3, 60)) < right for faults, right in rights.items()}
    clean, one, second, both = (100 * cells[frozenset(faults)].mean() for faults in rights)
    assert abs((second - both) - (clean - one)) > 2
    assert interactions(cells, [1, 3]) == []


def test_every_fault_and_every_pair_is_measured_however_many_there_are() -> None:
    factors = list(range(1, 8))
    cells = set(needed_cells(repair_orders(factors)))
    for pair in itertools.combinations(factors, 2):
        assert {frozenset(pair), frozenset(pair[:1]), frozenset(pair[1:]), frozenset[int]()} <= cells


@pytest.mark.parametrize("count", [3, 6])
def test_shares_sum_to_the_loss_and_do_not_hang_on_names(count: int) -> None:
    rng = np.random.default_rng(count)
    factors = list(range(1, count + 1))
    orders = repair_orders(factors)
    cells = {cell: rng.random((3, 50)) < 0.9 - 0.1 * len(cell) for cell in needed_cells(orders)}
    shares = shapley_shares(cells, orders)
    whole = 100 * (cells[frozenset()].mean() - cells[frozenset(factors)].mean())
    assert sum(share.mean for share in shares.values()) == pytest.approx(whole)
    renamed = {cause: cause + 10 for cause in factors}
    again = shapley_shares(
        {frozenset(renamed[cause] for cause in cell): right for cell, right in cells.items()},
        [tuple(renamed[cause] for cause in order) for order in orders],
    )
    for cause in factors:
        assert again[renamed[cause]].mean == pytest.approx(shares[cause].mean)


def test_the_definition_and_the_average_over_orders_agree() -> None:
    rng = np.random.default_rng(0)
    factors = (1, 2, 3)
    cells = {frozenset(s): rng.random((1, 40)) < 0.5 for n in range(4) for s in itertools.combinations(factors, n)}
    value = {cell: 100 * float(right.mean()) for cell, right in cells.items()}
    shares = shapley_shares(cells, repair_orders(factors))
    for cause in factors:
        rest = [other for other in factors if other != cause]
        expected = 0.0
        for size in range(3):
            for repaired in itertools.combinations(rest, size):
                left = frozenset(rest) - set(repaired)
                weight = math.factorial(size) * math.factorial(2 - size) / math.factorial(3)
                expected += weight * (value[left] - value[left | {cause}])
        assert shares[cause].mean == pytest.approx(expected)


def test_up_to_five_faults_every_subset_is_measured_beyond_that_few() -> None:
    assert len(needed_cells(repair_orders([1, 2, 3, 4, 5]))) == 32
    orders = repair_orders([1, 2, 3, 4, 5, 7])
    assert len(orders) == 12
    assert len(needed_cells(orders)) < 64
    firsts, lasts = sorted(order[0] for order in orders), sorted(order[-1] for order in orders)
    assert firsts == lasts


def test_a_fault_that_another_hides_is_proved_by_what_it_costs_alone() -> None:
    suspicion = Finding(3, "suspected", "other-range", {})
    small = Estimate(0.4, -0.5, 1.3, "bootstrap")
    assert judged(suspicion, small).status == "suspected"  # it may still be 1.3 points
    assert judged(suspicion, Estimate(0.2, -0.5, 0.9, "bootstrap")).status == "cleared"
    assert judged(suspicion, small, Estimate(6.0, 4.0, 8.0, "bootstrap")).status == "proved"
    assert judged(suspicion, Estimate(5.0, 3.0, 7.0, "bootstrap")).status == "proved"


def test_order_and_waterfall() -> None:
    def finding(cause: int, status: str, points: float | None = None) -> Finding:
        estimate = None if points is None else Estimate(points, points - 1, points + 1, "bootstrap")
        return Finding(cause, status, "", {}, estimate)  # type: ignore[arg-type]

    order = ranked(
        [
            finding(2, "cleared"),
            finding(6, "could-not-look"),
            finding(3, "proved", 4),
            finding(1, "proved", 52),
            finding(9, "suspected"),
        ]
    )
    assert [one.cause for one in order] == [1, 3, 9, 6, 2]
    steps = waterfall(0.28, 0.86, order[:2])
    assert [cause for cause, _ in steps] == [1, 3, None]
    assert sum(points for _, points in steps) == pytest.approx(58)
    apart = [replace(one, apart=one.cause == 3) for one in order[:2]]
    assert [cause for cause, _ in waterfall(0.28, 0.86, apart)] == [1, None]
    assert sum(points for _, points in waterfall(0.28, 0.86, apart)) == pytest.approx(58)
    assert sorted(CATALOGUE) == list(range(1, 24))


def test_a_permuted_class_map_is_undone() -> None:
    confusion = np.array([[0, 9, 1], [1, 0, 9], [8, 1, 1]])
    as_is, relabelled = best_assignment(confusion)
    assert as_is == pytest.approx(1 / 30)
    assert relabelled == pytest.approx(26 / 30)


def test_faults_with_the_same_features_are_alike() -> None:
    good, bad, worse = (np.full((4, 3), value) for value in (1.0, 2.0, 5.0))
    none, first, second, both = (frozenset(cell) for cell in ((), (3,), (4,), (3, 4)))
    assert alike({none: good, first: bad, second: bad, both: worse}, [3, 4]) == {3: (4,), 4: (3,)}
    assert alike({none: good, first: bad, second: worse, both: worse}, [3, 4]) == {}
    assert alike({none: good, first: good, second: good, both: good}, [3, 4]) == {}, "no faults at all"
    assert alike({none: good, both: worse}, [3, 4]) == {}, "never measured alone"
