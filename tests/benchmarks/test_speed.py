"""The benchmark of speed: which of its rows count, and as what."""

from speed.parts import peer_at_its_best


def test_a_forward_pass_slower_than_the_pipeline_around_it_does_not_count() -> None:
    assert all(peer_at_its_best(forward=1000.0, pipeline=942.0).values())
    assert not any(peer_at_its_best(forward=801.0, pipeline=942.0).values())
