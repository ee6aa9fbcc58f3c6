"""Losses that cannot fit fifty images, losses that can, and losses that only look strange."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, one_hot

from headstart.analysis.diagnosis import Finding
from headstart.diagnosis.prove_loss import _coordinates, _fit, prove_loss
from headstart.diagnosis.subject import Evidence, Subject
from headstart.records import ImageSet
from tests.diagnosis.test_prove_training import CLASSES, IMAGES, SPLIT, plain

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LOOKED = Finding(14, "suspected", "first-loss-off", {"loss": 1.5, "expected": 0.0})
PROBABILITIES = Finding(14, "suspected", "outputs-are-probabilities", {})
FITS = Finding(14, "cleared", "loss-fits", {})


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return self.function(scores)


def proved(
    finding: Finding,
    output: Callable[[torch.Tensor], torch.Tensor],
    loss: Loss,
    *,
    apart: bool = False,
    columns: int = CLASSES,
    images: ImageSet = IMAGES,
) -> Finding:
    """Prove on a network of random features, its last layer inside it or in a head apart."""
    generator = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(3, 16, 3)
    layer = nn.Linear(16 * 36, columns)
    for parameter in [*convolution.parameters(), *layer.parameters()]:
        nn.init.normal_(parameter, 0, 0.1, generator=generator)
    features = [convolution, nn.ReLU(), nn.Flatten()]
    head = nn.Sequential(layer, Function(output))
    module = nn.Sequential(*features) if apart else nn.Sequential(*features, *head)
    one = Subject("mine", module.eval(), plain, head=head if apart else None, evidence=Evidence(loss=loss))
    before = [parameter.clone() for parameter in [*module.parameters(), *head.parameters()]]
    found = prove_loss(finding, one, images, SPLIT.train)
    assert all(torch.equal(a, b) for a, b in zip(before, [*module.parameters(), *head.parameters()], strict=True))
    return found


def identity(scores: torch.Tensor) -> torch.Tensor:
    """Raw scores."""
    return scores


def smoothed(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A right loss that never comes to zero."""
    return cross_entropy(outputs, labels, label_smoothing=0.1)


def squared(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """On one-hot labels."""
    return mse_loss(outputs, one_hot(labels, outputs.shape[1]).float())


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("output", "loss"),
    [
        (torch.relu, cross_entropy),  # scores that start at zero never move
        (identity, lambda outputs, labels: -cross_entropy(outputs, labels)),
        (identity, lambda outputs, labels: cross_entropy(outputs, labels.roll(1))),  # labels of other images
    ],
    ids=["relu", "wrong sign", "other labels"],
)
def test_a_loss_that_cannot_fit_fifty_images_is_proved(
    output: Callable[[torch.Tensor], torch.Tensor], loss: Loss, apart: bool
) -> None:
    for looked in (LOOKED, FITS):
        found = proved(looked, output, loss, apart=apart)
        assert (found.status, found.code, found.points) == ("proved", "cannot-fit-few", None)
        assert found.values["count"] == 50
        assert found.values["probe"] == 1.0
        assert found.values["head"] < 0.9


@pytest.mark.parametrize(
    ("looked", "output", "loss", "status"),
    [
        (LOOKED, identity, smoothed, "cleared"),
        (LOOKED, lambda scores: scores.log_softmax(1), smoothed, "cleared"),
        (
            PROBABILITIES,
            lambda scores: scores.softmax(1),
            cross_entropy,
            "suspected",
        ),  # twice: slower, and fits all the same
        (PROBABILITIES, torch.sigmoid, cross_entropy, "suspected"),
        (FITS, identity, cross_entropy, "cleared"),
        (FITS, lambda scores: scores.softmax(1), squared, "cleared"),
    ],
    ids=["smoothed", "smoothed, log-softmax twice", "softmax twice", "sigmoid", "right", "squared"],
)
def test_a_loss_that_fits_is_not_proved(
    looked: Finding, output: Callable[[torch.Tensor], torch.Tensor], loss: Loss, status: str
) -> None:
    found = proved(looked, output, loss)
    assert found.status == status
    assert found.code == ("fits-few" if looked is LOOKED else looked.code)


TWO = replace(IMAGES, labels=IMAGES.labels % 2, class_names=("left", "right"))


@pytest.mark.parametrize("apart", [False, True])
def test_one_score_for_two_classes_is_fitted_in_one_column(apart: bool) -> None:
    def of_scores(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(outputs.squeeze(1), labels.float())

    def of_probabilities(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy(outputs.squeeze(1), labels.float())

    one: dict[str, Any] = {"apart": apart, "columns": 1, "images": TWO}
    assert proved(FITS, identity, of_scores, **one) == FITS
    assert proved(FITS, torch.sigmoid, of_probabilities, **one) == FITS
    found = proved(FITS, lambda scores: scores.softmax(1), of_probabilities, **one)  # of one column: always 1
    assert (found.status, found.code) == ("proved", "cannot-fit-few")
    # What never comes to zero and fits as fast is cleared: that needs the same steps in one column as in two.
    assert proved(LOOKED, identity, lambda o, y: of_scores(o, y) + 1.0, **one).code == "fits-few"


def test_each_class_against_the_rest_fits() -> None:
    def against_the_rest(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return binary_cross_entropy_with_logits(outputs, one_hot(labels, CLASSES).float())

    assert proved(FITS, identity, against_the_rest) == FITS


def test_what_cannot_be_tried_stays_as_it_was_looked_at() -> None:
    assert proved(LOOKED, lambda scores: scores**3, cross_entropy) == LOOKED  # an output function that nobody knows
    assert proved(LOOKED, identity, lambda outputs, labels: torch.tensor(1.0)) == LOOKED  # no gradient
    unseen = Finding(14, "could-not-look", "no-outputs", {})
    assert proved(unseen, identity, cross_entropy) == unseen
    headless = Subject("mine", nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), plain, evidence=Evidence(loss=smoothed))
    assert prove_loss(LOOKED, headless, IMAGES, SPLIT.train) == LOOKED


def test_coordinates_in_the_images_span_take_the_same_steps() -> None:
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(50, 300)).astype(np.float32))
    labels = torch.arange(50) % CLASSES
    short = _coordinates(features)
    assert short.shape == (50, 50)
    standardised = (features - features.mean(0)) / features.std(0, correction=0)
    whole = torch.cat([standardised, torch.ones(50, 1)], 1)
    assert torch.allclose(short @ short.T, whole @ whole.T, atol=1e-2)
    one, other = (_fit(inputs, labels, CLASSES, identity, cross_entropy) for inputs in (short, whole))
    assert one is not None
    assert other is not None
    assert one.correct.all()
    assert one.steps == other.steps
