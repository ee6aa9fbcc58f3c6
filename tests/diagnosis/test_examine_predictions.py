"""What predictions show whose network is not there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import headstart
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.errors import UsageError

DIGITS = load_images("digits")
TEST = make_split(DIGITS, seed=0)[0].test
LABELS = DIGITS.labels


def outputs_of(right: float, seed: int = 0) -> np.ndarray:
    """Probabilities of ten classes for every image of the digits, so many of them right."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(LABELS)) < right, LABELS, rng.integers(0, 10, len(LABELS)))
    return np.full((len(LABELS), 10), 0.02) + 0.8 * np.eye(10)[said]


def causes_of(found: headstart.Diagnosis) -> dict[str, str]:
    return {cause["name"]: cause["status"] for cause in found.causes}


def test_mixed_up_names_are_proved_from_predictions_alone_and_repaired(tmp_path: Path) -> None:
    shifted = np.roll(outputs_of(0.95), 3, axis=1)
    np.savetxt(tmp_path / "outputs.csv", shifted, delimiter=",")
    found = headstart.diagnose("digits", predictions=tmp_path / "outputs.csv", runs=tmp_path / "runs")
    assert found.proved == ["label-order"]
    assert found.record["subject"]["kind"] == "predictions"
    assert found.record["accuracy"]["failing"] < 0.1
    assert found.record["accuracy"]["repaired"] > 0.9
    assert "outputs.csv" in found.paths.html.read_text(encoding="utf-8")
    assert causes_of(found)["pixel-range"] == "could-not-look"
    assert found.repaired_recipe is None


def test_a_network_that_learned_little_is_not_said_to_have_mixed_up_names(tmp_path: Path) -> None:
    said = np.random.default_rng(0).integers(0, 10, len(LABELS))
    for taken in (2, 3, 5):  # three classes are always taken for the next one: renaming those helps, and not enough
        said[taken == LABELS] = taken + 4
    found = headstart.diagnose("digits", predictions=said, runs=tmp_path)
    order = next(cause for cause in found.causes if cause["name"] == "label-order")
    assert (order["status"], order["evidence"]["code"]) == ("suspected", "permutation-or-untrained")


def test_the_curve_is_looked_at_beside_the_predictions(tmp_path: Path) -> None:
    outputs = outputs_of(0.85)
    right = float((outputs[TEST].argmax(1) == LABELS[TEST]).mean())
    loss = float(-np.log(outputs[TEST, LABELS[TEST]]).mean())
    curve = {
        "loss": [1.9, 1.6, 1.52],
        "accuracy": [0.6, 0.9, 0.99],
        "val_accuracy": [0.5, 0.7, right],
        "val_loss": [1.2, 0.9, loss],
    }
    (tmp_path / "history.json").write_text(json.dumps(curve), encoding="utf-8")
    found = headstart.diagnose("digits", predictions=outputs, history=tmp_path / "history.json", runs=tmp_path)
    seen = causes_of(found)
    assert seen["test-used-for-selection"] == "proved"
    assert seen["overfit"] == seen["loss-activation"] == "suspected"
    assert found.record["verdict"]["code"] == "proved"


@pytest.mark.parametrize(("on_train", "status"), [(0.99, "suspected"), (0.72, "cleared")])
def test_predictions_of_all_images_show_a_gap_without_a_curve(tmp_path: Path, on_train: float, status: str) -> None:
    part = np.where(np.isin(np.arange(len(LABELS)), TEST), "test", "train")
    np.savez(tmp_path / "digits.npz", X=DIGITS.images, y=LABELS, part=part)
    outputs = np.where((part == "test")[:, None], outputs_of(0.68), outputs_of(on_train, seed=1))
    found = headstart.diagnose(tmp_path / "digits.npz", predictions=outputs, runs=tmp_path, language="en")
    overfit = next(cause for cause in found.causes if cause["name"] == "overfit")
    assert (overfit["status"], overfit["evidence"]["code"]) == (
        status,
        "gap-large" if status == "suspected" else "gap-small",
    )


