"""What a training's curve gives away."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from headstart.diagnosis.look_history import (
    look_at_history,
    look_at_learning,
    look_at_loss_curve,
    look_at_selection,
    read_history,
    val_shares,
)
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


def test_curves_as_people_have_them() -> None:
    percent = {"loss": [2.0, 0.5], "acc": [50.0, 95.0], "val_acc": [48.0, 94.5]}
    jump, gap = look_at_history(percent)
    assert (jump.status, gap.status) == ("cleared", "cleared")
    assert gap.values == {"train": 0.95, "val": 0.945}
    assert look_at_history({"loss": [2.0, 0.001, 0.0016]})[0].status == "cleared"  # a converged loss trembles
    with pytest.raises(UsageError, match="one for each epoch"):
        read_history({"loss": [2.0, 1.0], "epoch": 3})


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("sparse_categorical_accuracy", "val_sparse_categorical_accuracy"),  # Keras
        ("train_acc_epoch", "val_acc"),  # Lightning
        ("Train/Accuracy", "Validation Accuracy"),
        ("acc", "eval_accuracy"),
    ],
)
def test_curves_under_the_names_that_libraries_give_them(train: str, val: str) -> None:
    gap = look_at_history(read_history({train: [0.5, 0.95], val: [0.4, 0.6]}))[1]
    assert (gap.status, gap.values) == ("suspected", {"train": 0.95, "val": 0.6})


def test_an_accuracy_in_fastais_recorder_is_of_val() -> None:
    losses = {"train_loss": [2.0, 1.0], "valid_loss": [2.1, 1.2]}
    assert val_shares(read_history(losses | {"accuracy": [0.4, 0.6]})) == [0.4, 0.6]
    assert val_shares(read_history(losses | {"error_rate": [0.6, 0.4]})) == pytest.approx([0.4, 0.6])
    assert look_at_history(read_history(losses | {"accuracy": [0.4, 0.6]}))[1].status == "could-not-look"
    both = read_history(losses | {"accuracy": [0.8, 0.9], "valid_accuracy": [0.4, 0.6]})
    assert val_shares(both) == [0.4, 0.6]
    assert look_at_history(both)[1].values == {"train": 0.9, "val": 0.6}


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


def test_a_table_with_empty_cells_is_read_column_by_column(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,loss,accuracy,\n0,2.0,0.5,\n1,1.0,0.7,\n", encoding="utf-8")
    assert read_history(path) == {"epoch": [0.0, 1.0], "loss": [2.0, 1.0], "accuracy": [0.5, 0.7]}
    path.write_text("loss,accuracy\n2.0,0.5,\n1.0,0.7,\n", encoding="utf-8")  # a comma behind the lines alone
    assert read_history(path) == {"loss": [2.0, 1.0], "accuracy": [0.5, 0.7]}
    # Lightning's CSVLogger: val in lines of its own, train every so many steps.
    path.write_text(
        "epoch,step,train_loss,val_acc\n0,49,2.5,\n0,99,1.5,\n0,99,,0.4\n1,149,1.0,\n1,199,0.5,\n1,199,,0.6\n",
        encoding="utf-8",
    )
    curve = read_history(path)
    assert (curve["train_loss"], curve["val_acc"]) == ([2.0, 0.75], [0.4, 0.6])
    assert look_at_history(curve)[0].code == "training-calm"
    path.write_text("train_loss,val_loss\n2.0,\n,1.9\n1.0,\n,1.1\n", encoding="utf-8")
    assert read_history(path) == {"train_loss": [2.0, 1.0], "val_loss": [1.9, 1.1]}
    lines = [{"loss": 2.0}, {"val_loss": 1.9}, {"loss": 1.0}]
    assert read_history(lines) == {"loss": [2.0, 1.0], "val_loss": [1.9]}


def test_a_loss_at_the_floor_of_two_softmaxes_is_suspected() -> None:
    """The curve of a network that learns perfectly, with softmax before a cross-entropy that applies its own."""
    labels = torch.arange(10).repeat(30)
    losses, accuracies = [], []
    for sure in (0.1, 1.0, 3.0, 8.0):
        outputs = sure * torch.nn.functional.one_hot(labels, 10).float()
        losses.append(float(cross_entropy(outputs.softmax(1), labels)))
        accuracies.append(float((outputs.argmax(1) == labels).float().mean()))
    found = look_at_loss_curve({"loss": losses, "accuracy": accuracies}, 10)
    assert (found.cause, found.status, found.code) == (14, "suspected", "loss-at-floor")
    assert found.values["floor"] == round(math.log(math.e + 9) - 1, 3) == 1.461


def test_an_honest_loss_is_not_called_a_softmax_too_many() -> None:
    learning = {"loss": [2.2, 1.7, 1.5], "accuracy": [0.2, 0.4, 0.48]}  # as bad as its accuracy
    assert look_at_loss_curve(learning, 10).status == "could-not-look"
    smoothed = {"loss": [1.4, 0.9, 0.75], "accuracy": [0.6, 0.85, 0.95]}  # label smoothing 0.1
    assert look_at_loss_curve(smoothed, 10).status == "cleared"
    two = {"loss": [0.69, 0.45, 0.33], "accuracy": [0.5, 0.8, 0.87]}
    assert look_at_loss_curve(two, 2).status == "could-not-look"
    assert look_at_loss_curve({"loss": [float("nan")], "accuracy": [0.1]}, 10).status == "could-not-look"


def test_a_val_part_that_is_the_test_part_is_seen_by_its_accuracy_and_loss() -> None:
    rng = np.random.default_rng(0)
    labels, outputs = rng.integers(0, 3, 200), rng.normal(size=(200, 3))
    outputs[np.arange(200), labels] += 1
    right = outputs.argmax(1) == labels
    loss = float(cross_entropy(torch.from_numpy(outputs), torch.from_numpy(labels)))
    best = float(right.mean())
    curve = {"val_accuracy": [0.2, best, 0.3], "val_loss": [1.1, loss, 1.4]}
    found = look_at_selection(curve, outputs, right, labels)
    assert (found.cause, found.status, found.values["epoch"]) == (17, "proved", 2)
    percent = {"val_accuracy": [20.0, 100 * best, 30.0], "val_loss": curve["val_loss"]}
    assert look_at_selection(percent, outputs, right, labels).status == "proved"
    shares = torch.from_numpy(outputs).softmax(1).numpy()
    assert look_at_selection(curve, shares, right, labels).status == "proved"
    other = curve | {"val_loss": [1.1, loss + 0.05, 1.4]}
    assert look_at_selection(other, outputs, right, labels).status == "could-not-look"  # as accurate by accident
    assert look_at_selection(curve, None, right, labels).status == "could-not-look"  # 200 images agree too easily
    assert look_at_selection({}, outputs, right, labels).status == "could-not-look"


def test_many_test_images_agree_with_val_only_where_they_are_it() -> None:
    right = np.arange(10_000) < 7_134
    labels = np.zeros(10_000, np.int64)
    assert look_at_selection({"val_accuracy": [0.5, 0.7134]}, None, right, labels).status == "suspected"
    assert look_at_selection({"val_accuracy": [0.5, 0.7135]}, None, right, labels).status == "could-not-look"


def test_little_learned_and_no_gap_is_told_from_a_training_that_ended_too_early() -> None:
    little = look_at_learning({"loss": [2.2, 2.0], "accuracy": [0.25, 0.281], "val_accuracy": [0.25, 0.286]}, 10)
    assert (little.cause, little.status, little.code) == (21, "suspected", "learns-little")
    falling = {"loss": [1.2, 1.0, 0.85, 0.72, 0.6], "accuracy": [0.6, 0.66, 0.7, 0.75, 0.8]}
    falling |= {"val_accuracy": [0.58, 0.64, 0.69, 0.74, 0.78]}
    assert look_at_learning(falling, 10).code == "loss-still-falls"
    level = falling | {"loss": [1.2, 0.8, 0.65, 0.6, 0.598]}
    assert look_at_learning(level, 10).status == "could-not-look"
    no_better = falling | {"val_accuracy": [0.58, 0.7, 0.773, 0.777, 0.781]}  # under a point in its last quarter
    assert look_at_learning(no_better, 10).status == "could-not-look"
    seldom = falling | {"val_accuracy": [0.6, 0.78]}  # looked at every other epoch
    assert look_at_learning(seldom, 10).status == "could-not-look"
    past_its_best = falling | {"val_accuracy": [0.58, 0.64, 0.76, 0.75, 0.74]}
    assert look_at_learning(past_its_best, 10).status == "could-not-look"
    overfitted = falling | {"val_accuracy": [0.5, 0.52, 0.55, 0.58, 0.6]}
    assert look_at_learning(overfitted, 10).status == "could-not-look"  # that is cause 22
