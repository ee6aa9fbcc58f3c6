"""The command line as a user meets it: exit codes, messages, both languages."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.models.backbones import find_backbone
from tests.models.factory import TINY, write_foreign_files, write_tiny_weights


class Terminal:
    """Runs `headstart` in a process of its own, with caches and weights of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "HEADSTART_CACHE": str(folder / "cache"),
            "HEADSTART_WEIGHTS": str(folder / "weights"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "LANG": "C",
        }

    def __call__(self, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "headstart", *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=240,
        )


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    folder = tmp_path_factory.mktemp("terminal")
    write_tiny_weights(folder / "weights")
    return Terminal(folder)


@pytest.fixture(scope="module")
def finished(terminal: Terminal) -> "subprocess.CompletedProcess[str]":
    """A whole comparison with every kind of recipe."""
    done = terminal(
        "compare", "digits", "--backbone", TINY, "--input-size", "32", "--seeds", "2", "--epochs", "2", "--limit", "400"
    )
    assert done.returncode == 0, done.stderr
    return done


def _results(terminal: Terminal, run: str = "digits") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((terminal.folder / "runs" / run / "results.json").read_text(encoding="utf-8"))
    return loaded


def test_a_comparison_ends_with_table_verdict_and_path(
    terminal: Terminal, finished: "subprocess.CompletedProcess[str]"
) -> None:
    results = _results(terminal)
    printed = finished.stdout
    assert "about" in printed[: printed.index("seed 0")]  # how long it will take, before it starts
    assert "cnn: 2 seeds, about" in printed  # and how long each recipe
    assert " ".join(results["verdict"]["statement"].split()) in " ".join(printed.split())
    assert printed.rstrip().endswith("report.html")
    for name in ("fast", "cnn", f"{TINY}-probe", f"{TINY}-finetune", "random-features", "majority"):
        assert name in printed


def test_results_have_the_documented_fields(terminal: Terminal, finished: "subprocess.CompletedProcess[str]") -> None:
    results = _results(terminal)
    assert results["schema_version"] == 1
    assert {"data", "recipes", "comparisons", "verdict", "environment", "study", "not_run"} <= results.keys()
    for entry in results["recipes"]:
        for key in ("test_accuracy", "train_accuracy", "val_accuracy", "train_val_gap"):
            assert entry[key]["low"] <= entry[key]["mean"] <= entry[key]["high"]
        assert {"parameters", "macs", "train_seconds", "peak_bytes", "latency_ms"} <= entry["cost"].keys()
        assert entry["fit_verdict"] in ("overfits", "underfits", "sound")
        for item in (*entry["mistakes"], *results["data"]["samples"]):
            assert (terminal.folder / "runs" / "digits" / item["image"]).exists()
    assert len(next(e for e in results["recipes"] if e["name"] == "cnn")["seeds"]) == 2
    assert len(next(e for e in results["recipes"] if e["name"] == f"{TINY}-probe")["seeds"]) == 1


def test_the_same_command_repeats_nothing(terminal: Terminal, finished: "subprocess.CompletedProcess[str]") -> None:
    before = _results(terminal)
    again = terminal(
        "compare", "digits", "--backbone", TINY, "--input-size", "32", "--seeds", "2", "--epochs", "2", "--limit", "400"
    )
    assert again.returncode == 0
    assert "9 of 9 were done before" in again.stdout
    after = _results(terminal)
    assert after["recipes"] == before["recipes"]
    assert after["comparisons"] == before["comparisons"]


def test_the_report_can_be_rebuilt_in_spanish(terminal: Terminal, finished: "subprocess.CompletedProcess[str]") -> None:
    done = terminal("report", "runs/digits", "--lang", "es")
    assert done.returncode == 0, done.stderr
    page = (terminal.folder / "runs" / "digits" / "report.html").read_text(encoding="utf-8")
    assert '<html lang="es"' in page
    assert "Veredicto" in page


