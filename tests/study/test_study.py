"""Studies end to end on the digits, with a tiny backbone: resume, identity, failures, what runs and what does not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from headstart.bundle import load_bundle
from headstart.data.sources import load_images
from headstart.errors import RunError, UsageError
from headstart.files import read_json, write_json
from headstart.models import weights
from headstart.models.backbones import build_backbone, find_backbone
from headstart.models.cost import Speed, speed
from headstart.models.weights import BUNDLED_WEIGHTS
from headstart.records import NotRun, Recipe, Split, TrialResult, trial_identity
from headstart.study.checks import knows_the_test_images
from headstart.study.ledger import Ledger, list_runs, open_run
from headstart.study.observer import SilentObserver
from headstart.study.planning import Plan
from headstart.study.presets import default_recipes
from headstart.study.run import StudyOutcome, StudyRequest, run_study
from headstart.training.callbacks import Callback
from headstart.training.engine import Training
from headstart.training.features import extract_features
from tests.models.factory import TINY, metadata, write_other_weights, write_tiny_weights

CPU = torch.device("cpu")

_IDENTITY_OF_BEFORE = "dcb5ff57da1cbd88d3f3f8327b1147f7979e970d473dc81f232981bf3b37ee26"
"""Of a trial of version 5, as it is without `max_shift` and `micro_batch`."""


class Notes(SilentObserver):
    """Remembers which trials ran and which were read back."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.read: list[str] = []
        self.failed: list[NotRun] = []
        self.plan: Plan | None = None

    def plan_ready(self, plan: Plan, ledger: Ledger, done: int) -> None:
        self.plan = plan

    def trial_ends(self, result: TrialResult, was_done: bool) -> None:
        (self.read if was_done else self.ran).append(result.recipe.name)

    def trial_failed(self, missing: NotRun) -> None:
        self.failed.append(missing)


def _request(folder: Path, **changes: Any) -> StudyRequest:
    write_tiny_weights(folder / "weights")
    request = StudyRequest(
        data="digits",
        backbones=(TINY,),
        weights_dir=folder / "weights",
        input_size=32,
        seeds=1,
        epochs=1,
        limit=300,
        runs=folder / "runs",
    )
    return replace(request, **changes)


def _run(request: StudyRequest, **settings: Any) -> tuple[StudyOutcome, Notes]:
    notes = Notes()
    return run_study(request, CPU, notes, **settings), notes


def _logits(outcome: StudyOutcome) -> dict[str, bytes]:
    return {recipe.planned.recipe.name: recipe.results[0].test_logits.tobytes() for recipe in outcome.recipes}


def test_all_recipes_run_once_and_are_read_back_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, notes = _run(_request(tmp_path))
    names = ["fast", "cnn", f"{TINY}-probe", f"{TINY}-finetune", "random-features", "majority"]
    assert notes.ran == names
    with monkeypatch.context() as planned:  # what is done is found without reading the pixels
        planned.setattr("headstart.study.resolving.channel_contract", None)
        again, second = _run(_request(tmp_path))
    assert second.read == names
    assert second.ran == []
    assert _logits(first) == _logits(again)
    assert [run.trials_done for run in list_runs(tmp_path / "runs")] == [6]
    probe, finetune = first.recipes[2].results[0], first.recipes[3].results[0]
    assert 0 < probe.cost.parameters_trained < finetune.cost.parameters_trained <= finetune.cost.parameters
    assert finetune.history[0].epoch == 0


def test_the_bundle_predicts_what_the_trial_predicted(tmp_path: Path) -> None:
    outcome, _ = _run(_request(tmp_path))
    for recipe in outcome.recipes:
        result = recipe.results[0]
        bundle = load_bundle(outcome.ledger.trial_folder(result.identity))
        probabilities = bundle.probabilities(outcome.images.images[result.test_indices])
        shifted = np.exp(result.test_logits - result.test_logits.max(1, keepdims=True))
        expected = shifted / shifted.sum(1, keepdims=True)
        # The finetuned network was tested through activations kept in float16.
        assert np.abs(probabilities - expected).max() < 0.02, recipe.planned.recipe.name
        assert bundle.class_names == outcome.images.class_names


