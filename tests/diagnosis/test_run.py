"""Diagnoses of recipes and of runs: with the weights that were used, through a diverged training, without touching another's folder."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import headstart
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.diagnosis.both_trials import Training, _tuned_or_frozen
from headstart.diagnosis.judging import accuracy_on_val
from headstart.diagnosis.own_folder import own_request, require_own_folder
from headstart.diagnosis.subject import Evidence, Kept
from headstart.errors import UsageError, WeightsError
from headstart.files import read_json
from headstart.models.backbones import find_backbone
from headstart.models.weights import write_weights_file
from headstart.records import Preprocessing, Recipe, TrialResult
from headstart.study.presets import read_recipe
from tests.models.factory import bundled_backbone

SMALL = find_backbone("small32_s")


def pixels(image: Any) -> torch.Tensor:
    """An image at its own size, 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def own_weights(folder: Path) -> Path:
    """The bundled backbone trained on: another file of the same architecture."""
    assert SMALL.path is not None
    state = {name: value.float() for name, value in load_file(SMALL.path).items()}
    first = next(name for name, value in state.items() if value.ndim == 4)
    state[first] = 1.05 * state[first]
    path = folder / "mine.safetensors"
    write_weights_file(path, "small32_s", state, SMALL.preprocessing, {"license": "CC0-1.0", "pretraining": "none"})
    return path


def test_a_run_is_diagnosed_with_the_weights_that_it_used(tmp_path: Path) -> None:
    path = own_weights(tmp_path)
    rival = Recipe(name="mine-probe", kind="probe", backbone=str(path), preprocessing=Preprocessing(4))
    compared = headstart.compare("digits", [rival], seeds=1, limit=400, runs=tmp_path, language="en")
    with pytest.raises(WeightsError, match=r"other weights of small32_s .* Name the run's weight file with --backbone"):
        headstart.diagnose(compared.folder, recipe="mine-probe", runs=tmp_path, language="en")
    found = headstart.diagnose(compared.folder, recipe="mine-probe", backbone=str(path), runs=tmp_path, language="en")
    assert found.record["accuracy"]["failing"] == pytest.approx(compared.accuracies["mine-probe"])
    # The architecture's name would find the bundled weights: the repaired recipe names the file.
    repaired = read_recipe(found.folder / "repaired.toml")
    assert repaired.backbone == str(path.resolve())
    again = headstart.compare(
        "digits", [str(found.folder / "repaired.toml")], seeds=1, limit=400, runs=tmp_path, language="en"
    )
    assert list(again.accuracies.values()) == [pytest.approx(found.record["accuracy"]["repaired"])]


def test_what_our_training_rules_out_is_cleared_and_not_asked_for(tmp_path: Path) -> None:
    convex = Recipe(name="mine", kind="probe", backbone="small32_s")
    found = headstart.diagnose("digits", recipe=convex, limit=300, runs=tmp_path, language="en")
    codes = {cause["id"]: (cause["status"], cause["evidence"]["code"]) for cause in found.causes}
    assert {codes[cause] for cause in (6, 12, 14, 15)} == {("cleared", "by-construction")}
    assert codes[19] == ("cleared", "no-augmentation")
    assert {codes[cause] for cause in (11, 21)} == {("cleared", "convex-head")}
    assert codes[22] == ("cleared", "gap-of-best-l2")
    said = (found.folder / "report.md").read_text(encoding="utf-8")
    assert "hand it over as" not in said
    stepped = convex.with_changes(head="gradient", epochs=2, learning_rate=1e-2, augmentation="shift")
    found = headstart.diagnose("digits", recipe=stepped, limit=300, runs=tmp_path, language="en")
    codes = {cause["id"]: (cause["status"], cause["evidence"]["code"]) for cause in found.causes}
    assert codes[11] == ("cleared", "training-calm")
    assert codes[21][1] in ("head-below-probe", "head-at-probe", "head-unclear")
    assert len(found.record["study"]["trials"]) >= 2  # the head fitted to its end, too
    assert codes[19] == ("suspected", "augmentation-not-used")  # on kept features


