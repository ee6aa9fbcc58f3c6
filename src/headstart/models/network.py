"""Whole classifiers: what a trial trains, a bundle stores, and `predict` runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import timm
import torch
from torch import nn

from headstart.models.backbones import Backbone, seeded_torch
from headstart.models.fast import FastCNN
from headstart.models.looks import ONCE, Looks
from headstart.models.scratch import LARGE_INPUT, SimpleCNN
from headstart.records import MIRRORING, SHIFTING, Recipe


@dataclass(frozen=True)
class NetworkSpec:
    """Everything needed to build a classifier's structure again, as plain JSON values.

    Attributes:
        kind: `cnn` or `fast` (from scratch), `backbone` (a timm backbone with a linear head) or `constant` (the majority control).
        classes: number of classes.
        input_size: side of the input in pixels.
        width, dropout: of `SimpleCNN`; `FastCNN` has the width.
        mirrored, shifted: how it looks at images when it predicts, see `Looks` (not `SimpleCNN`).
        architecture, timm_arguments, features: of the backbone.
    """

    kind: Literal["cnn", "fast", "backbone", "constant"]
    classes: int
    input_size: int
    width: int = 32
    dropout: float = 0.0
    mirrored: bool = False
    architecture: str | None = None
    timm_arguments: dict[str, Any] = field(default_factory=dict)
    features: int = 0
    shifted: bool = False

    @property
    def looks(self) -> Looks:
        """How the classifier looks at images when it predicts."""
        return Looks(self.mirrored, self.shifted)


class BackboneClassifier(nn.Module):
    """A backbone and a linear head: `(N, 3, H, W) float32` to `(N, classes) float32` logits.

    Args:
        backbone: `(N, 3, H, W) float32` to `(N, features) float32`.
        features, classes: of the head.
        looks: how it looks at images in evaluation mode.
    """

    def __init__(self, backbone: nn.Module, features: int, classes: int, looks: Looks = ONCE) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(features, classes)
        self.looks = looks

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._logits(images) if self.training else self.looks.answer(self._logits, images)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.backbone(images))
        return logits


class ConstantClassifier(nn.Module):
    """Always the same logits, whatever the image: the majority control as a network."""

    logits: torch.Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("logits", torch.zeros(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def classifier_spec(input_size: int, classes: int, backbone: Backbone | None, recipe: Recipe) -> NetworkSpec:
    """The structure of a recipe's classifier: a backbone with a linear head, or one of the project's own networks."""
    # What it was trained on in both directions, it may be asked about in both; a pixel moves only a small image by a part that counts.
    mirrored = recipe.augmentation in MIRRORING
    shifted = recipe.augmentation in SHIFTING and input_size <= LARGE_INPUT
    if backbone is None and recipe.network == "fast":
        return NetworkSpec("fast", classes, input_size, recipe.width, mirrored=mirrored, shifted=shifted)
    if backbone is None:
        return NetworkSpec("cnn", classes, input_size, recipe.width, recipe.dropout)
    return NetworkSpec(
        "backbone",
        classes,
        input_size,
        mirrored=mirrored and _sees_images(recipe),
        shifted=shifted and _sees_images(recipe),
        architecture=backbone.architecture,
        timm_arguments=dict(backbone.timm_arguments),
        features=backbone.features,
    )


def _sees_images(recipe: Recipe) -> bool:
    """Whether a backbone is trained on images; on kept features there is no augmentation, whatever the recipe says."""
    return recipe.kind == "scratch" or (recipe.kind == "finetune" and recipe.unfreeze == "all")


def build_network(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """Make a classifier's structure with freshly drawn weights; global random state is left as it was.

    Its weights are in channels_last, as images are: otherwise a single one takes up to four times as long (docs/log.md).

    Args:
        spec: which network.
        seed: of the initialisation.
    """
    return _drawn(spec, seed).to(memory_format=torch.channels_last)


def _drawn(spec: NetworkSpec, seed: int) -> nn.Module:
    with seeded_torch(seed):
        if spec.kind == "cnn":
            return SimpleCNN(spec.classes, spec.input_size, spec.width, spec.dropout)
        if spec.kind == "fast":
            return FastCNN(spec.classes, spec.input_size, spec.width, spec.looks)
        if spec.kind == "constant":
            return ConstantClassifier(spec.classes)
        backbone = timm.create_model(spec.architecture, num_classes=0, **spec.timm_arguments)
        return BackboneClassifier(backbone, spec.features, spec.classes, spec.looks)


def freeze_batch_norm(network: nn.Module) -> None:
    """Put every batch-norm layer into evaluation mode, so that training does not move its statistics."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def parameter_groups(network: nn.Module, learning_rate: float, layer_decay: float) -> list[dict[str, Any]]:
    """Share the learning rate out by depth: full for the head, smaller for each block further from it.

    Args:
        network: its trainable parameters are grouped by `blocks_from_head`.
        learning_rate: of the head.
        layer_decay: factor for each step away from the head; 1 gives one rate to all.

    Returns:
        Groups for a torch optimizer, with `lr` and its copy `initial_lr`.
    """
    groups = []
    for distance, block in enumerate(blocks_from_head(network)):
        if parameters := [parameter for parameter in block.parameters() if parameter.requires_grad]:
            rate = learning_rate * layer_decay**distance
            groups.append({"params": parameters, "lr": rate, "initial_lr": rate})
    return groups


def blocks_from_head(network: nn.Module) -> Iterator[nn.Module]:
    """The head (with whatever stands beside it), then the backbone's blocks from the last to the first."""
    if not isinstance(network, BackboneClassifier):
        yield network
        return
    yield nn.ModuleList(child for child in network.children() if child is not network.backbone)
    blocks: list[nn.Module] = []
    for child in network.backbone.children():
        # A stage of many blocks counts by its blocks, a single layer by itself.
        blocks += child.children() if isinstance(child, nn.Sequential | nn.ModuleList) else [child]
    yield from reversed(blocks)
