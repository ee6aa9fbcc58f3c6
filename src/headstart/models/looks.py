"""How often a trained classifier looks at an image before it answers.

What it was trained on in both directions, it may be asked about in both; and where its answer is a close one, a copy that is shifted by
a pixel is as good a picture of the same thing (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", section 3.7, which
shifts every image).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

_CLOSE = 0.3
"""Between the two largest probabilities; closer ones are looked at again. Chosen between 0.2 and 0.4, which were measured on CIFAR-10
(docs/log.md)."""

_CLOSE_SHARE = 0.2  # a guess for the predicted time, of the order of what was measured; too low where images are hard or labels few
_SHIFTS = ((-1, -1), (1, 1), (-1, 1), (1, -1))  # down and right, in pixels


@dataclass(frozen=True)
class Looks:
    """Which copies of an image a network in evaluation mode averages its logits over.

    Attributes:
        mirrored: the image and its mirror image.
        shifted: where the two largest probabilities are close, four copies shifted by a pixel along both sides, too.
    """

    mirrored: bool = False
    shifted: bool = False

    @property
    def passes(self) -> float:
        """Forward passes of an image, expected: that of the trained network, a fifth of whose answers are close."""
        return (1 + self.mirrored) * (1 + self.shifted * _CLOSE_SHARE * len(_SHIFTS))

    def answer(self, logits: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """Logits for these images, each image's by itself: whatever else is in the batch, but for rounding where it is all but close.

        Which images are looked at again depends on the answers, so that a trace of the network would freeze it: trace it under
        `sure_at_first`.

        Args:
            logits: the network's, of one look: `(B, 3, H, W)` to `(B, classes)`.
            images: `(B, 3, H, W) float32`, preprocessed.
        """
        answers = self._both_directions(logits, images)
        if not self.shifted:
            return answers
        best, second = answers.float().softmax(1).topk(2, dim=1).values.unbind(1)
        close = (best - second < _CLOSE).nonzero().squeeze(1)
        if not len(close):
            return answers
        padded = functional.pad(images[close], (1, 1, 1, 1), mode="reflect")
        height, width = images.shape[2:]
        copies = [padded[:, :, 1 - down :, 1 - right :][:, :, :height, :width] for down, right in _SHIFTS]
        looked = [answers[close], *(self._both_directions(logits, copy) for copy in copies)]
        return answers.index_copy(0, close, torch.stack(looked).mean(0))

    def _both_directions(self, logits: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        return (logits(images) + logits(images.flip(3))) / 2 if self.mirrored else logits(images)


ONCE = Looks()


def looks_of(network: nn.Module) -> Looks:
    """How a network looks at images in evaluation mode; once, where it says nothing of it."""
    looks = getattr(network, "looks", ONCE)
    return looks if isinstance(looks, Looks) else ONCE


@contextmanager
def seen_once(network: nn.Module) -> Iterator[None]:
    """While it lasts, the network answers after one look at the image itself."""
    with _looking(network, ONCE):
        yield


@contextmanager
def sure_at_first(network: nn.Module) -> Iterator[None]:
    """While it lasts, no answer counts as close, so that what the network costs does not depend on the image."""
    with _looking(network, Looks(looks_of(network).mirrored)):
        yield


@contextmanager
def _looking(network: nn.Module, looks: Looks) -> Iterator[None]:
    before = looks_of(network)
    if before == looks:
        yield
        return
    network.looks = looks  # type: ignore[assignment]
    try:
        yield
    finally:
        network.looks = before  # type: ignore[assignment]
