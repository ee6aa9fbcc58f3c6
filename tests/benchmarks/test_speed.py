"""The benchmark of speed: which of its rows count, and as what."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from speed import parts
from speed.parts import TUTORIAL_EPOCHS, memory, peer_at_its_best, seconds_to_best
from speed.processes import Finished
from speed.setting import Setting
from speed.table import summary


def test_a_forward_pass_slower_than_the_pipeline_around_it_does_not_count() -> None:
    assert all(peer_at_its_best(forward=1000.0, pipeline=942.0).values())
    assert not any(peer_at_its_best(forward=801.0, pipeline=942.0).values())


def test_a_peer_that_never_gets_there_pays_for_no_epoch_after_its_best() -> None:
    assert TUTORIAL_EPOCHS == 10
    assert seconds_to_best(100.0, [0.5, 0.6, 0.55], [20.0, 30.0, 40.0]) == 60.0
    assert seconds_to_best(100.0, [0.5, 0.6, 0.71], [20.0, 30.0, 40.0]) == 100.0


def test_a_lower_bound_is_judged_as_it_stands() -> None:
    row = {"target": "scratch-71", "ratio": 3.8, "lower_bound": True, "conditions": {"at least 71%": True}}
    assert "at least 3.8x | 6.0x | 12.0x | bar missed by 37%; the peer never got there |" in summary([row])
    assert "| bar met; the peer never got there |" in summary([row | {"ratio": 6.1}])
    assert "| stretch met; the peer never got there |" in summary([row | {"ratio": 12.5}])


@pytest.mark.parametrize(
    ("left_out", "counts"),
    [([], True), (["random-features-mobilenetv2_100"], True), (["mobilenetv2_100-finetune"], False)],
)
def test_a_comparison_without_one_of_its_recipes_is_not_the_whole_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left_out: list[str], counts: bool
) -> None:
    facts = {"recipes": [], "not_run": [{"name": name} for name in left_out], "verdict": {"statement": "It depends."}}
    monkeypatch.setattr(parts, "_compare", lambda *_, **__: Finished(900.0, facts, 10**9))
    values: dict[str, Any] = dict.fromkeys(field.name for field in fields(Setting))
    row = next(iter(memory(Setting(**values | {"work": tmp_path, "quick": False, "budget": "15m"}))))
    assert row["left_out"] == left_out
    assert all(row["conditions"].values()) == counts
