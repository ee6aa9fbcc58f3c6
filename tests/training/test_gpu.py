"""The same recipes on a GPU: the CPU's batches, the CPU's features, and trainings that repeat themselves. Skips without one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.data.sources import load_images
from headstart.models.backbones import build_random_backbone, untrained_backbone
from headstart.models.network import NetworkSpec, build_network
from headstart.records import Preprocessing, Recipe
from headstart.study.observer import SilentObserver
from headstart.training.arithmetic import arithmetic_of
from headstart.training.batches import ImageBatches
from headstart.training.callbacks import Callback
from headstart.training.criterion import Criterion
from headstart.training.engine import Fitted, Training, make_optimizer, train_network
from headstart.training.features import extract_features
from headstart.training.steps import RecordedStep, make_step
from tests.models.factory import TINY

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
DIGITS = Preprocessing(8, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4))
RECIPE = Recipe(
    name="small",
    kind="scratch",
    augmentation="shift-flip",
    epochs=3,
    batch_size=32,
    learning_rate=3e-3,
    weight_averaging=0.9,
    mixup=0.2,
)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("augmentation", ["none", "shift", "shift-flip", "shift-alternate", "crop-flip"])
@pytest.mark.parametrize("size", [32, 64])
def test_batches_are_the_cpus(size: int, augmentation: Any, keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.training.rows.keeps", lambda device_type, *_: keep and device_type == "cuda")
    pictures = np.random.default_rng(2).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    labels, part, positions = np.arange(30), np.arange(4, 28), np.array([3, 20, 0, 7, 11])
    preprocessing, shown = Preprocessing(size, "bicubic", (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), []
    for device in (CPU, GPU):
        batches = ImageBatches(pictures, labels, part, preprocessing, augmentation, device)
        batches.begin_epoch(1, 5)
        shown.append(batches.inputs(positions, np.random.default_rng(5)))
    expected, found = shown[0], shown[1].cpu()
    assert shown[1].device.type == "cuda"
    if size == 32 and "crop" not in augmentation:
        assert torch.equal(found, expected)
    else:  # a few pixels are rounded to the next level
        assert (found - expected).abs().max() <= 2.01 / 255 / 0.2
        assert (found != expected).float().mean() < 0.02


def _train(
    folder: Path,
    device: torch.device,
    optimizer: Any,
    callbacks: Sequence[Callback] = (),
    mixup: float = 0.2,
    micro_batch: int = 0,
) -> tuple[list[bytes], Fitted]:
    images = load_images("digits", limit=700)
    network = build_network(NetworkSpec("cnn", 10, 8, width=16), 0).to(device).to(memory_format=torch.channels_last)
    recipe = RECIPE.with_changes(optimizer=optimizer, mixup=mixup, micro_batch=micro_batch)
    train = ImageBatches(images.images, images.labels, np.arange(500), DIGITS, recipe.augmentation, device)
    val = ImageBatches(images.images, images.labels, np.arange(500, 700), DIGITS, device=device)
    resume = folder / "resume"
    fitted = train_network(network, train, val, recipe, 0, device=device, checkpoint=resume, callbacks=callbacks)
    return [value.cpu().numpy().tobytes() for value in network.state_dict().values()], fitted


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "muon"])
def test_a_training_repeats_itself_and_learns_as_on_the_cpu(tmp_path: Path, optimizer: Any) -> None:
    _, on_cpu = _train(tmp_path / "cpu", CPU, optimizer)
    weights, fitted = _train(tmp_path / "gpu", GPU, optimizer)
    again, _ = _train(tmp_path / "again", GPU, optimizer)
    assert weights == again
    assert fitted.history[0].train_loss == pytest.approx(on_cpu.history[0].train_loss, rel=0.05)
    assert abs(fitted.history[-1].val_accuracy - on_cpu.history[-1].val_accuracy) < 0.15


def test_features_are_the_cpus() -> None:
    images, module = load_images("digits", limit=600), build_random_backbone(untrained_backbone(TINY), 0)
    preprocessing = Preprocessing(images.canvas, mean=(0.5,) * 3, std=(0.5,) * 3)
    on_cpu, on_gpu = (
        extract_features(images, module, "tiny", preprocessing, device=device, reporter=SilentObserver()).values
        for device in (CPU, GPU)
    )
    assert np.abs(on_gpu - on_cpu).max() <= 1e-4 * np.abs(on_cpu).max()


@pytest.mark.parametrize("micro_batch", [0, 12])
def test_recorded_steps_are_the_written_ones(micro_batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def noted(*arguments: Any) -> Any:
        made.append(make_step(*arguments))
        return made[-1]

    monkeypatch.setattr("headstart.training.engine.make_step", noted)
    recorded, _ = _train(tmp_path / "recorded", GPU, "muon", mixup=0.0, micro_batch=micro_batch)
    assert made[0]._graph is not None
    monkeypatch.setattr("headstart.training.steps._WRITTEN_STEPS", 10**9)
    written, _ = _train(tmp_path / "written", GPU, "muon", mixup=0.0, micro_batch=micro_batch)
    assert made[1]._graph is None
    assert recorded == written


def test_a_network_that_waits_for_the_gpu_is_trained_as_written(caplog: pytest.LogCaptureFixture) -> None:
    class Waiting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(inputs)
            return logits / max(1.0, float(logits.detach().abs().max()))

    network = Waiting().to(GPU)
    optimizer = make_optimizer(network, RECIPE.with_changes(optimizer="muon"), None)
    criterion, arithmetic = Criterion(np.array([0, 1, 2]), 0.0, GPU), arithmetic_of(GPU)
    step = RecordedStep(network, criterion, optimizer, arithmetic, None)
    inputs, positions = torch.randn(3, 4, device=GPU), torch.arange(3, device=GPU)
    losses = [float(step(inputs, positions)[0]) for _ in range(8)]
    assert losses == sorted(losses, reverse=True)
    assert "could not be recorded" in caplog.text


def test_a_resumed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = _train(tmp_path / "whole", GPU, "muon", mixup=0.0)
    monkeypatch.setattr("headstart.training.arithmetic._SAVE_EVERY", 0.0)

    class Killed(Exception):
        pass

    class Killer(Callback):
        def on_epoch_begin(self, training: Training) -> None:
            if training.epoch == 3:
                raise Killed

    with pytest.raises(Killed):
        _train(tmp_path / "killed", GPU, "muon", [Killer()], mixup=0.0)
    resumed, fitted = _train(tmp_path / "killed", GPU, "muon", mixup=0.0)
    assert fitted.earlier_seconds > 0
    assert resumed == whole