def test_a_training_that_diverges_ends_in_a_verdict_about_the_frozen_features(tmp_path: Path) -> None:
    path = tmp_path / "wild.toml"
    path.write_text(
        'name = "wild"\nkind = "finetune"\nbackbone = "small32_s"\nunfreeze = "all"\nepochs = 2\noptimizer = "sgd"\n'
        "learning_rate = 1e30\n\n[preprocessing]\ninput_size = 4\n",
        encoding="utf-8",
    )
    found = headstart.diagnose("digits", recipe=str(path), limit=400, runs=tmp_path, language="en")
    causes = {cause["id"]: cause for cause in found.causes}
    assert (causes[11]["status"], causes[11]["evidence"]["code"]) == ("suspected", "loss-diverged")
    assert causes[21]["status"] == causes[22]["status"] == "could-not-look"
    assert found.record["recipe"]["name"] == "wild"
    assert found.record["subject"]["name"] == "wild-convex"
    assert found.proved[0] == "input-size"
    assert (
        found.record["accuracy"]["repaired"] >= found.record["accuracy"]["failing"] > 0.3
    )  # of ten classes: not chance
    repaired = read_recipe(found.folder / "repaired.toml")
    assert (repaired.kind, repaired.head, repaired.learning_rate) == (
        "probe",
        "convex",
        Recipe("x", "probe").learning_rate,
    )
    assert "training diverged" in (found.folder / "report.md").read_text(encoding="utf-8")


