"""Muon: the singular values of its steps, the length of its kernels, and Adam for everything else."""

import pytest
import torch
from torch import nn

from headstart.training.muon import Muon, muon_groups, orthogonalised


def test_singular_values_come_near_one_and_vectors_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((8, 20), (20, 8)):
        matrix = torch.randn(shape, generator=generator)
        result = orthogonalised(matrix)
        values = torch.linalg.svdvals(result)
        assert float(values.min()) > 0.65
        assert float(values.max()) < 1.25
        # The nearest semi-orthogonal matrix is U V' (Higham 2008): ours points the same way.
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        exact = left @ right
        assert float((result * exact).sum() / (result.norm() * exact.norm())) > 0.95


def test_kernels_turn_without_growing_and_the_rest_moves_as_adamw_moves_it() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, bias=False), nn.Flatten(), nn.LazyLinear(2))
    images = torch.randn(5, 3, 8, 8)
    network(images)
    witness = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, bias=False), nn.Flatten(), nn.LazyLinear(2))
    witness(images)
    witness.load_state_dict(network.state_dict())
    groups = muon_groups(network, [{"params": list(network.parameters()), "lr": 0.1, "initial_lr": 0.1}])
    assert [group["kernels"] for group in groups] == [True, False]
    assert [parameter.shape for parameter in groups[0]["params"]] == [(6, 4, 3, 3)]
    rest = [parameter for name, parameter in witness.named_parameters() if name != "1.weight"]
    muon = Muon(groups, weight_decay=0.1)
    adam = torch.optim.AdamW(rest, lr=groups[1]["lr"], weight_decay=0.1)
    for _ in range(3):
        for one, optimizer in ((network, muon), (witness, adam)):
            optimizer.zero_grad()
            one(images).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            witness.get_parameter("1.weight").copy_(network.get_parameter("1.weight"))
    for ours, theirs in zip(network.parameters(), witness.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    # One step of 0.1 from length sqrt(6), at right angles or not, ends within 0.1 times the step's own length.
    assert float(network.get_parameter("1.weight").detach().norm()) == pytest.approx(6**0.5, rel=0.15)


def test_pretrained_kernels_keep_the_length_that_they_come_with() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, bias=False))
    kernel = network.get_parameter("1.weight")
    with torch.no_grad():
        kernel.mul_(5 / kernel.norm())
    before = kernel.detach().clone()
    groups = muon_groups(network, [{"params": list(network.parameters()), "lr": 0.01, "initial_lr": 0.01}])
    muon = Muon(groups, weight_decay=0.0, pretrained=True)
    for _ in range(5):
        muon.zero_grad()
        network(torch.randn(5, 3, 8, 8)).square().mean().backward()
        muon.step()
    assert float(kernel.detach().norm()) == pytest.approx(5.0, rel=0.02)
    # Steps in proportion: a hundredth of its rows' length each, of at most full rank.
    moved = float((kernel.detach() - before).norm()) / 5
    assert 0.005 < moved < 0.06


def test_without_momentum_a_step_knows_its_own_gradient_alone() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, bias=False))
    kernel = network.get_parameter("1.weight")
    groups = muon_groups(network, [{"params": list(network.parameters()), "lr": 0.01, "initial_lr": 0.01}])
    muon = Muon(groups, weight_decay=0.0, momentum=0.0)
    for _ in range(2):
        before = kernel.detach().clone()
        kernel.grad = torch.randn_like(kernel)
        muon.step()
    start = before * 6**0.5 / before.norm()
    assert kernel.grad is not None
    expected = start - 0.01 * orthogonalised(kernel.grad.reshape(6, -1)).view_as(kernel)
    torch.testing.assert_close(kernel.detach(), expected)


def test_a_rate_in_a_tensor_gives_the_steps_of_a_number() -> None:
    results = []
    for as_tensor in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 2))
        groups = muon_groups(network, [{"params": list(network.parameters()), "lr": 0.1, "initial_lr": 0.1}])
        muon = Muon(groups, weight_decay=0.1, pretrained=True)
        for group in muon.param_groups:
            group["lr"] = torch.tensor(group["lr"]) if as_tensor else group["lr"]
        for _ in range(3):
            muon.zero_grad()
            network(torch.randn(5, 3, 8, 8)).square().mean().backward()
            muon.step()
        results.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(results[0], results[1])
