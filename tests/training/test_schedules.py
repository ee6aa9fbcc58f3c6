"""Schedules: their ends, their shape."""

import numpy as np
import pytest

from headstart.training.schedules import SCHEDULES, cosine, one_cycle


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_factors_lie_between_zero_and_one(name: str) -> None:
    factors = [SCHEDULES[name](progress) for progress in np.linspace(0, 1, 101)]  # type: ignore[index]
    assert all(0 < factor <= 1 for factor in factors)


def test_one_cycle_rises_then_falls() -> None:
    factors = np.array([one_cycle(progress) for progress in np.linspace(0, 1, 101)])
    peak = int(factors.argmax())
    assert peak == 20
    assert (np.diff(factors[: peak + 1]) >= 0).all()
    assert (np.diff(factors[peak:]) <= 0).all()


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert cosine(0.5) == pytest.approx((1 + 0.01) / 2)
