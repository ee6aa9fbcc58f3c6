"""Feature distillation: the targets, the loss, and that the student's projection approaches them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.models.network import blocks_from_head
from headstart.records import Recipe
from headstart.training.batches import ArrayBatches
from headstart.training.criterion import classification_loss
from headstart.training.distillation import (
    BothDirections,
    DistillationCriterion,
    StudentClassifier,
    distillation_targets,
)
from headstart.training.engine import train_network

CPU = torch.device("cpu")


def test_targets_are_uncorrelated_and_half_whitened() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(4000, 6)) * [10, 5, 2, 1, 0.5, 0.1]) @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 3
    chosen = np.arange(0, 4000, 2)
    targets = distillation_targets(features.astype(np.float32), chosen).astype(np.float64)
    covariance = targets.T @ targets / len(targets)
    assert np.abs(targets.mean(0)).max() < 1e-3
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-2
    # Half whitened: a direction's deviation s becomes sqrt(s), so its variance is s.
    assert np.diag(covariance) == pytest.approx(np.sqrt(np.linalg.eigvalsh(np.cov(features[chosen].T))[::-1]), rel=0.02)


def test_the_targets_do_not_hang_on_the_signs_of_the_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    once = distillation_targets(features, np.arange(300))
    solve = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (solve(matrix)[0], solve(matrix)[1] * [1, -1, -1, 1, -1]))
    assert distillation_targets(features, np.arange(300)) == pytest.approx(once, abs=1e-6)


def test_at_most_256_directions_are_targets() -> None:
    features = np.random.default_rng(0).normal(size=(600, 300)).astype(np.float32)
    assert distillation_targets(features, np.arange(600)).shape == (600, 256)


def test_a_teacher_that_is_asked_about_both_directions_says_the_same_of_both() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 5))
    images = torch.rand(4, 3, 6, 6)
    both = BothDirections(teacher)
    assert torch.allclose(both(images), (teacher(images) + teacher(images.flip(3))) / 2)
    assert torch.allclose(both(images), both(images.flip(3)), atol=1e-6)
    assert not torch.allclose(teacher(images), teacher(images.flip(3)), atol=1e-2)


def test_the_loss_is_cross_entropy_plus_weighted_distance() -> None:
    labels = np.array([0, 1, 2])
    targets = np.eye(3, 4, dtype=np.float32)
    criterion = DistillationCriterion(labels, 0.1, CPU, targets, classes=3, weight=7.0)
    outputs = torch.tensor([[1.0, 2.0, 3.0, 0.0, 5.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0]])
    plain = classification_loss(outputs[:, :3], torch.tensor([1, 2]), 0.1)
    assert torch.equal(criterion.logits(outputs), outputs[:, :3])
    # The first projection points exactly where its target does, the second, too.
    assert float(criterion(outputs, torch.tensor([1, 2]))) == pytest.approx(float(plain))
    # Swapped, both are at right angles to their targets: distance 1.
    swapped = classification_loss(outputs[:, :3], torch.tensor([2, 1]), 0.1)
    assert float(criterion(outputs, torch.tensor([2, 1]))) == pytest.approx(float(swapped) + 7)


@pytest.mark.parametrize("micro_batch", [0, 12])
def test_a_student_learns_what_its_teacher_says(micro_batch: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(300, 12)).astype(np.float32)
    labels = np.zeros(300, np.int64)  # the labels say nothing
    targets = pixels[:, :5].copy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = StudentClassifier(nn.Linear(12, 8), features=8, classes=2, directions=5)
    batches = ArrayBatches(pixels, labels, np.arange(300))
    criterion = DistillationCriterion(labels, 0.0, CPU, targets, classes=2, weight=1.0)
    recipe = Recipe("taught", "scratch", epochs=20, batch_size=32, optimizer="adamw", learning_rate=1e-2)
    recipe = recipe.with_changes(micro_batch=micro_batch)
    trained = network.train()
    before = float(criterion(trained(torch.from_numpy(pixels)), torch.arange(300)).detach())
    train_network(network, batches, batches, recipe, 0, device=CPU, checkpoint=tmp_path / "c", criterion=criterion)
    assert network(torch.from_numpy(pixels)).shape == (300, 2)  # in evaluation mode logits alone
    after = float(criterion(network.train()(torch.from_numpy(pixels)), torch.arange(300)).detach())
    assert after < 0.25 * before


def test_the_projection_head_is_trained_at_the_heads_rate() -> None:
    network = StudentClassifier(nn.Sequential(nn.Linear(2, 2)), features=2, classes=2, directions=3)
    head = next(iter(blocks_from_head(network)))
    assert sum(parameter.numel() for parameter in head.parameters()) == 2 * 2 + 2 + 2 * 3 + 3