def test_a_run_killed_in_the_middle_of_a_trial_ends_like_one_that_was_not(tmp_path: Path) -> None:
    """A real process, a real SIGKILL, while the CNN is between two epochs."""
    arguments = ["compare", "digits", "--recipe", "cnn", "--recipe", "majority", "--seeds", "1", "--epochs", "12"]
    environment = {**os.environ, "HEADSTART_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "LANG": "C"}

    def start(runs: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headstart", *arguments, "--runs", str(runs)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    whole = start(tmp_path / "whole")
    _, errors = whole.communicate(timeout=120)
    assert whole.returncode == 0, errors.decode()
    killed = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("*/trials/*/checkpoint.safetensors")):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not list((tmp_path / "killed").glob("*/results.json"))
    resumed = start(tmp_path / "killed")
    _, errors = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, errors.decode()
    assert _comparable(tmp_path / "whole") == _comparable(tmp_path / "killed")


def _comparable(runs: Path) -> Any:
    """`results.json` without what may differ: times, dates, sizes in memory and where the run is."""
    import json

    loaded = json.loads((runs / "digits" / "results.json").read_text(encoding="utf-8"))
    for key in ("created", "command"):
        del loaded[key]
    for key in ("predicted_seconds", "actual_seconds"):
        del loaded["study"][key]
    for entry in loaded["recipes"]:
        entry["cost"] = {key: entry["cost"][key] for key in ("parameters", "parameters_trained", "macs")}
        del entry["planned"]["seconds"], entry["planned"]["actual_seconds"]
        for curve in entry["history"]:
            for epoch in curve["epochs"]:
                del epoch["seconds"]
    loaded["verdict"].pop("cost_ratio")
    loaded["verdict"].pop("statement")
    return loaded


def test_an_architecture_that_cannot_be_cut_has_its_last_blocks_fine_tuned(tmp_path: Path) -> None:
    network = timm.create_model("test_vit", num_classes=0)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    (tmp_path / "weights").mkdir()
    save_file(
        state,
        tmp_path / "weights" / "test_vit.safetensors",
        metadata=metadata(architecture="test_vit", input_size="160"),
    )
    recipe = Recipe(name="vit", kind="finetune", backbone="test_vit", epochs=1, batch_size=32, learning_rate=1e-3)
    outcome, _ = _run(_request(tmp_path, recipes=(recipe,), backbones=(), input_size=160, epochs=None, limit=60))
    cost = outcome.recipes[0].results[0].cost
    assert 0 < cost.parameters_trained < cost.parameters


def test_what_was_finished_before_a_setting_came_goes_on_being_found(tmp_path: Path) -> None:
    """`max_shift` and `micro_batch` are younger than version 2 of trials: at its default no identity has them."""
    recipe = Recipe(name="p", kind="scratch", epochs=1)
    none = np.zeros(0, np.int64)
    split = Split(none, none, none, 0, "drawn", none)
    assert trial_identity(recipe, "0" * 64, split, 0) == _IDENTITY_OF_BEFORE
    for changed in (recipe.with_changes(max_shift=0.25), recipe.with_changes(micro_batch=8)):
        assert trial_identity(changed, "0" * 64, split, 0) != _IDENTITY_OF_BEFORE
    first, _ = _run(_request(tmp_path, recipes=(recipe,)))
    request, plan = (read_json(first.ledger.folder / f"{name}.json") for name in ("request", "plan"))
    for younger in ("max_shift", "micro_batch"):
        assert younger not in request["recipes"][0]
        del plan["recipes"][0]["recipe"][younger]
    write_json(first.ledger.folder / "plan.json", plan)
    again, notes = _run(_request(tmp_path, recipes=(recipe,)))
    assert (notes.ran, notes.read) == ([], ["p"])
    assert again.ledger.folder == first.ledger.folder


def test_identity_sees_what_decides_a_result_and_nothing_else(tmp_path: Path) -> None:
    outcome, _ = _run(_request(tmp_path, recipes=("cnn",)))
    recipe, split, data = outcome.recipes[0].planned.recipe, outcome.split, outcome.images.fingerprint
    identity = trial_identity(recipe, data, split, 0)
    assert identity == outcome.recipes[0].results[0].identity
    assert trial_identity(recipe.with_changes(name="another name"), data, split, 0) == identity
    different = [
        trial_identity(recipe.with_changes(learning_rate=0.123), data, split, 0),
        trial_identity(recipe, "0" * 64, split, 0),
        trial_identity(recipe, data, replace(split, val=split.val[1:]), 0),
        trial_identity(recipe, data, split, 1),
    ]
    assert len({identity, *different}) == 5
    probe = Recipe(name="p", kind="probe", backbone=TINY)
    assert trial_identity(probe, data, split, 0) == trial_identity(probe, data, split, 1)


def test_without_weights_the_transfer_recipes_are_set_aside_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.models.backbones._create_from_hub", _no_network)
    request = replace(_request(tmp_path), weights_dir=None)
    outcome, notes = _run(request)
    assert notes.ran == ["fast", "cnn", "random-features", "majority"]
    assert [(missing.name, missing.reason) for missing in outcome.not_run] == [
        (f"{TINY}-probe", "no-weights"),
        (f"{TINY}-finetune", "no-weights"),
    ]
    assert f"put {TINY}.safetensors" in outcome.not_run[0].detail


def test_of_a_family_that_no_hub_has_it_is_said_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUNDLED_WEIGHTS", tmp_path)
    request = _request(tmp_path, backbones=("small32_l",), recipes=("small32_l-probe", "random-features", "majority"))
    outcome, notes = _run(request)
    assert notes.ran == ["random-features", "majority"]
    assert outcome.not_run == (NotRun("small32_l-probe", "not-pretrained", "small32_l"),)


def test_what_an_engine_refuses_is_the_failure_of_its_recipe_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("headstart.study.kinds.fit_probe", refused)
    outcome, notes = _run(_request(tmp_path, recipes=(f"{TINY}-probe", "majority")))
    assert notes.ran == ["majority"]
    assert [(missing.name, missing.reason) for missing in outcome.not_run] == [(f"{TINY}-probe", "failed")]
    assert "can't allocate memory" in outcome.not_run[0].detail
    assert "Traceback" in caplog.text


def test_a_backbone_is_not_judged_on_the_images_that_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = load_images("digits", limit=_request(tmp_path).limit).fingerprint
    file = write_tiny_weights(tmp_path / "made", data_fingerprint=known)
    request = _request(tmp_path, backbones=(str(file),), recipes=())
    with pytest.raises(UsageError, match="pretrained on these very images"):
        _run(request)
    assert not (tmp_path / "runs").exists()
    # Where nobody asked for it by name, the others go on without it.
    monkeypatch.setattr("headstart.study.run.default_backbones", lambda _: (str(file),))
    outcome, notes = _run(_request(tmp_path, backbones=(), recipes=()))
    assert notes.ran == ["fast", "cnn", "random-features", "majority"]
    assert {missing.reason for missing in outcome.not_run} == {"pretrained-on-these"}
    with_test = replace(load_images("digits"), official_part=np.full(1797, 2, np.int8))
    assert not knows_the_test_images(replace(find_backbone(str(file)), pretrained_on=with_test.fingerprint), with_test)


def test_two_files_of_one_architecture_are_kept_apart(tmp_path: Path) -> None:
    first, second = (write_other_weights(tmp_path, name, seed) for name, seed in (("a", 1), ("b", 2)))
    request = _request(tmp_path, backbones=(str(first), str(second)), recipes=("a-probe", "b-probe"))
    outcome, _ = _run(request)
    hashes = [find_backbone(str(path)).weights_sha256 for path in (first, second)]
    assert hashes[0] != hashes[1]
    record = read_json(outcome.ledger.folder / "request.json")
    assert record["weights"] == {"a-probe": hashes[0], "b-probe": hashes[1]}
    assert [recipe.planned.recipe.weights_sha256 for recipe in outcome.recipes] == hashes
    assert len(set(_logits(outcome).values())) == 2
    # Either file trained anew, at the path where it was, is another question.
    for number, (name, seed) in enumerate((("a", 3), ("b", 4)), start=2):
        write_other_weights(tmp_path, name, seed)
        retrained, notes = _run(request)
        assert retrained.ledger.folder.name == f"digits-{number}"
        assert notes.read == []
    assert _run(request)[1].ran == []


def test_a_file_is_compared_with_the_backbone_whose_name_it_has(tmp_path: Path) -> None:
    path = write_other_weights(tmp_path, TINY, seed=1)
    request = _request(tmp_path, backbones=(TINY, str(path)), recipes=(f"{TINY}-probe", f"{TINY}-file-probe"))
    outcome, _ = _run(request)
    hashes = [find_backbone(str(file)).weights_sha256 for file in (tmp_path / "weights" / path.name, path)]
    assert hashes[0] != hashes[1]
    assert [recipe.planned.recipe.weights_sha256 for recipe in outcome.recipes] == hashes
    # The default contest and the classroom's name them in the same way.
    defaults = [recipe.name for recipe in default_recipes(outcome.images, list(request.backbones))]
    assert {f"{TINY}-finetune", f"{TINY}-file-finetune", f"random-features-{TINY}-file"} <= set(defaults)
    _, notes = _run(replace(request, recipes=(), preset="classroom"))
    assert {f"classroom-{TINY}", f"classroom-{TINY}-file"} <= set(notes.ran)
    with pytest.raises(UsageError, match="Name each recipe and each backbone once"):
        _run(replace(request, recipes=(f"{TINY}-probe", f"{TINY}-probe")))


def test_a_small_backbone_named_by_its_file_is_fine_tuned_as_one(tmp_path: Path) -> None:
    request = _request(tmp_path, backbones=("mine",), recipes=("mine-finetune",), input_size=None, limit=100)
    shutil.copy(BUNDLED_WEIGHTS / "small32_s.safetensors", tmp_path / "weights" / "mine.safetensors")
    outcome, _ = _run(request)
    recipe = outcome.recipes[0].planned.recipe
    assert (recipe.name, recipe.backbone) == ("mine-finetune", "small32_s")
    assert (recipe.unfreeze, recipe.optimizer, recipe.input_size) == ("all", "muon", 32)
    assert outcome.recipes[0].results[0].cost.parameters_trained == outcome.recipes[0].results[0].cost.parameters


def test_the_seconds_of_features_are_those_of_train_and_val(tmp_path: Path) -> None:
    outcome, _ = _run(_request(tmp_path, recipes=(f"{TINY}-probe",)))
    result, images, split = outcome.recipes[0].results[0], outcome.images, outcome.split
    backbone = find_backbone(TINY, tmp_path / "weights")
    assert result.recipe.preprocessing is not None
    whole = extract_features(
        images,
        build_backbone(backbone),
        f"{backbone.weights_sha256}",
        result.recipe.preprocessing,
        device=CPU,
        reporter=SilentObserver(),
    ).seconds  # from the cache: the seconds that it took
    share = (len(split.train) + len(split.val)) / len(images.images)
    assert 0.5 < share < 1
    assert result.cost.features_seconds == pytest.approx(share * whole, rel=1e-6)


def test_a_plan_from_before_it_kept_what_was_asked_for_is_read(tmp_path: Path) -> None:
    first, notes = _run(_request(tmp_path, recipes=("cnn",)))
    path = first.ledger.folder / "plan.json"
    plan = read_json(path)
    for entry in plan["recipes"]:
        del entry["asked_epochs"], entry["asked_width"]
    write_json(path, plan)
    _, again = _run(_request(tmp_path, recipes=("cnn",)))
    assert again.read == ["cnn"]
    assert again.plan == notes.plan


def test_small_images_have_a_backbone_without_network_or_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.models.backbones._create_from_hub", _no_network)
    outcome, notes = _run(_request(tmp_path, backbones=(), weights_dir=None, input_size=None))
    names = ["fast", "cnn", "small32_m-probe", "small32_m-finetune", "random-features-small32_m", "majority"]
    assert notes.ran == names
    # The ImageNet backbone would have taken part if it could be had: one line, not one for each of its recipes.
    assert [(missing.name, missing.reason) for missing in outcome.not_run] == [("mobilenetv2_100", "no-weights")]
    probe = outcome.recipes[2].planned.recipe
    assert probe.preprocessing is not None
    assert probe.preprocessing.input_size == 32
    assert probe.weights_sha256 == find_backbone("small32_m").weights_sha256


def test_every_network_is_timed_and_loaded_in_the_memory_format_that_it_is_fed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[torch.nn.Module] = []

    def noted(network: torch.nn.Module, input_size: int) -> Speed:
        timed.append(network)
        return speed(network, input_size)

    monkeypatch.setattr("headstart.study.trial.speed", noted)
    outcome, _ = _run(_request(tmp_path))
    folders = [outcome.ledger.trial_folder(recipe.results[0].identity) for recipe in outcome.recipes]
    kernels = [
        layer.weight
        for network in [*timed, *(load_bundle(folder).network for folder in folders)]
        for layer in network.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    assert len(kernels) > 2 * len(timed) > 0
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_an_architecture_can_be_trained_from_scratch(tmp_path: Path) -> None:
    fresh = Recipe(name="fresh", kind="scratch", backbone=TINY, epochs=1, batch_size=32, learning_rate=1e-3)
    outcome, _ = _run(_request(tmp_path, recipes=(fresh,), input_size=None))
    result = outcome.recipes[0].results[0]
    assert result.recipe.weights_sha256 is None
    assert result.cost.parameters_trained == result.cost.parameters > 100_000
    bundle = load_bundle(outcome.ledger.trial_folder(result.identity))
    probabilities = bundle.probabilities(outcome.images.images[result.test_indices])
    assert (probabilities.argmax(1) == result.test_logits.argmax(1)).all()


def _no_network(name: str) -> torch.nn.Module:
    raise OSError("no network")


def test_a_trial_that_fails_does_not_cost_the_others(tmp_path: Path) -> None:
    broken = Recipe(
        name="broken", kind="scratch", epochs=3, batch_size=32, optimizer="sgd", learning_rate=1e30, width=4
    )
    outcome, notes = _run(_request(tmp_path, recipes=(broken, "majority"), epochs=None, input_size=None))
    assert notes.ran == ["majority"]
    assert notes.failed[0].name == "broken"
    assert "learning rate" in outcome.not_run[0].detail


def test_a_budget_takes_seeds_first_then_epochs(tmp_path: Path) -> None:
    request = _request(tmp_path, seeds=None, epochs=None, budget_seconds=0.5, recipes=("cnn",), limit=None)
    _, notes = _run(request)
    assert notes.plan is not None
    assert notes.plan.seeds == (0,)
    planned = notes.plan.recipes[0]
    assert planned.recipe.epochs < 20
    assert (planned.asked_epochs, planned.asked_width) == (20, 32)
    _, again = _run(request)  # what was asked for is kept with the plan
    assert again.plan == notes.plan


def test_a_tight_budget_narrows_the_fast_network(tmp_path: Path) -> None:
    request = _request(tmp_path, seeds=None, epochs=None, budget_seconds=1.0, recipes=("fast",), limit=None)
    _, notes = _run(request)
    assert notes.plan is not None
    planned = notes.plan.recipes[0].recipe
    # Epochs first: as few as make a curve; only then the width.
    assert planned.epochs == 2
    assert 8 <= planned.width < 32
    assert notes.plan.recipes[0].asked_width == 32


def test_another_request_gets_another_folder_and_a_named_run_is_planned_anew(tmp_path: Path) -> None:
    first, _ = _run(_request(tmp_path, recipes=("majority",)))
    second, _ = _run(_request(tmp_path, recipes=("majority",), split_seed=1))
    assert (first.ledger.folder.name, second.ledger.folder.name) == ("digits", "digits-2")
    ledger = open_run(tmp_path / "runs", "digits", "digits", {"other": 1})
    assert ledger.folder == first.ledger.folder
    with first.ledger.locked(), pytest.raises(RunError, match="Another headstart"), ledger.locked():
        pass
    assert (ledger.folder / "plan.json").exists()  # the other process is working by it
    with ledger.locked():
        assert not (ledger.folder / "plan.json").exists()
        assert read_json(ledger.folder / "request.json") == {"other": 1}


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    outcome, _ = _run(_request(tmp_path, recipes=("majority",)))
    with outcome.ledger.locked(), pytest.raises(RunError, match="Another headstart"):
        _run(_request(tmp_path, recipes=("majority",)))


def test_damaged_predictions_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    outcome, _ = _run(_request(tmp_path, recipes=("majority",)))
    identity = outcome.recipes[0].results[0].identity
    predictions = outcome.ledger.trial_folder(identity) / "predictions.npz"
    predictions.write_bytes(b"torn")
    with pytest.raises(RunError, match=r"predictions\.npz is missing or damaged"):
        outcome.ledger.load(identity)


def test_results_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    outcome, _ = _run(_request(tmp_path, recipes=("cnn",)))
    result = outcome.recipes[0].results[0]
    loaded = outcome.ledger.load(result.identity)
    assert asdict(loaded.recipe) == asdict(result.recipe)
    assert loaded.history == result.history
    assert loaded.cost == result.cost
    assert loaded.test_logits.tobytes() == result.test_logits.tobytes()


class StopsAtOnce(Callback):
    """A user's own callback."""

    def on_epoch_end(self, training: Training, record: Any) -> None:
        training.stop("I have seen enough")


def test_a_users_callback_works_and_enters_the_identity(tmp_path: Path) -> None:
    request = _request(tmp_path, recipes=("cnn",), epochs=5)
    plain, _ = _run(request)
    stopped, _ = _run(request, callbacks=[StopsAtOnce()])
    result = stopped.recipes[0].results[0]
    assert len(result.history) == 1
    assert result.stopped_early
    assert result.identity != plain.recipes[0].results[0].identity
    assert result.recipe.callbacks[0].endswith("StopsAtOnce")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"preset": "fancy"}, "default or classroom"),
        ({"seeds": 0}, "--seeds"),
        ({"epochs": 0}, "--epochs"),
        ({"limit": 3}, "--limit"),
        ({"margin": 5.0}, "--margin"),
        ({"input_size": 4}, "--input-size"),
        ({"augmentation": "magic"}, "--augmentation"),
        ({"epochs": 2, "budget_seconds": 60.0}, "--epochs and --budget both"),
        ({"recipes": ("nothing",)}, "no recipe 'nothing'"),
        ({"recipes": ("cnn", "cnn")}, "each backbone once"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        _run(_request(tmp_path, **changes))


def test_a_recipe_that_cannot_be_completed_leaves_no_run_behind(tmp_path: Path) -> None:
    endless = Recipe(name="endless", kind="scratch")
    with pytest.raises(UsageError, match="does not say how many"):
        _run(_request(tmp_path, recipes=(endless,), epochs=None))
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UsageError, match=r"momentum = 1\.5"):
        _run(_request(tmp_path, recipes=(replace(endless, momentum=1.5, epochs=1),)))
    with pytest.raises(UsageError, match="max_shift = 4;"):  # not pixels
        _run(_request(tmp_path, recipes=(replace(endless, max_shift=4.0, epochs=1),)))
    for few in (2, 1, -1):
        with pytest.raises(UsageError, match=f"micro_batch = {few};"):
            _run(_request(tmp_path, recipes=(replace(endless, micro_batch=few, epochs=1),)))


