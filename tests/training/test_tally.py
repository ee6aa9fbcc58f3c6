"""The tally: sums do not depend on how often it is read, and a loss that is not finite is found with its batch."""

import pytest
import torch

from headstart.training.tally import Tally

LOSSES = (2.5, 0.1, 0.7, 1e-3, 3.3)
HITS = (0, 3, 2, 4, 1)
IMAGES = (4, 4, 4, 4, 3)


def _tally(losses: tuple[float, ...], read_after: tuple[int, ...]) -> Tally:
    tally = Tally()
    for batch, (loss, hits, images) in enumerate(zip(losses, HITS, IMAGES, strict=True), start=1):
        tally.add(torch.tensor(loss, requires_grad=True), torch.tensor(hits), images)
        if batch in read_after:
            tally.read()
    return tally


@pytest.mark.parametrize("read_after", [(1, 2, 3, 4, 5), (1, 4, 5), (5,)])
def test_sums(read_after: tuple[int, ...]) -> None:
    tally = _tally(LOSSES, read_after)
    by_hand = 0.0
    for loss, images in zip(LOSSES, IMAGES, strict=True):
        by_hand += float(torch.tensor(loss)) * images
    assert (tally.loss, tally.hits, tally.seen, tally.diverged) == (by_hand, 10, 19, None)
    tally.read()  # nothing new
    assert tally.seen == 19


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("read_after", [(1, 2, 3, 4, 5), (2, 5), (5,)])
def test_the_first_batch_that_diverged_is_named(bad: float, read_after: tuple[int, ...]) -> None:
    tally = _tally((1.0, 1.0, bad, float("nan"), 1.0), read_after)
    assert tally.diverged is not None
    batch, loss = tally.diverged
    assert batch == 3
    assert str(loss) == str(bad)


def test_what_was_not_read_is_not_counted() -> None:
    tally = _tally((1.0, float("nan"), 1.0, 1.0, 1.0), (1,))
    assert (tally.loss, tally.seen, tally.diverged) == (4.0, 4, None)
