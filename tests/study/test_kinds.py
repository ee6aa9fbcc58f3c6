"""How kinds of recipes train: what fine-tuning the last blocks moves in networks of many shapes, and what a training sees of its images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from headstart.models.network import BackboneClassifier
from headstart.records import EpochRecord, Preprocessing, Recipe
from headstart.study.kinds import _image_batches, freeze_all_but_last
from headstart.study.observer import SilentObserver
from headstart.study.prediction import augmented
from headstart.study.run import StudyRequest, run_study
from headstart.training.callbacks import Callback
from headstart.training.engine import Training
from tests.models.factory import metadata


@pytest.mark.parametrize(
    ("architecture", "trained"),
    [
        ("mobilenetv3_small_050", {"blocks.5", "conv_head"}),
        ("test_convnext", {"stages.2", "stages.3", "head.norm"}),
        ("test_vit", {"blocks.4", "blocks.5", "norm"}),
        ("test_efficientnet", {"blocks.4", "conv_head", "bn2"}),
    ],
)
def test_the_last_two_blocks_with_weights_are_trained(architecture: str, trained: set[str]) -> None:
    network = BackboneClassifier(timm.create_model(architecture, num_classes=0), 8, 3)
    freeze_all_but_last(network)
    assert all(parameter.requires_grad for parameter in network.head.parameters())
    named = network.backbone.named_parameters()
    moving = [name for name, parameter in named if parameter.requires_grad]
    assert {next((part for part in trained if name.startswith(f"{part}.")), name) for name in moving} == trained


class Weights(Callback):
    """Copies all weights before the training and after its last epoch, before the best ones are put back."""

    def on_train_begin(self, training: Training) -> None:
        self.before = {name: value.clone() for name, value in training.network.state_dict().items()}

    def on_epoch_end(self, training: Training, record: EpochRecord) -> None:
        self.after = {name: value.clone() for name, value in training.network.state_dict().items()}


@pytest.mark.parametrize(("architecture", "last"), [("test_vit", "blocks"), ("test_convnext", "stages")])
def test_fine_tuning_moves_the_weights_of_a_backbone_that_cannot_be_cut(
    tmp_path: Path, architecture: str, last: str
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = timm.create_model(architecture, num_classes=0).state_dict()
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / f"{architecture}.safetensors"
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        path,
        metadata(architecture=architecture, input_size="160"),
    )
    recipe = Recipe(
        "last", "finetune", backbone=architecture, epochs=1, batch_size=32, optimizer="adamw", learning_rate=1e-2
    )
    request = StudyRequest(
        recipes=(recipe,), weights_dir=tmp_path / "weights", input_size=160, seeds=1, limit=60, runs=tmp_path / "runs"
    )
    watcher = Weights()
    outcome = run_study(request, torch.device("cpu"), SilentObserver(), [watcher])
    cost = outcome.recipes[0].results[0].cost
    assert 10 < 100 * cost.parameters_trained / cost.parameters < 100
    moved = {name for name, value in watcher.after.items() if not torch.equal(value, watcher.before[name])}
    assert {name for name in moved if name.startswith(f"backbone.{last}.") and name.endswith("weight")}
    assert not {
        name for name in moved if not name.startswith((f"backbone.{last}.", "backbone.norm", "backbone.head", "head"))
    }


@pytest.mark.parametrize(("share", "most"), [(1 / 8, 4), (1 / 16, 2)])
def test_a_recipe_says_how_far_images_move_in_training_and_in_its_timing(share: float, most: int) -> None:
    # A pixel's value is the column that it came from.
    columns = np.zeros((300, 32, 32, 3), np.uint8) + np.arange(32, dtype=np.uint8)[None, None, :, None]
    images: Any = SimpleNamespace(images=columns, labels=np.zeros(300, np.int64))
    bench: Any = SimpleNamespace(images=images, device=torch.device("cpu"))
    recipe = Recipe("one", "scratch", augmentation="shift", max_shift=share, preprocessing=Preprocessing(32))
    everything = np.arange(300)
    batches = _image_batches(bench, recipe, everything)
    trained = batches.inputs(everything, np.random.default_rng(0))
    timed = augmented(images, everything, recipe, torch.device("cpu"))()
    for shown in (trained, timed):
        seen = (shown[:, 0, 16, 16] * 255).round()
        assert (int(seen.min()), int(seen.max())) == (16 - most, 16 + most)
