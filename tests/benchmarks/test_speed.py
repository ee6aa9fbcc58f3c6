"""The benchmark of speed: which of its rows count, and as what."""

from speed.parts import TUTORIAL_EPOCHS, peer_at_its_best, seconds_to_best
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
