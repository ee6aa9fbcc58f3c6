"""Learning-rate schedules: pure functions from progress to a factor."""

import math
from collections.abc import Callable

from headstart.records import ScheduleName

_WARM_UP = 0.2  # chosen: one-cycle's rise takes a fifth of the training, as usual for short schedules
_FINAL = 0.01  # chosen: the last step still moves, by a hundredth of the highest rate


def constant(progress: float) -> float:
    """Always 1: the rate changes only through ReduceLROnPlateau."""
    return 1.0


def cosine(progress: float) -> float:
    """From 1 to 0.01 along half a cosine (Loshchilov and Hutter 2017, SGDR, equation 5).

    >>> cosine(0.0), round(cosine(1.0), 2)
    (1.0, 0.01)
    """
    return _FINAL + (1 - _FINAL) * (1 + math.cos(math.pi * progress)) / 2


def one_cycle(progress: float) -> float:
    """A linear rise over the first fifth, then half a cosine down (after Smith and Topin 2018).

    >>> round(one_cycle(0.1), 2), one_cycle(0.2), round(one_cycle(1.0), 2)
    (0.5, 1.0, 0.01)
    """
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, _FINAL)
    return cosine((progress - _WARM_UP) / (1 - _WARM_UP))


def triangular(progress: float) -> float:
    """A linear rise over the first fifth, then a straight line down (Jordan 2024, "94% on CIFAR-10 ...", section 3.1).

    >>> [round(triangular(progress), 2) for progress in (0.1, 0.2, 0.68, 1.0)]
    [0.5, 1.0, 0.41, 0.01]
    """
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, _FINAL)
    return _FINAL + (1 - _FINAL) * (1 - progress) / (1 - _WARM_UP)


SCHEDULES: dict[ScheduleName, Callable[[float], float]] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "triangular": triangular,
}
"""Each takes progress in 0..1 (steps done over all steps) and returns the factor on the learning rate."""
