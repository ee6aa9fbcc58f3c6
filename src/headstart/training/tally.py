"""Loss and hits of an epoch under way: left where they were computed until somebody reads them."""

import math

import torch


class Tally:
    """Sums over the batches of an epoch.

    `read` fetches what was added since the last reading, in one go. Each loss is fetched as it is and summed here, so how
    often it is read changes no number, and a loss that is not finite is known by its batch.

    Attributes:
        loss: sum over the images read so far.
        hits: rightly classified images among them.
        seen: their number.
        diverged: `(batch, loss)` of the first loss that is infinite or not a number; batches count from 1.
    """

    def __init__(self) -> None:
        self.loss = 0.0
        self.hits = 0
        self.seen = 0
        self.diverged: tuple[int, float] | None = None
        self._batches = 0
        self._unread: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    def add(self, loss: torch.Tensor, hits: torch.Tensor, images: int) -> None:
        """Take one batch in: its mean loss and its number of hits, scalars on any device, and its number of images."""
        self._unread.append((loss.detach(), hits, images))

    def read(self) -> None:
        """Bring the sums up to date; waits for the device."""
        if not self._unread:
            return
        losses, hits, counts = zip(*self._unread, strict=True)
        self._unread.clear()
        for loss, count in zip(torch.stack(losses).tolist(), counts, strict=True):
            self._batches += 1
            if self.diverged is None and not math.isfinite(loss):
                self.diverged = (self._batches, loss)
            self.loss += loss * count
            self.seen += count
        self.hits += int(torch.stack(hits).sum())