def test_a_fine_tuning_that_did_damage_is_repaired_by_a_smaller_rate_or_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours keeps its best epoch, the probe at its start among them, so that its damage is made up here."""
    trial = Training.trial

    def damaged(training: Training, recipe: Recipe) -> TrialResult:
        result = trial(training, recipe)
        return replace(result, test_logits=-result.test_logits) if recipe.name == "rough" else result

    monkeypatch.setattr(Training, "trial", damaged)
    rough = Recipe(
        "rough",
        "finetune",
        backbone="small32_s",
        unfreeze="all",
        epochs=1,
        batch_size=32,
        optimizer="adamw",
        learning_rate=1e-3,
        preprocessing=SMALL.preprocessing,
    )
    found = headstart.diagnose("digits", recipe=rough, limit=400, runs=tmp_path, language="en")
    causes = {cause["id"]: cause for cause in found.causes}
    assert (causes[11]["status"], causes[11]["evidence"]["code"]) == ("proved", "below-probe")
    assert 11 in [step["cause"] for step in found.record["waterfall"]]
    assert found.record["accuracy"]["repaired"] > 0.8 > found.record["accuracy"]["failing"]
    repaired = read_recipe(found.folder / "repaired.toml")
    tuned = repaired.kind == "finetune"
    assert repaired.learning_rate == (1e-4 if tuned else Recipe("any", "probe").learning_rate)
    change = next(change for change in found.record["repair"]["changes"] if change["cause"] == 11)
    assert change["code"] == ("lower-rate" if tuned else "freeze")
    assert ('"lr": 1e-5' in found.record["repair"]["code"]) == tuned
    trials = found.record["study"]["trials"]
    assert len(set(trials)) == len(trials)


def test_the_repaired_fine_tuning_is_the_better_one_on_val() -> None:
    """Test has no part in it."""
    tuned = Recipe("mine-repaired", "finetune", backbone="small32_s", epochs=1, preprocessing=Preprocessing(8))
    labels = np.arange(10)

    def result(right: int) -> Any:
        logits = np.eye(10, dtype=np.float32)[np.where(labels < right, labels, (labels + 1) % 10)]
        return SimpleNamespace(val_logits=logits, val_labels=labels)

    for right, probe, chosen in ((8, 7, "finetune"), (7, 7, "finetune"), (6, 7, "probe"), (None, 7, "probe")):
        training: Any = SimpleNamespace(trial=lambda recipe, probe=probe: result(probe))
        ours = None if right is None else result(right)
        recipe, taken = _tuned_or_frozen(training, tuned, ours)
        assert recipe.kind == chosen
        assert accuracy_on_val(taken) == max(right or 0, probe) / 10


def test_another_request_of_a_run_leaves_its_first_diagnosis_alone(tmp_path: Path) -> None:
    recipe = Recipe(name="mine", kind="probe", backbone="small32_s", preprocessing=Preprocessing(8))
    run = headstart.compare("digits", [recipe], seeds=1, limit=300, runs=tmp_path, language="en").folder
    first = headstart.diagnose(run, runs=tmp_path, language="en")
    other = headstart.diagnose(run, runs=tmp_path, language="en", scratch=True)
    assert [one.folder.name for one in (first, other)] == ["digits-diagnosis-mine", "digits-diagnosis-mine-2"]
    assert headstart.diagnose(run, runs=tmp_path, language="en").record["created"] == first.record["created"]


def test_diagnoses_leave_one_another_alone(tmp_path: Path) -> None:
    recipe = Recipe(name="mine", kind="probe", backbone="small32_s", preprocessing=Preprocessing(8))
    first = headstart.diagnose("digits", recipe=recipe, limit=300, runs=tmp_path, language="en")

    def own(scale: float, **given: Any) -> Path:
        found = headstart.diagnose(
            bundled_backbone(),
            "digits",
            preprocess=lambda image: scale * pixels(image),
            limit=300,
            runs=tmp_path,
            language="en",
            **given,
        )
        return found.folder

    assert first.folder.name == "digits-diagnosis"
    assert own(1.0).name == "digits-diagnosis-2"
    assert own(1.0).name == "digits-diagnosis-2"  # the same network, fed the same
    assert own(0.5).name == "digits-diagnosis-3"
    assert read_json(first.folder / "diagnosis.json") == first.record
    with pytest.raises(UsageError, match=r"would replace\. Choose another --name"):
        own(1.0, name="digits-diagnosis")
    assert own(0.5, name="digits-diagnosis-2").name == "digits-diagnosis-2"  # asked for, and its own
    with pytest.raises(UsageError, match="holds another run"):
        headstart.diagnose("digits", recipe=recipe, limit=300, runs=tmp_path, name="digits-diagnosis-2")
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "results.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="holds another run"):
        headstart.diagnose("digits", recipe=recipe, limit=300, runs=tmp_path, name="compared")
    again = headstart.diagnose(
        "digits", recipe=recipe, limit=300, runs=tmp_path, name="digits-diagnosis", language="en"
    )
    assert again.folder == first.folder


def test_only_an_earlier_diagnosis_of_the_same_subject_is_replaced_under_its_name(tmp_path: Path) -> None:
    rows = Kept("rows.csv", Evidence(predictions=np.zeros(3)))
    require_own_folder(tmp_path / "free", rows)
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "request.json").write_text('{"subject": {"kind": "predictions", "name": "rows.csv"}}', encoding="utf-8")
    require_own_folder(folder, rows)
    with pytest.raises(UsageError, match=r"holds the diagnosis of rows\.csv, which a diagnosis of other\.csv"):
        require_own_folder(folder, Kept("other.csv", Evidence()))
    (folder / "request.json").write_text('{"recipes": []}', encoding="utf-8")
    with pytest.raises(UsageError, match="a run of headstart's own recipes"):
        require_own_folder(folder, rows)


def test_other_predictions_are_another_diagnosis() -> None:
    images = load_images("digits", limit=100)
    split, _ = make_split(images)
    asked = [
        own_request(Kept("rows.csv", Evidence(predictions=np.full(3, value))), images, split) for value in (0, 0, 1)
    ]
    assert asked[0] == asked[1] != asked[2]
