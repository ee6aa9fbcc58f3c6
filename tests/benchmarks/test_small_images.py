"""The benchmark of small images: its opponents get the labels, the seconds and the epochs that its page says they get."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import small_images
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.files import read_json
from headstart.records import ImageSet, Recipe, Split
from headstart.study.presets import fast_recipe, scratch_recipe
from small_images import OPPONENTS, Pace, lasting_trials, measured_pace, not_run, scratch_opponents
from small_images_figures import PAGE, fine_tuning_table, tables


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, Split]:
    images = load_images("digits", limit=300)
    return images, make_split(images)[0]


@dataclass(frozen=True)
class Seconds:
    """Of a trial's cost what is looked at."""

    train_seconds: float


class Timed:
    """Stands for a trial whose epochs take `per_epoch` seconds each."""

    def __init__(self, recipe: Recipe, per_epoch: float) -> None:
        self.recipe = recipe
        self.cost = Seconds(per_epoch * recipe.epochs)


def _pretend(monkeypatch: pytest.MonkeyPatch, *, at_first: float, then: float) -> list[int]:
    """Let the pace be measured as `at_first` seconds an epoch and trials take `then`; the list gets each trial's epochs."""
    asked: list[int] = []

    def trial(images: ImageSet, split: Split, recipe: Recipe, backbone: Any, seed: int) -> Timed:
        asked.append(recipe.epochs)
        return Timed(recipe, then)

    monkeypatch.setattr(small_images, "measured_pace", lambda *_: Pace(0.0, at_first))
    monkeypatch.setattr(small_images, "_trial", trial)
    return asked


def test_few_labels_leave_the_opponent_its_own_epochs(
    digits: tuple[ImageSet, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, split = digits
    many = replace(images, labels=np.zeros(60_000, np.int64))  # whose own default is fewer epochs than that of 500
    (fast, _), *_ = scratch_opponents(many, 500, list(OPPONENTS))
    assert fast == fast_recipe(many, 500)
    assert fast.epochs > fast_recipe(many).epochs
    asked = _pretend(monkeypatch, at_first=1.0, then=1.0)
    lasting_trials(fast.epochs / 2, fast, None, images, split, seeds=1)
    assert asked == [fast.epochs]


def test_an_opponent_trains_at_least_the_seconds_asked_for(
    digits: tuple[ImageSet, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, split = digits
    recipe = scratch_recipe(images)
    asked = _pretend(monkeypatch, at_first=1.0, then=0.5)
    results = lasting_trials(100.0, recipe, None, images, split, seeds=2)
    assert [result.cost.train_seconds >= 100.0 for result in results] == [True, True]
    assert asked == [105, 105, 210, 210]  # a twentieth more than the pace says: a hundred, then two hundred


def test_an_opponent_that_never_lasts_is_an_error(
    digits: tuple[ImageSet, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, split = digits
    _pretend(monkeypatch, at_first=1.0, then=0.0001)
    monkeypatch.setattr(small_images, "ATTEMPTS", 1)
    with pytest.raises(SystemExit, match=r"shorter than 100\.0 s 1 times"):
        lasting_trials(100.0, scratch_recipe(images), None, images, split, seeds=1)


def test_training_seconds_are_those_of_the_epochs(digits: tuple[ImageSet, Split]) -> None:
    """So nothing may be taken off them for the last evaluation, of test."""
    images, split = digits
    recipe = scratch_recipe(images).with_changes(width=8, epochs=2)
    pace = measured_pace(recipe, None, images, split)
    assert pace.once == pytest.approx(0.0, abs=1e-6)
    assert pace.per_epoch > 0
    result = small_images._trial(images, split, recipe, None, seed=0)
    assert result.cost.train_seconds == pytest.approx(sum(epoch.seconds for epoch in result.history))


def test_opponents_that_were_not_run_are_named() -> None:
    rows = [{"labels": 500, "name": name} for name in ("small32_m-finetune", "fast", "small32_m-scratch", "cnn")]
    rows += [{"labels": 5000, "name": name} for name in ("small32_m-finetune", "fast")]
    assert not_run(rows) == [{"labels": 5000, "name": "small32_m-scratch"}, {"labels": 5000, "name": "cnn"}]


def test_the_page_names_opponents_that_were_not_run() -> None:
    accuracy = {"mean": 0.5, "low": 0.4, "high": 0.6}
    row = {"labels": 5000, "name": "fast", "epochs": 1, "seeds": 1, "train_seconds": 1.0, "test_accuracy": accuracy}
    part = {"rows": [row], "not_run": [{"labels": 5000, "name": "cnn"}]}
    assert fine_tuning_table(part).endswith("\n\nNot run: `cnn` with 5,000 labels.")
    assert "Not run" not in fine_tuning_table({"rows": [row], "not_run": []})


def test_the_page_says_by_how_much_each_fine_tuned_network_is_ahead() -> None:
    accuracy = {"mean": 0.5, "low": 0.4, "high": 0.6}
    row = {"labels": 500, "name": "fast", "epochs": 1, "seeds": 1, "train_seconds": 1.0, "test_accuracy": accuracy}
    lead = {"mean": 0.15, "low": 0.1, "high": 0.2}
    table = fine_tuning_table({"rows": [row | {"fine_tuned_minus_this": {"a-finetune": lead, "b-finetune": lead}}]})
    assert table.endswith("| a +15.0 [10.0, 20.0]; b +15.0 [10.0, 20.0] |")


def test_rows_that_are_not_measured_anew_stay() -> None:
    rows = [{"labels": labels, "name": name} for labels in (500, 5000) for name in ("a-finetune", "fast")]
    assert small_images._kept("few", rows, [500], ["fast"]) == rows[2:]
    assert small_images._kept("budget", rows, [500], ["fast"]) == [rows[0], rows[2]]
    assert small_images._kept("widths", [{"channels": [1]}], [500], ["fast"]) == []


def test_opponents_train_as_long_as_the_longest_fine_tuning(
    digits: tuple[ImageSet, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, split = digits
    asked: list[float] = []

    def lasting(seconds: float, *_: Any, **__: Any) -> list[Timed]:
        asked.append(seconds)
        return []

    def trial(images: ImageSet, split: Split, recipe: Recipe, backbone: Any, seed: int) -> Timed:
        return Timed(
            recipe.with_changes(epochs=1), per_epoch={"small32_l": 7.0, "small32_s": 2.0}[str(recipe.backbone)]
        )

    monkeypatch.setattr(small_images, "_trial", trial)
    monkeypatch.setattr(small_images, "_printed", lambda *_: {})
    monkeypatch.setattr(small_images, "lasting_trials", lasting)
    list(small_images.few_labels(images, split, 2, [50], ["small32_l", "small32_s"], ["fast"]))
    assert asked == [7.0]


def test_the_page_shows_what_the_results_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables(read_json(small_images.RESULTS)).items():
        assert f"<!-- {name} -->\n{table}\n<!-- end -->" in page
