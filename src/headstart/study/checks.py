"""What every request to train is checked for, before any work."""

from collections.abc import Sequence
from typing import get_args

from headstart.data.splits import has_own_test
from headstart.errors import UsageError
from headstart.models.backbones import Backbone
from headstart.records import Augmentation, ImageSet

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


def knows_the_test_images(backbone: Backbone, images: ImageSet) -> bool:
    """Whether a backbone was pretrained on this very set, test among it: what it has learned by heart says nothing of other images.

    A set that came with a test part is meant for this: pretraining leaves that part alone. A part of the set, or the set with
    other labels, is not recognised.
    """
    return backbone.pretrained_on == images.fingerprint and not has_own_test(images)


def refuse_known_test_images(backbone: Backbone, images: ImageSet) -> None:
    """Raise `UsageError` where the backbone knows the test images."""
    if knows_the_test_images(backbone, images):
        raise UsageError(
            f"{backbone.name} was pretrained on these very images, and the test part is drawn from them: it would be judged on what it "
            "has learned by heart. Put the images into train/ and test/ folders, pretrain on that (it leaves test alone) and run this "
            "again; or name other images, or another --backbone."
        )
