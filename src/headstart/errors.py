"""Every error that headstart raises on purpose, drawn as one tree, with the exit code of each.

    HeadstartError                 1
    +-- UsageError                 2   an option or a recipe that cannot be meant
    +-- DataError                  3   images, labels or splits that cannot be used
    |   +-- DataUnavailableError   3   a data set that is neither here nor reachable
    +-- WeightsError               4   weights that do not fit their architecture
    |   +-- WeightsUnavailableError 4  weights that are neither here nor reachable
    +-- EnvironmentProblem         5   packages that clash, a device that is not there
    +-- RunError                   6   a run folder that is missing, damaged or in use

A message says what was expected, what came, where, and what to do.
"""


class HeadstartError(Exception):
    """The root of the tree; `except HeadstartError` catches everything headstart raises on purpose."""

    exit_code = 1


class UsageError(HeadstartError):
    """An option, a recipe or an argument that cannot be meant."""

    exit_code = 2


class DataError(HeadstartError):
    """Images, labels or splits that cannot be used."""

    exit_code = 3


class DataUnavailableError(DataError):
    """A data set that is neither on this machine nor reachable."""


class WeightsError(HeadstartError):
    """Weights that do not fit their architecture, or a weights file that breaks the format."""

    exit_code = 4


class WeightsUnavailableError(WeightsError):
    """Weights that are neither on this machine nor reachable."""


class EnvironmentProblem(HeadstartError):
    """Packages that clash, or a device that is not there."""

    exit_code = 5


class RunError(HeadstartError):
    """A run folder that is missing, damaged or in use."""

    exit_code = 6
