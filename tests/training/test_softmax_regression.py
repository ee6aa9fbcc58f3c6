"""The probe's minimiser against automatic differentiation, and along a path of penalties."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from headstart.training.softmax_regression import SoftmaxRegression
from headstart.training.standardised import StandardisedRows

PATH = (1.0, 0.1, 0.01, 0.001)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_digits()
    features = torch.from_numpy(data.data).float()
    deviation = features.std(0, correction=0)
    return (features - features.mean(0)) / torch.where(deviation > 0, deviation, 1.0), torch.from_numpy(data.target)


def regression(features: torch.Tensor, labels: torch.Tensor) -> SoftmaxRegression:
    """Of standardised features, which stay as they are."""
    return SoftmaxRegression(StandardisedRows(features.numpy(), np.arange(len(features))), labels, 10)


def objective(digits: tuple[torch.Tensor, torch.Tensor], parameters: torch.Tensor, l2: float) -> torch.Tensor:
    features, labels = digits
    logits = features.to(parameters.dtype) @ parameters[:, :-1].T + parameters[:, -1]
    return torch.nn.functional.cross_entropy(logits, labels) + 0.5 * l2 * parameters[:, :-1].square().sum()


@pytest.mark.parametrize("l2", PATH)
def test_the_gradient_vanishes_at_the_minimum(digits: tuple[torch.Tensor, torch.Tensor], l2: float) -> None:
    rows = regression(*digits)
    found = rows.minimise(l2, rows.start, 1e-7).double().requires_grad_()
    value = objective(digits, found, l2)
    (gradient,) = torch.autograd.grad(value, found)
    # Of a convex function with curvature l2 at least, what is left to gain is below |gradient|^2 / (2 l2); biases aside.
    assert float(gradient[:, :-1].square().sum()) / (2 * l2) < 1e-3 * float(value.detach())
    assert float(gradient.abs().max()) < 2e-3


def test_a_path_ends_where_each_penalty_alone_does(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    along = regression(*digits)
    parameters = along.start
    for l2 in PATH:
        parameters = along.minimise(l2, parameters, 1e-7)
        alone = regression(*digits)
        fresh = alone.minimise(l2, alone.start, 1e-7)
        here, there = (float(objective(digits, one.double(), l2)) for one in (parameters, fresh))
        assert here == pytest.approx(there, rel=1e-5)


def test_rows_are_read_in_pieces_without_being_lost(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    features, labels = digits
    assert len(features) > 1000  # more than one piece, the last one smaller
    rows = regression(features, labels)
    parameters = torch.randn(10, 65, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = objective(digits, parameters, 0.1)
    (gradient,) = torch.autograd.grad(value, parameters)
    ours, our_gradient = rows._value_and_gradient(parameters.detach(), 0.1)
    assert ours == pytest.approx(float(value.detach()), rel=1e-5)
    assert torch.allclose(our_gradient, gradient, atol=1e-5)


def test_a_stronger_penalty_after_a_weaker_one_ends_at_its_own_minimum(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    rows = regression(*digits)
    weak = rows.minimise(0.001, rows.start, 1e-6)
    back = rows.minimise(0.1, weak, 1e-7)
    fresh = regression(*digits)
    assert float(objective(digits, back, 0.1)) == pytest.approx(
        float(objective(digits, fresh.minimise(0.1, fresh.start, 1e-7), 0.1)), rel=1e-5
    )
    # From the minimum there is nowhere to go.
    again = rows.minimise(0.1, back, 1e-7)
    assert torch.allclose(again, back, atol=1e-3)


def test_features_that_never_move_and_classes_without_images_are_harmless(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    features, labels = digits
    few = labels < 9
    features = torch.cat([features[few], torch.zeros(int(few.sum()), 300)], dim=1)[:200]  # more numbers than rows
    standardised = StandardisedRows(features.numpy(), np.arange(200))
    rows = SoftmaxRegression(standardised, labels[few][:200], 10)
    found = rows.minimise(0.01, rows.start, 1e-6)
    assert bool(found.isfinite().all())
    logits = torch.cat(list(standardised.blocks())) @ found[:, :-1].T + found[:, -1]
    assert float((logits.argmax(1) == labels[few][:200]).float().mean()) > 0.95
    assert not bool((logits.argmax(1) == 9).any())


def test_numbers_that_are_none_end_it(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    rows = regression(*digits)
    start = torch.full_like(rows.start, float("nan"))
    assert bool(rows.minimise(0.1, start, 1e-6).isnan().all())