def test_a_recipe_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nkind = "scratch"\nepochs = 1\nwidth = 4\n[preprocessing]\ninput_size = 8\nmean = [0.5, 0.5, 0.5]\n'
    )
    outcome, _ = _run(_request(tmp_path, recipes=(str(path),), epochs=None, input_size=None))
    recipe = outcome.recipes[0].results[0].recipe
    assert (recipe.name, recipe.width) == ("mine", 4)
    assert recipe.preprocessing is not None
    assert recipe.preprocessing.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"\nkind = "scratch"\nspeed = 3', "speed"),
        ('name = "a"\nkind = "magic"', "kind"),
    ],
)
def test_a_wrong_toml_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=named):
        _run(_request(tmp_path, recipes=(str(path),)))


def test_the_classroom_keeps_its_mistake(tmp_path: Path) -> None:
    outcome, _ = _run(_request(tmp_path, preset="classroom", input_size=None))
    by_name = {recipe.planned.recipe.name: recipe.planned.recipe for recipe in outcome.recipes}
    transfer = by_name[f"classroom-{TINY}"]
    assert transfer.preprocessing is not None
    assert (transfer.preprocessing.input_size, transfer.preprocessing.mean, transfer.preprocessing.std) == (
        32,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
    )
    assert (transfer.optimizer, transfer.batch_size, transfer.head) == ("adam", 64, "gradient")
    assert transfer.early_stopping_patience > transfer.reduce_on_plateau_patience > 0
