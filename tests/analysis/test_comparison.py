"""The contest: who wins, who is beaten, when cost decides, and what the controls say."""

import numpy as np
import pytest

from headstart.analysis.comparison import Competitor, compare
from headstart.records import Kind

RNG = np.random.default_rng(3)
IMAGES = 4000
DIFFICULTY = RNG.random(IMAGES)


def _competitor(
    name: str, kind: Kind, accuracy: float, seconds: float = 10.0, trials: int = 1, backbone: str | None = None
) -> Competitor:
    correct = np.stack([(DIFFICULTY + RNG.normal(0, 0.05, IMAGES)) < accuracy for _ in range(trials)])
    return Competitor(name, kind, kind in ("majority", "random-features"), correct, seconds, trials == 1, backbone)


MAJORITY = _competitor("majority", "majority", 0.1)
RANDOM = _competitor("random-features", "random-features", 0.4, backbone="net")


def test_transfer_that_is_better_wins() -> None:
    found = compare(
        [
            _competitor("cnn", "scratch", 0.7, trials=3),
            _competitor("probe", "probe", 0.86, backbone="net"),
            RANDOM,
            MAJORITY,
        ]
    )
    assert (found.best, found.code, found.decided_by) == ("probe", "transfer-better", "accuracy")
    assert found.difference is not None
    assert found.difference.low > 0.1
    assert found.scratch_against_transfer == "worse"
    assert {(c.recipe, c.control, c.beats) for c in found.controls} == {
        ("cnn", "majority", True),
        ("probe", "majority", True),
        ("probe", "random-features", True),
    }


def test_scratch_that_is_better_wins() -> None:
    found = compare([_competitor("cnn", "scratch", 0.8), _competitor("probe", "probe", 0.3, backbone="net"), MAJORITY])
    assert (found.best, found.code, found.scratch_against_transfer) == ("cnn", "scratch-better", "better")


def test_among_equals_the_cheapest_wins_and_says_so() -> None:
    dear = _competitor("finetune", "finetune", 0.8, seconds=100.0)
    cheap = Competitor("probe", "probe", False, dear.correct.copy(), 10.0, True, None)
    found = compare([dear, cheap, MAJORITY])
    assert (found.best, found.decided_by, found.cost_ratio) == ("probe", "cost", 10.0)


def test_a_tenth_of_the_time_does_not_decide_among_equals() -> None:
    less = _competitor("probe", "probe", 0.8, seconds=10.0)
    correct = less.correct.copy()
    correct[0, np.flatnonzero(~correct[0])[:1]] = True
    for seconds, best in ((11.0, "cnn"), (11.1, "probe")):
        more = Competitor("cnn", "scratch", False, correct, seconds, False, None)
        assert compare([less, more, MAJORITY]).best == best


def test_a_difference_within_the_margin_does_not_count() -> None:
    first = _competitor("a", "scratch", 0.8, seconds=10.0)
    correct = first.correct.copy()
    correct[0, np.flatnonzero(~correct[0])[:20]] = True  # half a point better on the same images
    second = Competitor("b", "probe", False, correct, 20.0, True, None)
    pair = next(p for p in compare([first, second], margin=0.01).pairs if p.purpose == "contest")
    assert pair.p_holm < 0.001
    assert (pair.verdict, pair.within_margin) == ("not_distinguishable", True)
    strict = next(p for p in compare([first, second], margin=0.0).pairs if p.purpose == "contest")
    assert strict.verdict == "worse"


def test_a_transfer_that_does_not_beat_random_features_says_so() -> None:
    control = _competitor("random-features", "random-features", 0.5, backbone="net")
    probe = Competitor("probe", "probe", False, control.correct.copy(), 5.0, True, "net")
    found = compare([probe, control, MAJORITY])
    assert not next(check.beats for check in found.controls if check.control == "random-features")


def test_nothing_learned_when_the_best_does_not_beat_the_majority() -> None:
    cnn = Competitor("cnn", "scratch", False, MAJORITY.correct.copy(), 5.0, False, None)
    assert compare([cnn, MAJORITY]).code == "nothing-learned"


def test_only_controls_have_no_winner() -> None:
    found = compare([MAJORITY, RANDOM])
    assert (found.best, found.code) == (None, "nothing-learned")


@pytest.mark.parametrize(("kind", "code"), [("scratch", "only-scratch"), ("probe", "only-transfer")])
def test_one_side_alone_is_called_so(kind: Kind, code: str) -> None:
    found = compare([_competitor("one", kind, 0.8), MAJORITY])
    assert (found.best, found.code, found.decided_by, found.runner_up) == ("one", code, "alone", None)


def test_trials_face_each_other_and_the_single_one_faces_all() -> None:
    found = compare([_competitor("cnn", "scratch", 0.7, trials=3), _competitor("probe", "probe", 0.7)])
    tables = found.pairs[0].mcnemar
    assert [(table.seed_a, table.seed_b) for table in tables] == [(0, 0), (1, 0), (2, 0)]
    assert found.pairs[0].seeds == 3
