"""Learning from a teacher: beside the labels, a network is asked for the features of a larger, pretrained one.

A class name says one thing about an image; a teacher's features say what else it resembles. With few epochs a student
learns more from them than from labels alone (Hinton et al. 2015; Romero et al. 2015, FitNets). Measured: docs/small-images.md.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from headstart.data.transfer import to_device
from headstart.models.network import BackboneClassifier
from headstart.records import Indices, Labels
from headstart.training.engine import Criterion

_DIRECTIONS = 256  # chosen: principal directions of the teacher's features; they hold 95% of MobileNetV2's variance
_BLOCK = 8192


class TaughtClassifier(BackboneClassifier):
    """A classifier with a second linear head that answers the teacher; in evaluation mode it gives logits alone.

    Shapes: `(N, 3, H, W) float32` to `(N, classes) float32`, in training mode `(N, classes + directions)`.
    """

    def __init__(self, backbone: nn.Module, features: int, classes: int, directions: int) -> None:
        super().__init__(backbone, features, classes)
        self.answer = nn.Linear(features, directions)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.backbone(images)
        logits: torch.Tensor = self.head(pooled)
        return torch.cat([logits, self.answer(pooled)], dim=1) if self.training else logits


class TeacherCriterion(Criterion):
    """Cross-entropy, plus `weight` times one minus the cosine between the network's answer and the teacher's features.

    Args:
        labels, label_smoothing, device: as for `Criterion`.
        lessons: `(n, directions) float32`, from `teacher_lessons`, one row for each label.
        classes: number of classes.
        weight: of the teacher's part.
    """

    def __init__(
        self,
        labels: Labels,
        label_smoothing: float,
        device: torch.device,
        lessons: npt.NDArray[np.float32],
        classes: int,
        weight: float,
    ) -> None:
        super().__init__(labels, label_smoothing, device)
        self._lessons = torch.from_numpy(lessons).to(device)
        self._classes = classes
        self._weight = weight

    def __call__(self, outputs: torch.Tensor, positions: Indices) -> torch.Tensor:
        wanted = self._lessons[to_device(positions, self._lessons.device)]
        distance = 1 - functional.cosine_similarity(outputs[:, self._classes :], wanted).mean()
        return super().__call__(outputs, positions) + self._weight * distance

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, : self._classes]


def teacher_lessons(features: npt.NDArray[np.floating], indices: Indices) -> npt.NDArray[np.float32]:
    """Turn a teacher's features into what the student is asked for: their leading principal components, half whitened.

    Each component is divided by the square root of its deviation: without that the first few would be the whole lesson,
    fully whitened the last ones, mostly noise, would weigh as much as the first.

    Args:
        features: `(N, D)`, of all images of the set.
        indices: `(n,) int64`, the images that are learnt from.

    Returns:
        `(n, min(D, 256)) float32`, in the order of `indices`.
    """
    mean = np.zeros(features.shape[1])
    moments = np.zeros((features.shape[1],) * 2)
    for first in range(0, len(indices), _BLOCK):
        block = np.asarray(features[indices[first : first + _BLOCK]], np.float64)
        mean += block.sum(axis=0)
        moments += block.T @ block
    mean /= len(indices)
    variances, directions = np.linalg.eigh(moments / len(indices) - np.outer(mean, mean))
    kept = min(features.shape[1], _DIRECTIONS)
    variances, directions = variances[::-1][:kept], directions[:, ::-1][:, :kept]
    projection = directions / np.maximum(variances, 1e-12) ** 0.25
    lessons = np.empty((len(indices), kept), np.float32)
    for first in range(0, len(indices), _BLOCK):
        block = np.asarray(features[indices[first : first + _BLOCK]], np.float64)
        lessons[first : first + len(block)] = (block - mean) @ projection
    return lessons
