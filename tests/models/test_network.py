"""Classifiers: who answers for both mirror images, and what a stored structure says of it."""

from dataclasses import asdict

import pytest
import torch

from headstart.models.backbones import untrained_backbone
from headstart.models.looks import ONCE
from headstart.models.network import BackboneClassifier, NetworkSpec, build_network, classifier_spec
from headstart.records import Recipe

SMALL = "small32_s"


@pytest.mark.parametrize(
    ("kind", "unfreeze", "augmentation", "mirrored"),
    [
        ("finetune", "all", "shift-flip", True),
        ("finetune", "all", "shift", False),
        ("finetune", "last", "shift-flip", False),
        ("probe", "last", "shift-flip", False),
        ("scratch", "last", "shift-flip", True),
    ],
)
def test_what_was_trained_on_both_directions_answers_for_both(
    kind: str, unfreeze: str, augmentation: str, mirrored: bool
) -> None:
    recipe = Recipe("one", kind=kind, backbone=SMALL, unfreeze=unfreeze, augmentation=augmentation)  # type: ignore[arg-type]
    assert classifier_spec(32, 10, untrained_backbone(SMALL), recipe).mirrored == mirrored


def test_the_mirror_image_counts_as_much_as_the_image_and_only_in_evaluation() -> None:
    recipe = Recipe("one", kind="finetune", backbone=SMALL, unfreeze="all", augmentation="shift-flip")
    network = build_network(classifier_spec(32, 10, untrained_backbone(SMALL), recipe)).eval()
    assert isinstance(network, BackboneClassifier)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(images.flip(3)))
        plain = network.head(network.backbone(images))
        assert not torch.allclose(network(images), plain)
        network.train()
        network.backbone.eval()
        torch.testing.assert_close(network(images), plain)


def test_a_structure_stored_before_there_was_such_a_thing_is_as_it_was() -> None:
    recipe = Recipe("one", kind="probe", backbone=SMALL)
    stored = asdict(classifier_spec(32, 10, untrained_backbone(SMALL), recipe))
    del stored["mirrored"], stored["shifted"]
    assert NetworkSpec(**stored).looks == ONCE
