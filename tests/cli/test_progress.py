"""What the terminal says of a plan before anything is trained, in both languages."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from headstart.cli.progress import TerminalObserver, print_pretrained
from headstart.data.sources import load_images
from headstart.models.weights import WeightsFile
from headstart.records import DuplicateReport, LeftOut, NotRun, Recipe, Split
from headstart.report.language import Texts
from headstart.study.ledger import Ledger
from headstart.study.planning import Plan, PlannedRecipe, PretrainingPlan
from headstart.study.pretraining import Pretrained


def _said(plan: Plan, language: str, folder: Path) -> str:
    console = Console(file=io.StringIO(), width=200, record=True, color_system=None)
    TerminalObserver(console, Texts(language)).plan_ready(plan, Ledger(folder), 0)
    return console.export_text().replace("\u00a0", " ")


def _plan() -> Plan:
    cnn = Recipe("cnn", "scratch", epochs=6)
    fast = Recipe("fast", "scratch", network="fast", epochs=2, width=16)
    recipes = (
        PlannedRecipe(cnn, None, (0, 1), 41.5, asked_epochs=20, asked_width=32),
        PlannedRecipe(fast, None, (0, 1), 12.0, asked_epochs=8, asked_width=32),
        PlannedRecipe(Recipe("probe", "probe"), None, (0,), 0.7, asked_epochs=0, asked_width=32, shared_seconds=2.5),
        PlannedRecipe(Recipe("majority", "majority"), None, (0,), 0.0, asked_epochs=0, asked_width=32),
    )
    return Plan(
        recipes, (NotRun("small32_l-probe", "not-pretrained", "small32_l"),), (0, 1), 110.2, budget_seconds=60.0
    )


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        (
            "en",
            (
                "  cnn: 2 seeds, about 1 min 23 s (6 of its 20 epochs)",
                "  fast: 2 seeds, about 24.0 s (2 of its 8 epochs, width 16 instead of 32)",
                "  probe: 1 seed, about 3.2 s",
                "The least that can be planned for what you asked takes about 1 min 50 s, more than your budget of 1 min.",
            ),
        ),
        (
            "es",
            (
                "  cnn: 2 semillas, unos 1 min 23 s (6 de sus 20 épocas)",
                "  fast: 2 semillas, unos 24,0 s (2 de sus 8 épocas; ancho 16 en lugar de 32)",
                "  probe: 1 semilla, unos 3,2 s",
                "Lo mínimo que se puede planear con lo que pediste lleva unos 1 min 50 s, más que tu límite de 1 min.",
            ),
        ),
    ],
)
def test_a_plan_says_how_long_each_recipe_takes_and_what_was_cut(
    language: str, lines: tuple[str, ...], tmp_path: Path
) -> None:
    said = [line.rstrip() for line in _said(_plan(), language, tmp_path).splitlines()]
    assert said[1:5] == list(lines)
    assert not any("majority" in line for line in said)  # it takes no time worth a line
    assert "headstart pretrain" in said[5]
    assert "--architecture small32_l" in said[5]


def test_a_plan_that_fits_its_budget_says_nothing_of_it(tmp_path: Path) -> None:
    assert "budget" not in _said(replace(_plan(), budget_seconds=110.2), "en", tmp_path)


@pytest.mark.parametrize(
    ("language", "words"), [("en", "16 epochs, about 1 h 2 min"), ("es", "16 épocas, unos 1 h 2 min")]
)
def test_a_pretraining_says_how_long_it_takes(language: str, words: str) -> None:
    said = _pretraining_said(PretrainingPlan(16, 3720.0, 3800.0, 32, 32, train_images=5000), language)
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        (
            "en",
            [
                "Plan: 1 epoch, about 3 min in all.",
                "That does not fit the budget of 1 min, even with a single epoch.",
                "Images of 64 px are shrunk to 32 px, the size that the backbone is made for (--input-size).",
            ],
        ),
        (
            "es",
            [
                "Plan: 1 época, unos 3 min en total.",
                "Eso no cabe en el tiempo indicado (1 min), ni siquiera con una sola época.",
                "Las imágenes de 64 px se reducen a 32 px, el tamaño para el que se crea la red (--input-size).",
            ],
        ),
    ],
)
def test_a_pretraining_says_that_it_does_not_fit_and_that_images_are_shrunk(language: str, lines: list[str]) -> None:
    said = _pretraining_said(PretrainingPlan(1, 180.0, 60.0, 32, 64, train_images=5000), language)
    assert [line.rstrip() for line in said.splitlines()] == lines


@pytest.mark.parametrize(
    ("language", "goes_on", "few"),
    [
        ("en", "It goes on after 30 epochs of an earlier run; about 1 h are left.", "900 images are few"),
        ("es", "Continúa tras 30 épocas de una ejecución anterior; quedan unos 1 h.", "900 imágenes son pocas"),
    ],
)
def test_a_pretraining_says_what_it_goes_on_from_and_that_its_images_are_few(
    language: str, goes_on: str, few: str
) -> None:
    said = _pretraining_said(PretrainingPlan(60, 7200.0, None, 32, 32, train_images=900, epochs_done=30), language)
    assert said.splitlines()[1].rstrip() == goes_on
    assert said.splitlines()[2].startswith(few)


def _pretraining_said(plan: PretrainingPlan, language: str) -> str:
    console = Console(file=io.StringIO(), width=200, record=True, color_system=None)
    TerminalObserver(console, Texts(language)).pretraining_planned(plan)
    return console.export_text().replace("\u00a0", " ")


def test_the_data_of_a_pretraining_are_said_without_a_test_part() -> None:
    digits = replace(load_images("digits"), left_out=tuple(LeftOut(f"{n}.png", "empty") for n in range(25)))
    nothing = np.array([], np.int64)
    split = Split(np.arange(1000), np.arange(1000, 1100), nothing, 0, "drawn", np.arange(1100, 1107))
    console = Console(file=io.StringIO(), width=200, record=True, color_system=None)
    report = DuplicateReport(7, 7, 0, True, ())
    TerminalObserver(console, Texts("en")).data_ready(digits, split, report)
    said = [line.rstrip() for line in console.export_text().splitlines()]
    assert said[0] == "Data digits: 1,797 images in 10 classes; 1,000 to train, 100 to validate."
    assert said[1] == "The 690 images of its own test part are left alone."
    assert said[2].startswith("7 training or validation images")
    assert said[3] == "25 files were left out:"
    assert said[-1] == "... and 5 more."


def test_a_probe_on_images_that_were_trained_on_is_no_praise() -> None:
    entry = {"data": "x", "labels": 5000, "probe_accuracy": 0.9, "near_duplicates": 8, "exact_duplicates": 4}
    facts = {"results": json.dumps({"val_accuracy": 0.5}), "judged": json.dumps([entry])}
    file = WeightsFile(Path("m"), "small32_s", {}, 32, "bilinear", (0, 0, 0), (1, 1, 1), "", "", facts)
    console = Console(file=io.StringIO(), width=200, record=True, color_system=None)
    print_pretrained(console, Texts("en"), Pretrained(file, Path("m.md"), was_done=False))
    said = console.export_text()
    assert "took no part" not in said
    assert "It was trained on 4 of these test images" in said
