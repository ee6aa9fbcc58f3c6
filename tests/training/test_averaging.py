"""Weight averaging: the formula, the swap, and that training goes on from its own weights."""

import pytest
import torch
from torch import nn

from headstart.training.averaging import WeightAverage


def test_the_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = WeightAverage(network, decay=0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 4.0, 2.0, 8.0, 3.0, 5.0, 9.0, 1.0, 7.0, 6.0, 2.0], start=1):
        nn.init.constant_(network.weight, value)
        average.advance()
        average.take_in(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(average.state["weight"]) == pytest.approx(expected)


def test_inside_the_block_the_network_has_the_average_and_afterwards_its_own() -> None:
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, decay=0.9)
    with torch.no_grad():
        network.weight.fill_(5.0)
        network.running_mean.fill_(3.0)  # type: ignore[union-attr]
        network.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    average.advance()
    average.take_in(network)
    with average.inside(network):
        assert 1 < float(network.weight[0].detach()) < 5
        assert 0 < float(network.running_mean[0]) < 3  # type: ignore[index]
    assert network.weight.tolist() == [5.0, 5.0]
    assert int(network.num_batches_tracked) == 7  # type: ignore[arg-type]
    with pytest.raises(RuntimeError), average.inside(network):
        raise RuntimeError
    assert network.weight.tolist() == [5.0, 5.0]
