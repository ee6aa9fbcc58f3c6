"""Intervals and tests against published examples, scipy, hand arithmetic and simulation."""

import numpy as np
import pytest
from scipy import stats

from headstart.analysis.statistics import (
    bootstrap_accuracy,
    gap_estimate,
    holm,
    mcnemar_exact,
    paired_difference,
    paired_permutation,
    wilson,
)

RNG = np.random.default_rng(1)


def _correct(trials: int, images: int, accuracy: float) -> np.ndarray:
    return RNG.random((trials, images)) < accuracy


@pytest.mark.parametrize("successes", [0, 1, 50, 99, 100])
def test_wilson_equals_scipys(successes: int) -> None:
    ours = wilson(successes, 100)
    theirs = stats.binomtest(successes, 100).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_newcombes_own_example() -> None:
    # Newcombe 1998b, table II, case (a): 56/70 against 48/80, method 10: 0.0524 to 0.3339.
    first = [np.arange(70) < 56]
    second = [np.arange(80) < 48]
    gap = gap_estimate(first, second)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert gap.method == "newcombe"


def test_mcnemar_equals_the_binomial_test() -> None:
    for first, second in ((5, 15), (15, 5), (7, 7), (7, 8), (0, 1), (0, 12), (1480, 1620), (1550, 1550)):
        assert mcnemar_exact(first, second) == pytest.approx(stats.binomtest(first, first + second).pvalue)
    assert mcnemar_exact(0, 0) == 1.0


def test_permutation_of_single_trials_is_mcnemars_test() -> None:
    first, second = _correct(1, 400, 0.75), _correct(1, 400, 0.70)
    only_first = int((first & ~second).sum())
    only_second = int((~first & second).sum())
    p = paired_permutation(first, second, resamples=200_000)
    assert p == pytest.approx(mcnemar_exact(only_first, only_second), abs=0.005)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_never_lowers_a_p_and_keeps_their_order() -> None:
    raw = RNG.random(20)
    adjusted = np.array(holm(list(raw)))
    assert (adjusted >= raw).all()
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()


def test_swapping_the_two_mirrors_the_difference() -> None:
    first, second = _correct(1, 3000, 0.8), _correct(1, 3000, 0.7)
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.mean == pytest.approx(-other.mean)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.002)


def test_two_that_never_differ_still_have_an_interval() -> None:
    same = _correct(1, 300, 0.9)
    estimate = paired_difference(same, same)
    assert estimate.mean == 0.0
    assert estimate.high == pytest.approx(-np.log(0.05) / 300)
    assert estimate.low == -estimate.high


def test_one_trial_is_wilsons_interval() -> None:
    correct = _correct(1, 200, 0.9)
    assert bootstrap_accuracy(correct) == wilson(int(correct.sum()), 200)


def test_same_seed_same_interval_and_global_state_untouched() -> None:
    np.random.seed(5)  # noqa: NPY002 - the legacy state is what must stay untouched
    before = np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    correct = _correct(3, 500, 0.8)
    assert bootstrap_accuracy(correct, seed=1) == bootstrap_accuracy(correct, seed=1)
    assert bootstrap_accuracy(correct, seed=1) != bootstrap_accuracy(correct, seed=2)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index] # noqa: NPY002


def test_images_of_two_recipes_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired_difference(_correct(1, 10, 0.5), _correct(1, 11, 0.5))


@pytest.mark.parametrize("trials", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_the_interval_covers_the_truth_as_often_as_it_says(trials: int, spread: float) -> None:
    """Simulation: images of random difficulty, trainings of random quality; 95% must cover at least 92% (400 rounds: +-2.1)."""
    rng = np.random.default_rng(trials)
    truth, covered, rounds = 0.8, 0, 400
    for _ in range(rounds):
        difficulty = rng.beta(8, 2, size=400)  # mean 0.8
        quality = rng.normal(0, spread, size=(trials, 1))
        correct = rng.random((trials, 400)) < np.clip(difficulty + quality, 0, 1)
        estimate = bootstrap_accuracy(correct, resamples=1000, seed=int(rng.integers(1 << 30)))
        covered += estimate.low <= truth <= estimate.high
    assert covered / rounds >= 0.92


def test_the_paired_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(9)
    covered, rounds = 0, 400
    for _ in range(rounds):
        difficulty = rng.beta(8, 2, size=400)
        uniform = rng.random(400)
        first = (uniform < difficulty)[None]
        second = ((uniform + rng.normal(0, 0.1, 400)) < difficulty - 0.05)[None]
        population = rng.beta(8, 2, size=200_000)
        shared = rng.random(200_000)
        truth = float(
            (shared < population).mean() - ((shared + rng.normal(0, 0.1, 200_000)) < population - 0.05).mean()
        )
        estimate = paired_difference(first, second, resamples=1000, seed=int(rng.integers(1 << 30)))
        covered += estimate.low <= truth <= estimate.high
    assert covered / rounds >= 0.92
