"""What every request to train is checked for, before any work."""

from collections.abc import Sequence
from typing import get_args

from headstart.errors import UsageError
from headstart.records import Augmentation

Check = tuple[bool, str]
"""Whether a condition holds, and the message for when it does not."""


def require(checks: Sequence[Check]) -> None:
    """Raise `UsageError` with the message of the first condition that does not hold."""
    for holds, message in checks:
        if not holds:
            raise UsageError(message)


def training_checks(
    epochs: int | None, budget_seconds: float | None, batch_size: int | None, augmentation: str | None
) -> tuple[Check, ...]:
    """The conditions on the settings that comparing and pretraining share; `None` is a setting that was not given."""
    return (
        (epochs is None or epochs >= 1, f"--epochs is at least 1, not {epochs}."),
        (
            epochs is None or budget_seconds is None,
            "--epochs and --budget both say how long to train. Give one of them.",
        ),
        (batch_size is None or batch_size >= 2, f"--batch-size is at least 2, not {batch_size}."),
        (
            augmentation is None or augmentation in get_args(Augmentation),
            f"--augmentation takes {', '.join(get_args(Augmentation))}, not {augmentation!r}.",
        ),
    )
