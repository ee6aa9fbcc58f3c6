"""Pretraining end to end on the digits: file, card, resume to the same bytes, refusals."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.cli import studies
from headstart.data.sources import load_images
from headstart.errors import DataError, RunError, UsageError, WeightsError
from headstart.files import sha256_of_file
from headstart.models import weights
from headstart.models.backbones import find_backbone
from headstart.models.weights import read_weights_file
from headstart.records import DuplicateReport, ImageSet, Recipe, Split
from headstart.study import pretraining, pretraining_plan
from headstart.study.observer import SilentObserver
from headstart.study.planning import PretrainingPlan
from headstart.study.pretraining import Pretrained, run_pretraining
from headstart.study.pretraining_request import (
    PretrainRequest,
    gather_material,
    teacher_key,
    teacher_network,
    teacher_preprocessing,
    val_images,
)
from headstart.study.run import StudyRequest, run_study
from headstart.training.callbacks import HistoryLogger
from headstart.training.distillation import BothDirections
from headstart.training.engine import DivergedError, Training
from headstart.training.features import are_extracted
from tests.models.factory import TINY, write_other_weights, write_tiny_weights

CPU = torch.device("cpu")


def _request(folder: Path, **changes: Any) -> PretrainRequest:
    request = PretrainRequest(
        data="digits",
        out=folder / "made.safetensors",
        architecture="small32_s",
        input_size=16,
        epochs=2,
        limit=300,
        title="Handwritten digits",
        licence="BSD-3-Clause",
    )
    return replace(request, **changes)


class Killed(Exception):
    """Stands for kill -9: nothing after it runs."""


def _killed(*_: Any) -> None:
    raise Killed


def _killed_in_epoch_2(_: HistoryLogger, training: Training) -> None:
    if training.epoch == 2:
        raise Killed


def _run(request: PretrainRequest) -> Pretrained:
    return run_pretraining(request, CPU, SilentObserver(), "headstart pretrain digits")


def test_it_writes_a_file_and_a_card_and_finds_them_done_the_second_time(tmp_path: Path) -> None:
    made = _run(_request(tmp_path, judges=("digits",)))
    assert not made.was_done
    facts = made.file.metadata
    assert (made.file.architecture, made.file.input_size, made.file.licence) == ("small32_s", 16, "BSD-3-Clause")
    assert facts["pretraining"].startswith("Handwritten digits, 270 images of 10 classes at 16x16, 2 epochs")
    results = json.loads(facts["results"])
    assert results["parameters"] == 461_312
    assert results["train_images"] + results["val_images"] == 300
    assert results["val_images"] == 30
    assert results["val_accuracy"] <= results["val_accuracy_top5"] <= 1
    judged = json.loads(facts["judged"])[0]
    # Its own training images are judged here, so that they must be found in test.
    assert judged["data"] == "digits"
    assert judged["probe_accuracy"] > 0.7
    assert judged["exact_duplicates"] > 0
    assert judged["near_duplicates"] >= judged["exact_duplicates"]
    card = made.card.read_text(encoding="utf-8")
    hashes = facts["weights_sha256"], facts["float32_sha256"]
    for said in ("Handwritten digits", "BSD-3-Clause", "headstart pretrain digits", *hashes):
        assert said in card
    written = sha256_of_file(made.file.path)
    again = _run(_request(tmp_path, judges=("digits",)))
    assert again.was_done
    assert sha256_of_file(made.file.path) == written


def test_the_file_goes_wherever_a_backbone_goes(tmp_path: Path) -> None:
    made = _run(_request(tmp_path))
    outcome = run_study(
        StudyRequest(backbones=(str(made.file.path),), seeds=1, epochs=1, limit=400, runs=tmp_path / "runs"),
        CPU,
        SilentObserver(),
    )
    recipes = {outcome.planned.recipe.name: outcome.planned.recipe for outcome in outcome.recipes}
    assert list(recipes) == ["fast", "cnn", "made-probe", "made-finetune", "random-features", "majority"]
    assert recipes["made-finetune"].unfreeze == "all"
    assert recipes["made-probe"].preprocessing is not None
    assert recipes["made-probe"].preprocessing.input_size == 16
    # A path must not decide what a trial is.
    assert recipes["made-probe"].backbone == "small32_s"


def test_a_killed_pretraining_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """A real process, a real SIGKILL between two epochs; mixing and averaging go on as if nothing had happened."""
    write_tiny_weights(tmp_path / "weights")
    arguments = ["pretrain", "digits", "--architecture", "small32_s", "--input-size", "16", "--limit", "300"]
    arguments += ["--epochs", "6", "--mixup", "0.2", "--teacher", TINY, "--weights-dir", str(tmp_path / "weights")]
    environment = {**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "LANG": "C"}

    def start(folder: str) -> subprocess.Popen[bytes]:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "headstart", *arguments, "--out", "made.safetensors"]
        return subprocess.Popen(
            command, cwd=tmp_path / folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    whole = start("whole")
    _, errors = whole.communicate(timeout=240)
    assert whole.returncode == 0, errors.decode()
    killed = start("killed")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "made.pretraining" / "checkpoint.safetensors").exists():
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "made.safetensors").exists()
    resumed = start("killed")
    _, errors = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, errors.decode()
    first, second = (tmp_path / folder / "made.safetensors" for folder in ("whole", "killed"))
    assert sha256_of_file(first) == sha256_of_file(second)
    assert "taught by" in find_backbone(str(first)).pretraining


def test_a_finished_file_does_not_pass_over_a_data_set_that_it_was_not_judged_on(tmp_path: Path) -> None:
    request = _request(tmp_path, judges=(_other_size(tmp_path),))
    assert not _run(request).was_done
    written = sha256_of_file(tmp_path / "made.safetensors")
    with pytest.raises(RunError, match="not judged on digits"):
        _run(replace(request, judges=(*request.judges, "digits")))
    assert sha256_of_file(tmp_path / "made.safetensors") == written
    assert _run(request).was_done
    assert _run(replace(request, judges=())).was_done


def test_where_no_size_is_in_both_sets_there_is_a_dash_and_no_count(tmp_path: Path) -> None:
    made = _run(_request(tmp_path, judges=(_other_size(tmp_path),)))
    judged = json.loads(made.file.metadata["judged"])[0]
    assert judged["exact_duplicates"] is None
    assert judged["near_duplicates"] > 0  # the same digits, at twice the size
    row = next(line for line in made.card.read_text(encoding="utf-8").splitlines() if line.startswith("| larger |"))
    assert row.split(" | ")[5] == "–"


def _other_size(folder: Path) -> str:
    """The digits at twice their size."""
    digits = load_images("digits")
    larger = np.repeat(np.repeat(digits.images, 2, axis=1), 2, axis=2)
    np.savez(folder / "larger.npz", X=larger, y=digits.labels)
    return str(folder / "larger.npz")


def test_it_says_how_long_it_will_take_before_it_trains(tmp_path: Path) -> None:
    notes = _Notes()
    run_pretraining(_request(tmp_path), CPU, notes, "headstart pretrain digits")
    (plan,) = notes.plans
    assert notes.trained
    assert (plan.epochs, plan.input_size, plan.canvas) == (2, 16, 8)
    assert 0 < plan.predicted_seconds < 120
    assert not plan.is_over_budget


def test_judging_on_other_data_is_part_of_what_is_said_and_of_a_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def known(module: Any, images: Any, preprocessing: Any, *_: Any) -> float:
        assert not module.training
        sizes.append((len(images.labels), preprocessing.input_size))
        return 1000.0

    monkeypatch.setattr("headstart.study.pretraining_plan.extraction_seconds", known)
    notes = _Notes()
    request = _request(tmp_path, judges=(_other_size(tmp_path),))
    run_pretraining(request, CPU, notes, "headstart pretrain digits")
    assert sizes == [(1797, 16)]
    assert 1000 < notes.plans[0].predicted_seconds < 1120
    budgeted = replace(request, out=tmp_path / "budgeted.safetensors", epochs=None, budget_seconds=999.0)
    notes = _Notes()
    run_pretraining(budgeted, CPU, notes, "headstart pretrain digits")
    assert notes.plans[0].epochs == 1
    assert notes.plans[0].is_over_budget


def test_the_defaults_are_the_same_in_python_on_the_command_line_and_in_the_request() -> None:
    python, command = (inspect.signature(function).parameters for function in (headstart.pretrain, studies.pretrain))
    fields = PretrainRequest.__dataclass_fields__
    same = {"out", "teacher", "weights_dir", "input_size", "epochs", "batch_size", "learning_rate", "mixup"}
    same |= {"architecture", "augmentation", "title", "licence", "limit", "seed"}
    for name in same:
        assert python[name].default == command[name].default == fields[name].default, name
    assert python["budget"].default is command["budget"].default is fields["budget_seconds"].default is None
    assert python["device"].default == command["device"].default
    assert python["judges"].default == fields["judges"].default == ()
    # Nothing that decides the weights is left out of the comparison.
    assert same | {"data", "budget_seconds", "judges"} == fields.keys()


@pytest.mark.parametrize(
    ("pool", "classes", "wanted"),
    [(100_000, 200, 2000), (20_000, 10, 1000), (600, 2, 60), (40, 10, 10)],
    ids=["Tiny ImageNet, as the bundled files had it", "a middling set", "a tiny set", "one of each class"],
)
def test_val_is_about_a_thousand_images_from_2_to_10_percent(pool: int, classes: int, wanted: int) -> None:
    assert val_images(pool, classes) == wanted


def test_what_was_left_out_and_taken_out_is_said_and_on_the_card(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            for copy in "xyz":  # every image three times, so that val has the pixels of some of train
                Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}{copy}.png")
    (tmp_path / "data" / "a" / "broken.png").write_bytes(b"no image")
    notes = _Notes()
    request = _request(tmp_path, data=str(tmp_path / "data"), limit=None, epochs=1)
    made = run_pretraining(request, CPU, notes, "headstart pretrain data")
    ((images, split, duplicates),) = notes.data
    assert [file.path for file in images.left_out] == ["a/broken.png"]
    assert len(split.val) == 12
    removed = len(split.removed_duplicates)
    assert removed == duplicates.across_splits > 0
    assert len(split.train) + len(split.val) + removed == 120
    assert not np.isin(images.image_hashes[split.train], images.image_hashes[split.val]).any()
    card = made.card.read_text(encoding="utf-8")
    assert (
        f"could not be used: 1; training or validation images with the exact pixels of a validation or test image: {removed} |"
        in card
    )
    assert "1 epoch," in card
    assert "top 5" not in card  # of two classes the right one is always among five


def test_the_teacher_and_its_part_in_the_training_are_in_the_file_and_on_the_card(tmp_path: Path) -> None:
    weights = write_tiny_weights(tmp_path / "weights", note="rounded | once")
    made = _run(_request(tmp_path, teacher=TINY, weights_dir=tmp_path / "weights"))
    teacher = json.loads(made.file.metadata["teacher"])
    sha256 = find_backbone(str(weights)).weights_sha256
    assert (teacher["name"], teacher["weights_sha256"], teacher["weight"]) == (TINY, sha256, 20.0)
    assert teacher["preprocessing"]["input_size"] == 64  # its native size: digits of 8 px are enlarged as far as that
    card = made.card.read_text(encoding="utf-8")
    assert f"| SHA-256 of the teacher's weights | `{sha256}` |" in card
    assert teacher["note"] == "rounded | once"
    assert "| the teacher's file says | rounded \\| once |" in card
    assert (
        f"| teacher | {TINY}, each image at 64 px (bicubic), weight of its part of the loss 20; its features took"
        in card
    )
    assert not teacher["both_directions"]  # a mirrored digit is no digit, and the student sees none


def test_a_teacher_is_asked_about_both_directions_where_its_student_sees_both(tmp_path: Path) -> None:
    write_tiny_weights(tmp_path / "weights")
    made = _run(_request(tmp_path, teacher=TINY, weights_dir=tmp_path / "weights", augmentation="crop-flip"))
    assert json.loads(made.file.metadata["teacher"])["both_directions"]
    # Its features were made by that teacher and no other.
    recipe = Recipe(name="any", kind="scratch", augmentation="crop-flip")
    teacher = find_backbone(TINY, tmp_path / "weights")
    network = teacher_network(teacher, recipe)
    assert isinstance(network, BothDirections)
    assert not network.training
    images = load_images("digits", limit=300)
    seen = teacher_preprocessing(teacher, images)
    assert are_extracted(images, teacher_key(teacher, recipe), seen, device=torch.device("cpu"))
    assert teacher_key(teacher, recipe) != teacher_key(teacher, recipe.with_changes(augmentation="crop"))
    assert "(bicubic), in both directions, weight of its part" in made.card.read_text(encoding="utf-8")


@pytest.mark.parametrize(("side", "seen"), [(8, 96), (40, 128), (50, 160), (64, 192), (100, 224)])
def test_a_teacher_sees_images_enlarged_three_times_up_to_its_own_size(tmp_path: Path, side: int, seen: int) -> None:
    teacher = find_backbone(str(write_other_weights(tmp_path, "large", seed=0)))
    images = replace(load_images("digits", limit=30), images=np.zeros((30, side, side, 3), np.uint8))
    assert teacher_preprocessing(replace(teacher, native_size=224), images).input_size == seen


def test_the_hash_in_the_metadata_is_that_of_the_tensors_as_written(tmp_path: Path) -> None:
    metadata = _run(_request(tmp_path)).file.metadata
    assert metadata["weights_sha256"] == find_backbone(str(tmp_path / "made.safetensors")).weights_sha256
    assert metadata["float32_sha256"] != metadata["weights_sha256"]
    assert "teacher" not in metadata


def test_the_training_images_themselves_are_no_judge(tmp_path: Path) -> None:
    notes = _Notes()
    with pytest.raises(UsageError, match="--judge digits"):
        run_pretraining(_request(tmp_path, limit=None, judges=("digits",)), CPU, notes, "headstart pretrain digits")
    assert not notes.trained
    assert not list(tmp_path.glob("*.pretraining"))


def test_a_judge_that_cannot_be_split_is_found_out_before_training(tmp_path: Path) -> None:
    digits = load_images("digits")
    few = [*np.flatnonzero(digits.labels != 3)[:200], np.flatnonzero(digits.labels == 3)[0]]
    np.savez(tmp_path / "few.npz", X=digits.images[few], y=digits.labels[few])
    notes = _Notes()
    with pytest.raises(DataError, match="Too few images"):
        run_pretraining(_request(tmp_path, judges=(str(tmp_path / "few.npz"),)), CPU, notes, "headstart pretrain")
    assert not notes.trained


class _Notes(SilentObserver):
    """Remembers what it is told; stops a training, as Ctrl-C does, once `stop_when` is there."""

    def __init__(self, stop_when: Path | None = None) -> None:
        self.data: list[tuple[ImageSet, Split, DuplicateReport]] = []
        self.plans: list[PretrainingPlan] = []
        self.trained = False
        self._stop_when = stop_when

    def data_ready(self, images: ImageSet, split: Split, duplicates: DuplicateReport) -> None:
        self.data.append((images, split, duplicates))

    def pretraining_planned(self, plan: PretrainingPlan) -> None:
        assert not self.trained
        self.plans.append(plan)

    def stage(self, name: str, total: int) -> None:
        self.trained = self.trained or name == "training"

    def advance(self, done: int, loss: float | None = None, accuracy: float | None = None, rate: float = 0.0) -> None:
        if self._stop_when is not None and self._stop_when.exists():
            raise KeyboardInterrupt


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": None, "budget_seconds": 60.0}], ids=["seed", "budget"])
def test_an_unfinished_training_of_another_request_is_kept(tmp_path: Path, change: dict[str, Any]) -> None:
    request = _request(tmp_path, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        run_pretraining(request, CPU, _Notes(stop_when=request.folder / "checkpoint.safetensors"), "headstart pretrain")
    kept = {path.name: sha256_of_file(path) for path in request.folder.iterdir()}
    with pytest.raises(RunError, match="unfinished training of another request, 1 epoch long"):
        _run(replace(request, **change))
    assert {path.name: sha256_of_file(path) for path in request.folder.iterdir()} == kept
    assert not _run(request).was_done
    assert json.loads(read_weights_file(request.path).metadata["recipe"])["epochs"] == 4


@pytest.mark.parametrize("words", [{"title": "Handwritten"}, {"licence": "MIT"}, {"title": "Digits", "licence": "MIT"}])
def test_a_finished_file_does_not_pass_over_other_words(tmp_path: Path, words: dict[str, Any]) -> None:
    request = _request(tmp_path, epochs=1)
    _run(request)
    with pytest.raises(RunError, match="--" + " and --".join(words)):
        _run(replace(request, **words))
    assert _run(replace(request, title="", licence="")).was_done
    assert _run(request).was_done


def test_a_file_made_otherwise_is_not_overwritten(tmp_path: Path) -> None:
    _run(_request(tmp_path))
    written = sha256_of_file(tmp_path / "made.safetensors")
    with pytest.raises(RunError, match="--out"):
        _run(_request(tmp_path, seed=1))
    assert sha256_of_file(tmp_path / "made.safetensors") == written


def test_a_teacher_and_a_seed_change_the_weights(tmp_path: Path) -> None:
    write_tiny_weights(tmp_path / "weights")
    requests = {
        "plain": _request(tmp_path, out=tmp_path / "plain.safetensors"),
        "taught": _request(
            tmp_path, out=tmp_path / "taught.safetensors", teacher=TINY, weights_dir=tmp_path / "weights"
        ),
        "other seed": _request(tmp_path, out=tmp_path / "seed.safetensors", seed=1),
    }
    hashes = {name: _run(request).file.metadata["weights_sha256"] for name, request in requests.items()}
    assert len(set(hashes.values())) == 3


def test_a_budget_becomes_epochs_and_a_second_run_keeps_them(tmp_path: Path) -> None:
    request = _request(tmp_path, epochs=None, budget_seconds=2.0)
    made = _run(request).file
    epochs = json.loads(made.metadata["recipe"])["epochs"]
    assert epochs >= 1
    assert _run(request).was_done
    assert f"with `--epochs {epochs}` in place of its budget" in request.card.read_text(encoding="utf-8")
    # Timed anew, the budget would give other epochs: the file itself says how many it gave.
    shutil.rmtree(request.folder)
    assert _run(request).was_done
    for other in (replace(request, budget_seconds=60.0), replace(request, budget_seconds=None)):
        with pytest.raises(RunError, match="not made by this request"):
            _run(other)
    assert sha256_of_file(request.path) == sha256_of_file(made.path)


def test_a_budget_that_not_even_one_epoch_fits_says_so(tmp_path: Path) -> None:
    notes = _Notes()
    run_pretraining(_request(tmp_path, epochs=None, budget_seconds=0.001), CPU, notes, "headstart pretrain digits")
    (plan,) = notes.plans
    assert plan.epochs == 1
    assert plan.is_over_budget


def test_the_sources_own_test_part_is_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, name in ((part, name) for part in ("train", "test") for name in "abc"):
        (tmp_path / "data" / part / name).mkdir(parents=True)
        for number in range(15):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{number}.png")
    made = _run(_request(tmp_path, data=str(tmp_path / "data"), limit=None, epochs=1))
    results = json.loads(made.file.metadata["results"])
    assert results["train_images"] + results["val_images"] == 45
    assert results["removed_duplicates"] == 0


def test_what_is_in_the_sources_own_test_part_is_not_trained_on(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    images[40:45] = images[:5]  # five test images are in train, too
    part = np.repeat(["train", "test"], [40, 20])
    np.savez(tmp_path / "data.npz", X=images, y=np.arange(60) % 2, part=part)
    made = _run(_request(tmp_path, data=str(tmp_path / "data.npz"), limit=None, epochs=1))
    results = json.loads(made.file.metadata["results"])
    assert results["removed_duplicates"] == 5
    assert results["train_images"] + results["val_images"] == 35


def test_the_card_replaces_no_other_text(tmp_path: Path) -> None:
    (tmp_path / "made.md").write_text("# My project\n\nIts own readme.\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"made\.md, which is no card"):
        _run(_request(tmp_path))
    assert not list(tmp_path.glob("*.pretraining"))
    (tmp_path / "made.md").unlink()
    _run(_request(tmp_path))
    (tmp_path / "made.safetensors").unlink()  # an interruption may have left a card alone
    assert not _run(_request(tmp_path)).was_done


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match=r"made\.pretraining cannot be made"):
        _run(_request(tmp_path, out=tmp_path / "file" / "made.safetensors"))


def test_a_users_words_stay_in_their_cell(tmp_path: Path) -> None:
    made = _run(_request(tmp_path, title="Digits | all\nof them", epochs=1))
    assert "| pretrained on | Digits \\| all of them, " in made.card.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architecture": "resnet18"}, "small32_m"),
        ({"input_size": 65}, "--input-size"),
        ({"epochs": 0}, "--epochs"),
        ({"epochs": 2, "budget_seconds": 60.0}, "--budget"),
        ({"batch_size": 1}, "--batch-size"),
        ({"learning_rate": 0.0}, "--learning-rate"),
        ({"mixup": -1.0}, "--mixup"),
        ({"out": Path("made.pt")}, "--out"),
        ({"augmentation": "fog"}, "--augmentation"),
        ({"teacher": "nosuchnet"}, "nosuchnet"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        _run(_request(tmp_path, **changes))
    assert not list(tmp_path.glob("*.pretraining"))


def test_a_teacher_without_weights_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUNDLED_WEIGHTS", tmp_path)
    with pytest.raises(WeightsError, match="small32_l"):
        _run(_request(tmp_path, teacher="small32_l"))


def test_the_card_names_the_machines_that_trained_it_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"processor": "a CPU", "threads": 2, "torch": "2", "headstart": "0"}

    def started_on(machine: str, *, killed_in: str = "") -> list[str]:
        """The card, unless the process was killed in `training` or after it."""
        # What a card does not say of a machine makes no other machine of it.
        monkeypatch.setattr(
            pretraining_plan, "describe_environment", lambda _: here | {"gpu": machine, "run": str(killed_in)}
        )
        with monkeypatch.context() as killed:
            if killed_in == "training":
                killed.setattr(HistoryLogger, "on_epoch_begin", _killed_in_epoch_2)
            elif killed_in:
                killed.setattr(pretraining, "weights_metadata", _killed)
            if not killed_in:
                return _run(_request(tmp_path)).card.read_text(encoding="utf-8").splitlines()
            with pytest.raises(Killed):
                _run(_request(tmp_path))
        return []

    def machines(card: list[str]) -> str:
        return next(line for line in card if line.startswith("| trained on |"))

    started_on("one", killed_in="training")
    started_on("one", killed_in="training")
    started_on("two", killed_in="judging")
    card = started_on("three")  # where nothing was left to train
    assert machines(card) == "| trained on | one; torch 2, headstart 0, then two; torch 2, headstart 0 |"
    assert any("no one machine gives the same bytes" in line for line in card)
    (tmp_path / "made.safetensors").unlink()
    anew = started_on("four")
    assert machines(anew) == "| trained on | four; torch 2, headstart 0 |"
    assert any("On the same machine" in line for line in anew)


def test_an_unfinished_training_of_another_version_is_not_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HistoryLogger, "on_epoch_begin", _killed_in_epoch_2)
    with pytest.raises(Killed):
        _run(_request(tmp_path))
    monkeypatch.setattr("headstart.training.checkpoint._FORMAT", "another")
    with pytest.raises(RunError, match="another request, 1 epoch long"):
        _run(_request(tmp_path, learning_rate=0.02))
    with pytest.raises(RunError, match="holds 1 epoch of this training, made by another version"):
        _run(_request(tmp_path))
    assert (_request(tmp_path).folder / "checkpoint.safetensors").exists()


def test_an_unfinished_training_whose_state_is_damaged_is_not_begun_again_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HistoryLogger, "on_epoch_begin", _killed_in_epoch_2)
    with pytest.raises(Killed):
        _run(_request(tmp_path))
    path = _request(tmp_path).folder / "checkpoint.safetensors"
    path.write_bytes(b"torn")
    with pytest.raises(RunError, match="damaged or cannot be read"):
        _run(_request(tmp_path))
    assert path.read_bytes() == b"torn"


def test_a_disk_that_fails_is_an_error_with_the_way_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.study.pretraining.train_network", full)
    with pytest.raises(RunError, match=r"No space left.*goes on after the last epoch"):
        _run(_request(tmp_path))


def test_a_folder_is_no_file_to_write_to(tmp_path: Path) -> None:
    request = _request(tmp_path)
    request.path.mkdir()
    with pytest.raises(RunError, match=r"is a folder.*backbone\.safetensors"):
        _run(request)


def test_few_images_are_not_gone_through_thousands_of_times(tmp_path: Path) -> None:
    material = gather_material(_request(tmp_path, epochs=None, budget_seconds=1e6), CPU, SilentObserver())
    material.request.folder.mkdir()
    assert pretraining_plan.plan_pretraining(material).epochs == pretraining_plan.MOST_EPOCHS


def test_a_training_that_diverged_says_what_stands_in_the_way_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: Any, **__: Any) -> None:
        raise DivergedError("The loss became nan. Lower the learning rate (it is 0.03).")

    monkeypatch.setattr("headstart.study.pretraining.train_network", diverges)
    with pytest.raises(
        DivergedError, match=r"Lower the learning rate.*made\.pretraining holds the training that diverged"
    ):
        _run(_request(tmp_path))
