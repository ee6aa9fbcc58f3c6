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
from headstart.training.steps import SMALLEST_MICRO_BATCH, Mixture, Step, even_parts, make_step

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


@pytest.mark.parametrize("mixed", [False, True])
def test_a_batch_in_parts_moves_the_weights_as_the_whole_does(mixed: bool) -> None:
    torch.manual_seed(0)
    inputs, positions = torch.randn(10, 4), torch.arange(10) % 3
    mixture = Mixture(0.7, torch.randperm(10)) if mixed else None
    start = nn.Linear(4, 3).state_dict()
    results = {}
    for micro_batch in (0, 4):
        network = nn.Linear(4, 3)
        network.load_state_dict(start)
        recipe = RECIPE.with_changes(optimizer="sgd", micro_batch=micro_batch)
        optimizer, criterion = make_optimizer(network, recipe, None), Criterion(np.array([0, 1, 2]), 0.0, CPU)
        step = make_step(recipe, network, criterion, optimizer, choose_arithmetic("cpu", bfloat16=False), None)
        loss, hits = step(inputs, positions, mixture)
        assert not hits.is_floating_point()  # a count
        results[micro_batch] = float(loss), int(hits), network.weight.detach()
    (whole_loss, whole_hits, whole), (loss_of_parts, hits_of_parts, by_parts) = results[0], results[4]
    assert loss_of_parts == pytest.approx(whole_loss)
    assert hits_of_parts == whole_hits
    assert 0 < whole_hits < 10
    assert torch.allclose(by_parts, whole, atol=1e-6)
    assert not torch.allclose(whole, start["weight"], atol=1e-3)


def test_batch_norm_sees_a_part_at_a_time() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    recipe = RECIPE.with_changes(optimizer="sgd", micro_batch=4)
    optimizer, criterion = make_optimizer(network, recipe, None), Criterion(np.array([0, 1, 2]), 0.0, CPU)
    step = make_step(recipe, network, criterion, optimizer, choose_arithmetic("cpu", bfloat16=False), None)
    step(torch.randn(10, 4), torch.arange(10) % 3)
    assert network[0].num_batches_tracked == 3


@pytest.mark.parametrize("largest", range(SMALLEST_MICRO_BATCH, 9))
def test_no_part_is_larger_than_asked_or_a_single_image(largest: int) -> None:
    for count in range(2, 60):
        parts = even_parts(count, largest)
        assert [one for part in parts for one in range(count)[part]] == list(range(count))
        assert all(2 <= part.stop - part.start <= largest for part in parts)


def test_with_parts_any_smaller_one_could_be_a_single_image() -> None:
    assert even_parts(3, SMALLEST_MICRO_BATCH - 1)[0] == slice(0, 1)
