"""The model card's rows, from metadata written by hand."""

import json
from typing import Any

import pytest

from headstart.records import Recipe
from headstart.study.model_card import model_card
from headstart.training.engine import Fitted

JUDGED = {
    "data": "other",
    "fingerprint": "f",
    "input_size": 32,
    "labels": 5000,
    "test_images": 1000,
    "probe_accuracy": 0.8115,
    "near_duplicates": 1000,
    "probe_accuracy_without_near_duplicates": None,
    "exact_duplicates": None,
}
RESULTS = {
    "train_images": 900,
    "val_images": 100,
    "removed_duplicates": 2,
    "left_out_files": 3,
    "best_epoch": 1,
    "val_accuracy": 0.5,
    "val_accuracy_top5": 0.875,
    "parameters": 1234,
    "multiply_adds": 2_000_000,
}
MACHINE = {"processor": "a CPU", "threads": 2, "torch": "2", "headstart": "0"}


def _card(classes: int = 10, judged: Any = (JUDGED,), machines: Any = (MACHINE,), **metadata: str) -> str:
    facts = {
        "license": "CC0-1.0",
        "pretraining": "Things",
        "classes": json.dumps([str(number) for number in range(classes)]),
        "seed": "0",
        "weights_sha256": "abc",
        "float32_sha256": "def",
        "results": json.dumps(RESULTS),
        "judged": json.dumps(list(judged)),
    }
    recipe = Recipe("small32_s", "scratch", input_size=32, epochs=1)
    return model_card(facts | metadata, recipe, Fitted((), 1, False, 360.0, 12.0), machines, "the command", 720.0)


def test_a_dash_stands_where_there_is_nothing_to_count() -> None:
    row = next(line for line in _card().splitlines() if line.startswith("| other |"))
    assert row == "| other | 32 px | 5,000 | 1,000 | 81.2% | – | 1,000 | – |"
    assert "Nothing: no data set was named" in _card(judged=())


@pytest.mark.parametrize(("classes", "said"), [(5, "50.0% of 100 images"), (6, "50.0% (top 5: 87.5%) of 100 images")])
def test_top_5_is_said_of_six_classes_or_more(classes: int, said: str) -> None:
    assert said in _card(classes)


def test_the_teacher_is_on_the_card_where_there_was_one() -> None:
    teacher = {"name": "big", "weights_sha256": "123", "preprocessing": {"input_size": 128, "interpolation": "bicubic"}}
    card = _card(teacher=json.dumps(teacher | {"weight": 20.0}))
    assert (
        "| teacher | big, each image at 128 px (bicubic), weight of its part of the loss 20; its features took 0.20 h"
        in card
    )
    assert "| SHA-256 of the teacher's weights | `123` |" in card
    assert "teacher |" not in _card()


def test_every_machine_that_it_was_trained_on_is_on_the_card() -> None:
    card = _card(machines=[MACHINE | {"gpu": "a GPU"}, MACHINE])
    assert "| trained on | a GPU; torch 2, headstart 0, then a CPU, 2 threads; torch 2, headstart 0 |" in card
