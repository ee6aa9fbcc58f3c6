"""Intervals and tests for accuracies on one set of test images, from one or several trainings.

Two things make an accuracy uncertain: another draw of test images, and another seed of the training. Images are
resampled (bootstrap). With few seeds, resampling seeds would understate their spread, so their mean's error is
drawn from Student's t with one degree of freedom less than there are seeds. See `docs/statistics.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special  # not scipy.stats, whose import every command would wait for

from headstart.randomness import generator
from headstart.records import Booleans

Method = Literal["wilson", "bootstrap", "newcombe", "none"]
Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000  # chosen: the ends of a 95% interval then move by about 2% of its width


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval, and the method that gave them."""

    mean: float
    low: float
    high: float
    method: Method


def wilson(successes: int, count: int, confidence: float = 0.95) -> Estimate:
    """Interval of a proportion (Wilson 1927; Newcombe 1998a, method 3).

    Args:
        successes, count: `0 <= successes <= count`, `count >= 1`.
        confidence: in 0..1.

    Raises:
        ValueError: the counts cannot be.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"expected 0 <= successes <= count and count >= 1, got {successes} of {count}.")
    z = _z(confidence)
    share = successes / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # Rounding must not push an end past the share itself, or out of 0..1.
    return Estimate(
        share, float(max(min(centre - half, share), 0.0)), float(min(max(centre + half, share), 1.0)), "wilson"
    )


def bootstrap_accuracy(
    correct: Booleans, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Accuracy of a recipe over its trials, with an interval over images and seeds.

    Args:
        correct: `(S, n) bool`, trials by images; one trial gets Wilson's interval.
        confidence, resamples, seed: of the interval.
    """
    _check(correct)
    if len(correct) == 1:
        return wilson(int(correct.sum()), correct.shape[1], confidence)
    rng = generator(seed, "bootstrap accuracy")
    draws = _resampled_means(correct.mean(axis=0), rng, resamples) + _seed_errors(correct, rng, resamples)
    return _percentiles(float(correct.mean()), draws, confidence, (0.0, 1.0))


def paired_difference(
    first: Booleans, second: Booleans, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Mean accuracy of one recipe minus another's on the same images.

    Args:
        first, second: `(S, n) bool` and `(T, n) bool`; the trials of the two are independent, the images are shared.
        confidence, resamples, seed: of the interval.

    Returns:
        The difference; where both agree on every image, the interval is Hanley and Lippman-Hand's (1983) bound for
        an event that was never seen in n images.

    Raises:
        ValueError: the numbers of images differ.
    """
    differences = _differences(first, second)
    if not differences.any() and len(first) == len(second) == 1:
        bound = min(-np.log(1 - confidence) / len(differences), 1.0)
        return Estimate(0.0, -float(bound), float(bound), "bootstrap")
    rng = generator(seed, "paired difference")
    draws = _resampled_means(differences, rng, resamples)
    draws = draws + _seed_errors(first, rng, resamples) - _seed_errors(second, rng, resamples)
    return _percentiles(float(differences.mean()), draws, confidence, (-1.0, 1.0))


def mean_estimate(values: Floats, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Mean of a number that every image has in every trial, with an interval over images and trials.

    Args:
        values: `(S, n) float64`, trials by images.
        confidence, resamples, seed: of the interval.
    """
    rng = generator(seed, "mean")
    draws = _resampled_means(values.mean(axis=0), rng, resamples)
    draws = draws + _errors_of_mean(values.mean(axis=1), rng, resamples)
    return _percentiles(float(values.mean()), draws, confidence, (-np.inf, np.inf))


def gap_estimate(
    train_correct: Sequence[Booleans],
    val_correct: Sequence[Booleans],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Train accuracy minus val accuracy: two independent samples of images.

    Args:
        train_correct, val_correct: one `(n,) bool` per trial.
        confidence, resamples, seed: of the interval.

    Returns:
        For one trial Newcombe's hybrid score interval (1998b, method 10), for several the bootstrap.
    """
    train, val = np.stack(train_correct), np.stack(val_correct)
    gap = float(train.mean() - val.mean())
    if len(train) == 1:
        high, low = (wilson(int(part.sum()), part.shape[1], confidence) for part in (train, val))
        below = np.hypot(high.mean - high.low, low.high - low.mean)
        above = np.hypot(high.high - high.mean, low.mean - low.low)
        return Estimate(gap, gap - float(below), gap + float(above), "newcombe")
    rng = generator(seed, "gap")
    draws = _resampled_means(train.mean(axis=0), rng, resamples) - _resampled_means(val.mean(axis=0), rng, resamples)
    per_trial = train.mean(axis=1) - val.mean(axis=1)
    return _percentiles(gap, draws + _errors_of_mean(per_trial, rng, resamples), confidence, (-1.0, 1.0))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p that two classifiers err equally often (McNemar 1947, binomial form).

    Args:
        only_first, only_second: images that only the one, only the other got right.
    """
    total = only_first + only_second
    # At one half both tails are alike; where they meet in the middle they would count it twice.
    return min(2 * float(special.bdtr(min(only_first, only_second), total, 0.5)), 1.0)


def paired_permutation(first: Booleans, second: Booleans, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p of the sign-flip test over images on seed-averaged correctness; with one trial each it is McNemar's test.

    Its smallest value is `1 / (resamples + 1)`. It speaks of these trained networks: the spread between seeds is in the interval.
    """
    differences = _differences(first, second)
    observed = abs(differences.sum())
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    rng = generator(seed, "permutation")
    sums = np.zeros(resamples)
    for size, count in zip(sizes, counts, strict=True):
        sums += size * (2 * rng.binomial(count, 0.5, resamples) - count)
    as_extreme = int((np.abs(sums) >= observed - 1e-9).sum())
    return (1 + as_extreme) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values so that the chance of any false rejection stays below alpha (Holm 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        running = max(running, min((len(p_values) - rank) * p_values[place], 1.0))
        adjusted[place] = running
    return adjusted


def _resampled_means(values: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Means of bootstrap samples. Values take few levels (multiples of 1/S): drawing their counts is drawing the images."""
    levels, counts = np.unique(values, return_counts=True)
    drawn = rng.multinomial(len(values), counts / len(values), size=resamples)
    return np.asarray(drawn @ levels / len(values), dtype=np.float64)


def _seed_errors(correct: Booleans, rng: np.random.Generator, resamples: int) -> Floats:
    return _errors_of_mean(correct.mean(axis=1), rng, resamples)


def _errors_of_mean(per_trial: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Draws of the error of a mean over trials: Student's t times its standard error; nothing where there is one trial."""
    count = len(per_trial)
    if count == 1:
        return np.zeros(resamples)
    standard_error = float(per_trial.std(ddof=1)) / np.sqrt(count)
    return np.asarray(rng.standard_t(count - 1, resamples) * standard_error)


def _percentiles(value: float, draws: Floats, confidence: float, limits: tuple[float, float]) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.clip(np.quantile(draws, [tail, 1 - tail]), *limits)
    return Estimate(value, float(min(low, value)), float(max(high, value)), "bootstrap")


def _differences(first: Booleans, second: Booleans) -> Floats:
    _check(first)
    _check(second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"the two must be tested on the same images, got {first.shape[1]} and {second.shape[1]}.")
    return np.asarray(first.mean(axis=0) - second.mean(axis=0), dtype=np.float64)


def _check(correct: Booleans) -> None:
    if correct.ndim != 2 or 0 in correct.shape:
        raise ValueError(f"expected (trials, images), both at least 1, got {correct.shape}.")


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, got {confidence}.")
    return float(special.ndtri((1 + confidence) / 2))
