"""What a training's curve and loss give away."""

import numpy as np
import torch
from torch import nn

from headstart.diagnosis.look_training import look_at_history, look_at_loss
from headstart.diagnosis.subject import Evidence, Subject
from headstart.files import canonical_json


def test_a_loss_that_is_no_number_is_said_without_the_number() -> None:
    for last in (float("nan"), float("inf")):
        found = look_at_history({"loss": [2.3, last]})[0]
        assert (found.cause, found.status, found.code) == (11, "suspected", "loss-diverged")
        assert canonical_json(found.values) == "{}"


def test_a_loss_that_jumps_is_not_called_divergence() -> None:
    assert look_at_history({"loss": [2.3, 0.6, 14.2]})[0].code == "loss-jump"
    assert look_at_history({"loss": [2.3, 1.9, 1.8]})[0].status == "cleared"


def test_a_perfect_answer_without_a_finite_loss_is_suspected() -> None:
    subject = Subject(
        "mine",
        nn.Identity(),
        lambda images: torch.from_numpy(np.asarray(images)),
        evidence=Evidence(loss=lambda outputs, labels: torch.tensor(float("nan"))),
    )
    found = look_at_loss(subject, torch.tensor([[2.0, -3.0], [0.5, 4.0]]), classes=2)
    assert (found.status, found.code, found.values) == ("suspected", "perfect-loss-not-finite", {})