def test_predictions_without_a_fault_are_not_blamed(tmp_path: Path) -> None:
    found = headstart.diagnose("digits", predictions=outputs_of(0.97)[TEST], runs=tmp_path, language="es")
    assert found.record["verdict"]["code"] == "nothing-seen"
    assert "no se ve nada malo en predictions" in found.verdict.lower()
    assert {"proved", "suspected"}.isdisjoint(causes_of(found).values())


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_curve_alone_says_what_it_shows(tmp_path: Path, language: str) -> None:
    curve = {
        "loss": [2.31, 2.2, 2.15, 2.12],
        "accuracy": [0.12, 0.2, 0.24, 0.25],
        "val_accuracy": [0.13, 0.21, 0.25, 0.26],
    }
    (tmp_path / "curve.json").write_text(json.dumps(curve), encoding="utf-8")
    found = headstart.diagnose("digits", history=tmp_path / "curve.json", runs=tmp_path / "runs", language=language)
    seen = causes_of(found)
    assert seen.pop("underfit-head") == "suspected"
    assert {name for name, status in seen.items() if status == "cleared"} == {"learning-rate", "overfit"}
    assert found.record["subject"] | {"kind": "history", "name": "curve.json"} == found.record["subject"]
    accuracy = found.record["accuracy"]
    assert (accuracy["failing"], accuracy["part"], accuracy["repaired"]) == (0.26, "val", None)
    assert "curve.json" in found.verdict
    shown = found.paths.markdown.read_text(encoding="utf-8")
    assert ("a curve does not say how sure" if language == "en" else "una curva no dice cuán seguro") in shown
    assert headstart.diagnose("digits", history=curve, runs=tmp_path / "runs").record["subject"]["name"] == "history"


def test_a_curve_without_a_fault_is_not_blamed(tmp_path: Path) -> None:
    curve = {
        "loss": [1.2, 0.5, 0.30, 0.29],
        "accuracy": [0.6, 0.85, 0.93, 0.93],
        "val_accuracy": [0.62, 0.85, 0.91, 0.91],
    }
    found = headstart.diagnose("digits", history=curve, runs=tmp_path, language="en")
    assert found.record["verdict"]["code"] == "nothing-seen"
    assert found.verdict.startswith("Nothing wrong can be seen in the curve history, which ends at 91.0% on val")


def test_what_is_needed_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no accuracy on val \(val_accuracy\)"):
        headstart.diagnose("digits", history={"loss": [1.0]}, runs=tmp_path)
    with pytest.raises(UsageError, match="digits alone is diagnosed with a recipe of ours"):
        headstart.diagnose("digits", history={"loss": [1.0]}, recipe="mobilenetv2_100-probe", runs=tmp_path)
    with pytest.raises(UsageError, match="recipe: without a network only predictions, history and loss"):
        headstart.diagnose("digits", predictions=outputs_of(0.9), recipe="cnn", runs=tmp_path)
    with pytest.raises(UsageError, match="the test part has 359 images"):
        headstart.diagnose("digits", predictions=np.zeros((7, 10)), runs=tmp_path)


def test_what_script_and_call_both_give_is_not_chosen_between(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import torch\n\ndef build():\n"
        "    return {'model': torch.nn.Identity(), 'preprocess': print, 'history': {'loss': [1.0]}}\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="history: given with the call and by"):
        headstart.diagnose(f"{script}:build", "digits", history={"loss": [2.0]}, runs=tmp_path)


def test_a_limit_of_arrays_is_not_passed_over(tmp_path: Path) -> None:
    pair = DIGITS.images, LABELS
    with pytest.raises(UsageError, match="hand over as many as you like"):
        headstart.diagnose(torch.nn.Conv2d(3, 2, 1), pair, preprocess=lambda image: image, limit=10, runs=tmp_path)