def test_predict_classifies_files_and_survives_a_bad_one(
    terminal: Terminal, finished: "subprocess.CompletedProcess[str]"
) -> None:
    from sklearn.datasets import load_digits

    folder = terminal.folder / "photos"
    folder.mkdir(exist_ok=True)
    data = load_digits()
    for index in range(20):
        Image.fromarray((data.images[index] * 255 / 16).astype(np.uint8)).save(folder / f"{index:02d}.png")
    (folder / "zz.png").write_bytes(b"")
    done = terminal("predict", "runs/digits", "photos", "--recipe", "cnn", "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 20
    assert all(abs(sum(answer["probabilities"].values()) - 1) < 1e-5 for answer in answers)
    right = sum(answer["predicted"] == str(data.target[index]) for index, answer in enumerate(answers))
    assert right >= 8  # two epochs of 400 images are enough to be far above chance
    assert done.returncode == 3
    assert "zz.png" in done.stderr


def test_runs_are_listed(terminal: Terminal, finished: "subprocess.CompletedProcess[str]") -> None:
    done = terminal("runs")
    assert "digits" in done.stdout
    assert "finished" in done.stdout
    empty = terminal("runs", "--runs", "nowhere", "--lang", "es")
    assert "No hay ejecuciones" in empty.stdout


def test_env_says_what_is_there_in_both_languages(terminal: Terminal) -> None:
    english, spanish = terminal("env"), terminal("env", LANG="es_ES.UTF-8")
    assert english.returncode == spanish.returncode == 0
    for part in ("PyTorch", "Threads", "Cache folder", TINY):
        assert part in english.stdout
    assert "Carpeta de caché" in spanish.stdout


@pytest.mark.parametrize("language", ["C", "es_ES.UTF-8"])
def test_eighty_columns_hold_the_licence_of_every_backbone(terminal: Terminal, language: str) -> None:
    said = terminal("backbones", LANG=language, COLUMNS="80").stdout
    assert "apache-2.0" in next(line for line in said.splitlines() if line.startswith(" mobilenetv3_large_100 "))
    sentence = find_backbone("small32_m").licence
    assert f"(1) {sentence}\n" in said
    assert next(line for line in said.splitlines() if line.startswith(" small32_m ")).rstrip().endswith("(1)")


def test_files_that_are_no_backbones_are_named_in_both_languages_and_disturb_nothing(
    terminal: Terminal, tmp_path: Path
) -> None:
    reasons = write_foreign_files(tmp_path)
    folder = ("--weights-dir", tmp_path)
    for language, said in (("C", "Not usable: "), ("es_ES.UTF-8", "No se puede usar: ")):
        done = terminal("backbones", *folder, LANG=language)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith(said)]
        assert len(lines) == len(reasons)
        for name, reason in reasons.items():
            assert any(f"{name}.safetensors" in line and reason in line for line in lines)
        environment = terminal("env", *folder, LANG=language)
        assert environment.returncode == 0, environment.stderr
        assert "torn.safetensors" in environment.stdout
    as_json = terminal("backbones", *folder, "--json")
    assert {entry["name"] for entry in json.loads(as_json.stdout)} >= {"small32_m", TINY}
    assert as_json.stderr.count("Not usable: ") == len(reasons)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("compare", "no-such-folder"), 2, "no-such-folder"),
        (("compare", "digits", "--backbone", "mobilenet_v2_100"), 2, "mobilenetv2_100"),
        (("compare", "digits", "--backbone", "typo.safetensors"), 4, "There is no file"),
        (("compare", "digits", "--budget", "soon"), 2, "10m"),
        (("compare", "digits", "--epochs", "2", "--budget", "1m"), 2, "Give one of them"),
        (("compare", "digits", "--device", "tpu"), 2, "auto, cpu, cuda or mps"),
        (("compare", "digits", "--lang", "fr"), 2, "fr"),
        (("report", "nowhere"), 6, "not a finished run"),
        (("predict", "nowhere", "x.png"), 6, "not a finished run"),
    ],
)
def test_a_mistake_gets_one_message_and_a_code(
    terminal: Terminal, arguments: tuple[str, ...], code: int, named: str
) -> None:
    done = terminal(*arguments)
    assert done.returncode == code, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_pretrain_says_how_long_it_takes_and_where_it_wrote(terminal: Terminal) -> None:
    settings = (
        "--architecture",
        "small32_s",
        "--input-size",
        "8",
        "--limit",
        "100",
        "--epochs",
        "2",
        "--out",
        "made.safetensors",
    )
    done = terminal("pretrain", "digits", *settings)
    assert done.returncode == 0, done.stderr
    assert "Data digits: 100 images in 10 classes; 90 to train, 10 to validate." in done.stdout
    assert "Plan: 2 epochs, about" in done.stdout
    assert "made.safetensors" in done.stdout[done.stdout.index("Plan") :]
    again = terminal("pretrain", "digits", *settings)
    assert again.returncode == 0, again.stderr
    assert "Plan" not in again.stdout
    assert "done before" in again.stdout


def test_diagnose_names_the_cause_and_hands_over_the_recipe(terminal: Terminal) -> None:
    recipe = terminal.folder / "wrong.toml"
    recipe.write_text(
        'name = "wrong"\nkind = "probe"\nbackbone = "small32_s"\n[preprocessing]\ninput_size = 8\n', encoding="utf-8"
    )
    done = terminal("diagnose", "digits", "--recipe", recipe, "--lang", "es", "--name", "why")
    assert done.returncode == 0, done.stderr
    folder = terminal.folder / "runs" / "why"
    record = json.loads((folder / "diagnosis.json").read_text(encoding="utf-8"))
    assert record["causes"][0]["name"] == "input-size"
    assert record["verdict"]["statement"] in done.stdout.replace("\n", " ")
    assert "headstart compare digits --recipe" in done.stdout
    assert (folder / "repaired.toml").exists()
    rebuilt = terminal("report", folder, "--lang", "en")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "What is wrong" in (folder / "report.md").read_text(encoding="utf-8")
    refused = terminal("diagnose", "digits", "--recipe", "cnn")
    assert refused.returncode == 2
    assert "there is no transfer to diagnose" in refused.stderr


def test_a_comparison_does_not_wait_for_what_only_a_diagnosis_needs() -> None:
    code = (
        "import sys; import headstart.api, headstart.cli.progress; "
        "print([name for name in ('headstart.diagnosing', 'headstart.diagnosis.probing', 'scipy.optimize') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
