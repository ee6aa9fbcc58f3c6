"""What the cells of an experiment say of each cause."""

import numpy as np
import pytest

from headstart.analysis.diagnosis import Finding, costs_alone, judged, repair_orders, shapley_shares
from headstart.diagnosis.examine import _shared_as_repaired
from headstart.records import Booleans


def right(share: float) -> Booleans:
    """A thousand images of which this share is right, `(1, 1000) bool`."""
    return (np.arange(1000) < 1000 * share)[None]


CELLS = {
    frozenset({1, 3}): right(0.60),
    frozenset({1}): right(0.50),  # the range repaired, the size not: worse
    frozenset({3}): right(0.90),
    frozenset[int](): right(0.902),
}


def findings() -> list[Finding]:
    """Causes 1 and 3 as their shares judge them, and one that no pipeline was made for."""
    shares, alone = shapley_shares(CELLS, repair_orders([1, 3])), costs_alone(CELLS, [1, 3])
    return [
        *(judged(Finding(cause, "suspected", "seen", {}), shares[cause], alone[cause]) for cause in (1, 3)),
        Finding(17, "cleared", "three-way-split", {}),
    ]


def test_what_is_proved_has_the_points_that_its_repair_brings_with_the_rest_left_in() -> None:
    before = findings()
    assert [one.status for one in before] == ["proved", "cleared", "cleared"]
    assert before[0].points is not None
    assert before[0].points.mean == pytest.approx((30 + 40.2) / 2)
    after = _shared_as_repaired(before, CELLS, (1, 3))
    assert after[0].points is not None
    assert after[0].points.mean == pytest.approx(30)  # from 60% to 90%, the range as it is
    assert after[1:] == before[1:]
    assert (after[0].status, after[0].alone) == (before[0].status, before[0].alone)


def test_where_everything_is_proved_or_nothing_shares_stay() -> None:
    both = [Finding(one.cause, "proved", one.code, {}, one.points, one.alone) for one in findings()[:2]]
    assert _shared_as_repaired(both, CELLS, (1, 3)) == both
    none = [Finding(one.cause, "suspected", one.code, {}, one.points, one.alone) for one in findings()[:2]]
    assert _shared_as_repaired(none, CELLS, (1, 3)) == none
    without = {
        cell: one for cell, one in CELLS.items() if cell != frozenset({3})
    }  # more causes than every subset is measured of
    assert _shared_as_repaired(findings(), without, (1, 3)) == findings()
