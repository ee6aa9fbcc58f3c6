"""What a training lowers: cross-entropy with the labels of its part."""

import torch
from torch.nn import functional

from headstart.records import Labels


def classification_loss(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of logits against integer labels or one-hot rows; both give the same number.

    Args:
        logits: `(N, C) float32`.
        targets: `(N,) int64`, or `(N, C)` rows that sum to 1.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016).

    Returns:
        The mean over the batch, a scalar.
    """
    if targets.ndim == 2:
        targets = targets.to(logits.dtype)
    return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)


class Criterion:
    """The loss that a training lowers: cross-entropy with the labels of the part.

    A subclass may ask more of the network's outputs in training mode than logits.

    Args:
        labels: `(n,) int64`, of the whole training part.
        label_smoothing: see `classification_loss`.
        device: where the outputs are.
    """

    def __init__(self, labels: Labels, label_smoothing: float, device: torch.device) -> None:
        self._labels = torch.from_numpy(labels).to(device)
        self._label_smoothing = label_smoothing

    def __call__(self, outputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The mean loss of the outputs for the images at `positions`, which are on the device."""
        return classification_loss(self.logits(outputs), self._labels[positions], self._label_smoothing)

    def hits(self, outputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """How many of the outputs give the image's own class, a scalar on the device."""
        return (self.logits(outputs).argmax(1) == self._labels[positions]).sum()

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """The logits among the outputs of the network in training mode."""
        return outputs
