"""The simple CNN: shapes at every image size, and what it costs by hand arithmetic."""

import pytest
import torch

from headstart.models.cost import complexity, speed
from headstart.models.network import NetworkSpec, build_network, freeze_batch_norm, parameter_groups
from headstart.models.scratch import SimpleCNN


@pytest.mark.parametrize("size", [4, 8, 15, 28, 32, 64, 65, 96, 224])
@pytest.mark.parametrize("classes", [2, 100])
def test_any_size_gives_logits(size: int, classes: int) -> None:
    network = SimpleCNN(classes, size, width=4).eval()
    assert network(torch.zeros(2, 3, size, size)).shape == (2, classes)


def test_parameters_and_macs_by_hand() -> None:
    counted = complexity(SimpleCNN(10, 32, width=32), 32)
    convolutions = 27 * 32 + 288 * 64 + 576 * 128
    norms = 2 * (32 + 64 + 128)
    head = (2048 * 128 + 128) + (128 * 10 + 10)
    assert counted.parameters == convolutions + norms + head
    assert counted.macs == 27 * 32 * 32**2 + 288 * 64 * 16**2 + 576 * 128 * 8**2 + 2048 * 128 + 1280
    assert any("batch_norm" in name for name in counted.macs_uncounted)


def test_speed_is_positive() -> None:
    measured = speed(SimpleCNN(2, 8, width=4), 8)
    assert measured.latency_ms > 0
    assert measured.images_per_second > 0


@pytest.mark.parametrize(("seconds", "passes"), [(0.001, (21, 4)), (0.4, (4, 4)), (2.0, (2, 2))])
def test_a_slow_network_is_timed_less_often(
    monkeypatch: pytest.MonkeyPatch, seconds: float, passes: tuple[int, int]
) -> None:
    now, seen = [0.0], []

    class Slow(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            now[0] += seconds
            seen.append(len(images))
            return images

    monkeypatch.setattr("headstart.models.cost.time.perf_counter", lambda: now[0])
    measured = speed(Slow(), 8)
    assert (seen.count(1), seen.count(64)) == passes
    assert measured.latency_ms == pytest.approx(1000 * seconds)
    assert measured.images_per_second == pytest.approx(64 / seconds)


def test_same_seed_same_weights_and_global_state_untouched() -> None:
    spec = NetworkSpec("cnn", 3, 16, width=4)
    before = torch.random.get_rng_state()
    first, again, other = (build_network(spec, seed).state_dict()["head.1.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_rates_fall_with_the_distance_from_the_head() -> None:
    network = build_network(NetworkSpec("backbone", 3, 64, architecture="test_efficientnet", features=256))
    groups = parameter_groups(network, learning_rate=1.0, layer_decay=0.5)
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1.0
    grouped = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert grouped == sum(parameter.numel() for parameter in network.parameters())


def test_frozen_batch_norm_does_not_move() -> None:
    network = SimpleCNN(2, 8, width=4).train()
    freeze_batch_norm(network)
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    network(torch.rand(8, 3, 8, 8))
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
