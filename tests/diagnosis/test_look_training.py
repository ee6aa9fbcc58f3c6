"""What a training's curve and loss give away."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.diagnosis.look_training import (
    look_at_history,
    look_at_loss,
    look_at_paths,
    predicted_classes,
    read_history,
)
from headstart.diagnosis.subject import Evidence, Subject
from headstart.errors import UsageError
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


def test_a_loss_that_falls_below_zero_expects_something_else() -> None:
    subject = Subject(
        "mine",
        nn.Identity(),
        lambda images: torch.from_numpy(np.asarray(images)),
        evidence=Evidence(loss=nn.NLLLoss()),
    )
    raw = torch.tensor([[2.0, -3.0], [0.5, 4.0]])
    for outputs in (raw, raw.softmax(1)):
        found = look_at_loss(subject, outputs, classes=2)
        assert (found.status, found.code) == ("suspected", "loss-below-zero")
    assert look_at_loss(subject, raw.log_softmax(1), classes=2).status == "cleared"


def test_curves_as_people_have_them() -> None:
    percent = {"loss": [2.0, 0.5], "acc": [50.0, 95.0], "val_acc": [48.0, 94.5]}
    jump, gap = look_at_history(percent)
    assert (jump.status, gap.status) == ("cleared", "cleared")
    assert gap.values == {"train": 0.95, "val": 0.945}
    assert look_at_history({"loss": [2.0, 0.001, 0.0016]})[0].status == "cleared"  # a converged loss trembles
    with pytest.raises(UsageError, match="one for each epoch"):
        read_history({"loss": [2.0, 1.0], "epoch": 3})


def test_predictions_of_every_form_become_classes() -> None:
    two = np.array([[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]])
    for given in (two, np.array([1, 0, 1]), two[:, 1], two[:, 1:], np.array([2.0, -1.5, 0.5])):
        assert predicted_classes(given, np.arange(3), 9, 2).tolist() == [1, 0, 1]
    assert predicted_classes(np.arange(9) % 3, np.array([1, 5]), 9, 3).tolist() == [
        1,
        2,
    ]  # of all images: test's are taken
    for given, said in (
        (np.zeros((3, 5)), "5 columns"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.array([1, 2, 3]), "from 0 to 2"),
        (np.array([0.5, 1.0, 2.0]), "whole numbers"),
    ):
        with pytest.raises(UsageError, match=said):
            predicted_classes(given, np.arange(3), 9, 3)


def test_a_serving_path_of_another_shape_is_told_by_its_shapes() -> None:
    subject = Subject(
        "mine",
        nn.Identity(),
        lambda images: torch.zeros(len(images), 3, 32, 32),
        evidence=Evidence(serve=lambda images: torch.zeros(len(images), 3, 64, 64)),
    )
    found = look_at_paths(subject, np.zeros((2, 8, 8, 3), np.uint8))
    assert (found.status, found.code) == ("suspected", "paths-differ-in-shape")
    assert found.values == {"first": "(3, 32, 32)", "second": "(3, 64, 64)"}


def test_a_history_is_read_from_its_file(tmp_path: Path) -> None:
    curve = {"loss": [2.0, 1.0], "accuracy": [0.5, 0.7]}
    (tmp_path / "history.json").write_text(json.dumps(curve), encoding="utf-8")
    (tmp_path / "log.csv").write_text("epoch,loss,accuracy,note\n0,2.0,0.5,a\n1,1.0,0.7,\n", encoding="utf-8")
    assert read_history(tmp_path / "history.json") == curve
    assert read_history(str(tmp_path / "log.csv")) == curve | {"epoch": [0.0, 1.0]}
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    for name in ("gone.csv", "broken.json"):
        with pytest.raises(UsageError, match="cannot be read"):
            read_history(tmp_path / name)
