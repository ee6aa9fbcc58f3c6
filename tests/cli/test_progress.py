"""What the terminal says of a plan before anything is trained, in both languages."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from headstart.cli.progress import TerminalObserver
from headstart.records import NotRun, Recipe
from headstart.report.language import Texts
from headstart.study.ledger import Ledger
from headstart.study.planning import Plan, PlannedRecipe


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
                "The least that can be planned takes about 1 min 50 s, more than your budget of 1 min.",
            ),
        ),
        (
            "es",
            (
                "  cnn: 2 semillas, unos 1 min 23 s (6 de sus 20 épocas)",
                "  fast: 2 semillas, unos 24,0 s (2 de sus 8 épocas; ancho 16 en lugar de 32)",
                "  probe: 1 semilla, unos 3,2 s",
                "Lo mínimo que se puede planear lleva unos 1 min 50 s, más que tu límite de 1 min.",
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
    console = Console(file=io.StringIO(), width=200, record=True, color_system=None)
    TerminalObserver(console, Texts(language)).pretraining_planned(16, 3720.0)
    assert words in console.export_text().replace("\u00a0", " ")
