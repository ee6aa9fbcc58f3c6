"""Calls written down: what differs from the defaults, as Python that makes the same call again."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

import headstart
from headstart.calls import written_call
from headstart.data.sources import load_images
from headstart.records import Preprocessing, Recipe
from headstart.study.observer import SilentObserver
from headstart.training.callbacks import Callback, EarlyStopping


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"data": "digits"}, "headstart.compare('digits')"),
        ({"data": Path("my") / "images", "seeds": 1}, "headstart.compare('my/images', seeds=1)"),
        (
            {"data": "digits", "seeds": np.int64(2), "margin": np.float32(0.5)},
            "headstart.compare('digits', seeds=2, margin=0.5)",
        ),
        ({"data": "digits", "runs": Path("runs"), "backbones": [], "seeds": None}, "headstart.compare('digits')"),
        (
            {"data": "digits", "runs": Path("it's"), "backbones": ("small32_m",), "budget": "10m", "margin": 0.02},
            "headstart.compare('digits', backbones=('small32_m',), budget='10m', margin=0.02, runs=\"it's\")",
        ),
        (
            {"data": "d", "callbacks": [EarlyStopping(2)], "observer": SilentObserver(), "command": "x"},
            "headstart.compare('d')",
        ),
    ],
)
def test_what_differs_from_the_defaults_is_written(given: dict[str, Any], written: str) -> None:
    assert written_call(headstart.compare, given) == written


def test_what_nobody_can_write_down_is_called_by_its_name_or_kind() -> None:
    def prepare(image: Any) -> Any:
        return image

    given = {
        "model": nn.Linear(2, 2),
        "data": (np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2)),
        "preprocess": prepare,
        "predictions": np.zeros((2, 2)),
        "history": {"loss": [1.0] * 500},
    }
    assert written_call(headstart.diagnose, given) == (
        "headstart.diagnose(<Linear>, data=(<ndarray>, <ndarray>), preprocess=prepare, history=<dict>, predictions=<ndarray>)"
    )
    images = load_images("digits", limit=50)
    pair = (images.images, images.labels.tolist())
    assert written_call(headstart.diagnose, {"model": prepare, "data": pair}) == (
        "headstart.diagnose(prepare, data=(<ndarray>, <list of 50>))"
    )
    assert (
        written_call(headstart.diagnose, {"model": "x", "data": images}) == "headstart.diagnose('x', data=<ImageSet>)"
    )


def test_what_is_written_is_python_that_makes_the_same_call() -> None:
    preprocessing = Preprocessing(24, mean=(0.5, 0.25, 0.125))
    mine = Recipe("mine", "probe", backbone="small32_s", preprocessing=preprocessing)
    given = {"data": "digits", "recipes": [mine, "cnn"], "keep_duplicates": True, "language": "es"}
    written = written_call(headstart.compare, given)
    assert "learning_rate" not in written  # Recipe's own defaults are left out, too
    caught: dict[str, Any] = {}
    stand_in = SimpleNamespace(
        compare=lambda data, **others: caught.update(others, data=data), Recipe=Recipe, Preprocessing=Preprocessing
    )
    eval(written, {"headstart": stand_in})
    assert caught == given


def test_a_report_has_the_call_that_made_it(tmp_path: Path) -> None:
    made = headstart.compare(
        "digits", ["majority"], limit=100, runs=tmp_path / "runs", language="en", callbacks=[Callback()]
    )
    runs = str(tmp_path / "runs")
    expected = f"headstart.compare('digits', recipes=['majority'], limit=100, runs={runs!r}, language='en')"
    assert made.results["command"] == expected
    assert expected in made.paths.markdown.read_text(encoding="utf-8")


def test_one_recipe_needs_no_list(tmp_path: Path) -> None:
    alone = headstart.compare("digits", "majority", limit=100, runs=tmp_path / "runs", language="en")
    assert list(alone.accuracies) == ["majority"]


def test_a_card_has_the_call_that_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = headstart.pretrain(
        "digits", Path("made.safetensors"), architecture="small32_s", epochs=1, limit=100, input_size=8
    )
    written = "headstart.pretrain('digits', out='made.safetensors', architecture='small32_s', input_size=8, epochs=1, limit=100)"
    assert written in made.card.read_text(encoding="utf-8")
