"""A training's step: which ones may be recorded on a GPU. Recording itself: test_gpu.py."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.models.network import NetworkSpec, build_network
from headstart.records import Recipe
from headstart.training import steps
from headstart.training.arithmetic import choose_arithmetic
from headstart.training.criterion import Criterion
from headstart.training.engine import make_optimizer
from headstart.training.steps import Mixture, Step, make_step

CPU = torch.device("cpu")
RECIPE = Recipe(name="small", kind="scratch", network="fast", optimizer="muon", learning_rate=0.1)


class Recorded(Step):
    """Stands for a recorded step, which only a GPU can make."""


@pytest.mark.parametrize(
    ("device", "changes", "dropout", "recorded"),
    [
        ("cuda", {}, 0.0, True),
        ("cpu", {}, 0.0, False),
        ("cuda", {"optimizer": "sgd"}, 0.0, False),
        ("cuda", {"mixup": 0.2}, 0.0, False),
        ("cuda", {"callbacks": ("mine.Watcher",)}, 0.0, False),
        ("cuda", {}, 0.1, False),
    ],
)
def test_only_what_stays_the_same_is_recorded(
    device: str, changes: dict[str, Any], dropout: float, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "RecordedStep", Recorded)
    recipe = RECIPE.with_changes(**changes)
    network = build_network(NetworkSpec("cnn", 10, 8, width=8, dropout=dropout), 0)
    optimizer = make_optimizer(network, recipe, None)
    criterion = Criterion(np.arange(10), 0.0, CPU)
    step = make_step(recipe, network, criterion, optimizer, choose_arithmetic(device, bfloat16=True), None)
    assert isinstance(step, Recorded) == recorded


def test_branches_that_are_dropped_at_random_count_as_random() -> None:
    class DropPath(nn.Module):
        drop_prob = 0.1

    assert steps._draws_numbers(nn.Sequential(nn.Linear(2, 2), DropPath()))
    assert not steps._draws_numbers(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)))


def test_a_step_lowers_the_loss_of_both_labels_of_a_mixture() -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 3)
    recipe = RECIPE.with_changes(optimizer="sgd", momentum=0.0)
    optimizer = make_optimizer(network, recipe, None)
    assert optimizer.param_groups[0]["momentum"] == 0
    step = Step(
        network, Criterion(np.array([0, 1, 2]), 0.0, CPU), optimizer, choose_arithmetic("cpu", bfloat16=False), None
    )
    inputs, positions, partners = torch.randn(3, 4), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    logits = network(inputs).detach()
    by_hand = 0.7 * nn.functional.cross_entropy(logits, positions) + 0.3 * nn.functional.cross_entropy(logits, partners)
    loss, hits = step(inputs, positions, Mixture(0.7, partners))
    assert float(loss) == pytest.approx(float(by_hand))
    assert int(hits) == int((logits.argmax(1) == positions).sum())
    after, _ = step(inputs, positions, Mixture(0.7, partners))
    assert float(after) < float(loss)
