"""Feature distillation: beside the labels, a student is asked for the features of a pretrained teacher.

A class name says one thing about an image; a teacher's features say what else it resembles. With few epochs a student
learns more from them than from labels alone (Hinton et al. 2015; Romero et al. 2015, FitNets). Measured: docs/small-images.md.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from headstart.files import read_rows
from headstart.models.network import BackboneClassifier
from headstart.records import Indices, Labels
from headstart.training.criterion import Criterion

TEACHER_WEIGHT = 20.0
"""Weight of the distillation part of the loss. Measured (docs/log.md) after three epochs, the teacher at 128 px, probe with 5,000
labels: 0: 58.5%, 5: 60.7%, 20: 62.8%, the teacher alone: 62.2%."""

_DIRECTIONS = 256  # chosen: principal directions of the teacher's features; they hold 95% of MobileNetV2's variance
_BLOCK = 8192


class StudentClassifier(BackboneClassifier):
    """A classifier with a projection head beside its own: linear, onto the directions of the distillation targets.

    In evaluation mode it gives logits alone.

    Shapes: `(N, 3, H, W) float32` to `(N, classes) float32`, in training mode `(N, classes + directions)`.
    """

    def __init__(self, backbone: nn.Module, features: int, classes: int, directions: int) -> None:
        super().__init__(backbone, features, classes)
        self.projection = nn.Linear(features, directions)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.backbone(images)
        logits: torch.Tensor = self.head(pooled)
        return torch.cat([logits, self.projection(pooled)], dim=1) if self.training else logits


class BothDirections(nn.Module):
    """A frozen teacher that is asked about an image and its mirror image: the mean of both features says more than one (docs/log.md).

    Shapes: as the teacher's, `(N, 3, S, S) float32` to `(N, features) float32`.
    """

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = (self.teacher(images) + self.teacher(images.flip(3))) / 2
        return features


class DistillationCriterion(Criterion):
    """Cross-entropy, plus `weight` times one minus the cosine between the student's projection and its targets.

    Args:
        labels, label_smoothing, device: as for `Criterion`.
        targets: `(n, directions) float32`, from `distillation_targets`, one row for each label.
        classes: number of classes.
        weight: of the distillation part.
    """

    def __init__(
        self,
        labels: Labels,
        label_smoothing: float,
        device: torch.device,
        targets: npt.NDArray[np.float32],
        classes: int,
        weight: float,
    ) -> None:
        super().__init__(labels, label_smoothing, device)
        self._targets = torch.from_numpy(targets).to(device)
        self._classes = classes
        self._weight = weight

    def __call__(self, outputs: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        wanted = self._targets[positions]
        distance = 1 - functional.cosine_similarity(outputs[:, self._classes :], wanted).mean()
        return super().__call__(outputs, positions) + self._weight * distance

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, : self._classes]


def distillation_targets(features: npt.NDArray[np.floating], indices: Indices) -> npt.NDArray[np.float32]:
    """Turn a teacher's features into the student's targets: their leading principal components, half whitened.

    Each component is divided by the square root of its deviation: without that the first few would be the whole target,
    fully whitened the last ones, mostly noise, would weigh as much as the first. Its sign is fixed by its largest number, so that
    a training that is resumed elsewhere does not turn round; components of nearly equal variance may still mix.

    Args:
        features: `(N, D)`, of all images of the set.
        indices: `(n,) int64`, the images that are learnt from.

    Returns:
        `(n, min(D, 256)) float32`, in the order of `indices`.
    """
    mean = np.zeros(features.shape[1])
    moments = np.zeros((features.shape[1],) * 2)
    for first in range(0, len(indices), _BLOCK):
        block = read_rows(features, indices[first : first + _BLOCK]).astype(np.float64)
        mean += block.sum(axis=0)
        moments += block.T @ block
    mean /= len(indices)
    variances, directions = np.linalg.eigh(moments / len(indices) - np.outer(mean, mean))
    kept = min(features.shape[1], _DIRECTIONS)
    variances, directions = variances[::-1][:kept], _signed(directions[:, ::-1][:, :kept])
    projection = directions / np.maximum(variances, 1e-12) ** 0.25
    targets = np.empty((len(indices), kept), np.float32)
    for first in range(0, len(indices), _BLOCK):
        block = read_rows(features, indices[first : first + _BLOCK]).astype(np.float64)
        targets[first : first + len(block)] = (block - mean) @ projection
    return targets


def _signed(directions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Eigenvectors `(D, K)`, each turned so that its largest number is positive: a solver may return either of two."""
    largest = np.abs(directions).argmax(axis=0)
    signs: npt.NDArray[np.float64] = np.sign(directions[largest, np.arange(directions.shape[1])])
    return directions * signs
