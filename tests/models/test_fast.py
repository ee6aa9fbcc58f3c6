"""The fast network: shapes at every image size, what its first layer is, and its two directions."""

import numpy as np
import pytest
import torch

from headstart.models import fast
from headstart.models.cost import complexity
from headstart.models.fast import FastCNN
from headstart.models.network import NetworkSpec, build_network, classifier_spec
from headstart.records import Recipe


@pytest.mark.parametrize("size", [4, 8, 15, 28, 32, 64, 65, 96])
def test_any_size_gives_logits(size: int) -> None:
    assert FastCNN(7, size, width=4).eval()(torch.zeros(2, 3, size, size)).shape == (2, 7)


def test_parameters_by_hand() -> None:
    counted = complexity(FastCNN(10, 32, width=16), 32)
    convolutions = 9 * (24 * 16 + 16 * 16 + 16 * 64 + 64 * 64 + 64 * 64 + 64 * 64)
    norms = 2 * 2 * (16 + 64 + 64)
    assert counted.parameters == 24 * 12 + 24 + convolutions + norms + 64 * 10


def test_the_first_layer_makes_patches_white_and_does_not_train() -> None:
    pixels = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    # Neighbours and channels that resemble each other, as in photographs.
    smooth = torch.nn.functional.avg_pool2d(pixels, 3, stride=1)
    images = 8 * (smooth + pixels.mean(1, keepdim=True)[:, :, 1:-1, 1:-1])
    network = FastCNN(3, 14, width=4)
    network.whiten(images)
    responses = network.whitening(images).detach()
    positive = responses[:, :12].permute(1, 0, 2, 3).reshape(12, -1).numpy()
    assert torch.equal(responses[:, 12:], -responses[:, :12])
    covariance = np.cov(positive)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3
    assert np.diag(covariance).min() > 0.98
    assert not network.whitening.weight.requires_grad
    assert network.whitening.bias is not None
    assert network.whitening.bias.requires_grad


@pytest.mark.parametrize("block", [1, 400, 5000])
def test_whitening_takes_a_block_of_images_at_a_time(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    images = torch.randn(30, 3, 12, 15, generator=torch.Generator().manual_seed(0)).cumsum(3) + 5
    rows = np.concatenate(
        [images[:, :, y : y + 2, x : x + 2].reshape(30, 12).numpy() for y in range(11) for x in range(14)]
    )
    sizes: list[int] = []
    whole = fast._patches

    def counted(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(whole(part)))
        return whole(part)

    monkeypatch.setattr(fast, "_BLOCK_PATCHES", block)
    monkeypatch.setattr(fast, "_patches", counted)
    covariance = fast._patch_covariance(images).numpy()
    np.testing.assert_allclose(covariance, np.cov(rows.astype(np.float64).T, bias=True), rtol=1e-10)
    assert max(sizes) <= max(block, 11 * 14)
    assert sum(sizes) == 2 * len(rows)  # once for the mean, once for what lies around it


def test_filters_pass_their_channel_through_at_first() -> None:
    group = FastCNN(3, 16, width=32).groups[1]
    assert isinstance(group, torch.nn.Sequential)
    first = group[0]
    image = torch.rand(1, 24, 5, 5)
    assert torch.allclose(first(image)[:, :24], image, atol=1e-6)


@pytest.mark.parametrize(("augmentation", "same"), [("shift-alternate", True), ("shift-flip", True), ("shift", False)])
def test_a_network_that_saw_both_directions_judges_both(augmentation: str, same: bool) -> None:
    recipe = Recipe("fast", "scratch", network="fast", augmentation=augmentation, width=4)  # type: ignore[arg-type]
    network = build_network(classifier_spec(16, 5, None, recipe), seed=3).eval()
    images = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(network(images), network(images.flip(3)), atol=1e-6) == same


def test_same_seed_same_weights() -> None:
    spec = NetworkSpec("fast", 3, 16, width=4)
    first, again, other = (build_network(spec, seed).state_dict()["head.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
