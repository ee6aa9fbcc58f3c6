"""Proofs from predictions, against hand arithmetic, and what chance must not prove."""

from dataclasses import replace

import numpy as np
import pytest

from headstart.analysis.diagnosis import Finding, best_meanings
from headstart.diagnosis.copies import Twins
from headstart.diagnosis.look_training import look_at_duplicates, look_at_labels
from headstart.diagnosis.prove_predictions import (
    beside_curve,
    prove_duplicates,
    prove_order,
    prove_own_order,
    proved_twins,
    rule_out_duplicates,
)


def test_an_order_is_proved_by_what_it_recovers_on_predictions_it_was_not_chosen_on() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    answers = np.where(rng.random(400) < 0.8, (labels + 3) % 10, rng.integers(0, 10, 400))
    found, relabelled = prove_order(look_at_labels(answers, labels, 10), answers, labels, 10)
    assert (found.status, found.code) == ("proved", "permutation-recovers")
    assert relabelled is not None
    assert np.array_equal(relabelled[0], (answers - 3) % 10 == labels)
    assert found.points is not None
    assert found.points.mean == pytest.approx(
        100 * ((answers - 3) % 10 == labels).mean() - 100 * (answers == labels).mean()
    )
    assert found.values["permuted"] == pytest.approx(relabelled.mean())


def test_chance_recovers_nothing() -> None:
    gained, proved = [], 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        labels, answers = rng.integers(0, 50, (2, 400))
        looked = look_at_labels(answers, labels, 50)
        assert looked.status == "suspected"  # the best of all orders looks more than ten points better
        found, relabelled = prove_order(looked, answers, labels, 50)
        assert found.points is not None
        gained.append(found.points.mean)
        proved += found.status == "proved"
        assert (relabelled is not None) == (found.status == "proved")
    assert abs(np.mean(gained)) < 1
    assert proved <= 1  # one in forty, by the interval
    untouched, _ = prove_order(look_at_labels(labels, labels, 50), labels, labels, 50)
    assert (untouched.status, untouched.points) == ("cleared", None)


def test_an_untrained_head_is_not_said_to_have_mixed_up_names() -> None:
    # Each class's images lie together, so an untrained head gives most of them one answer; relabelled, a third is right.
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 10
    favourite = np.array([3, 3, 3, 5, 5, 5, 5, 8, 8, 1])
    answers = np.where(rng.random(600) < 0.7, favourite[labels], rng.integers(0, 10, 600))
    looked = look_at_labels(answers, labels, 10)
    assert prove_order(looked, answers, labels, 10)[0].status == "proved"
    found, relabelled = prove_order(looked, answers, labels, 10, probe=0.9)
    assert (found.status, found.points, found.like, relabelled) == ("suspected", None, (21,), None)
    moved = (labels + 1) % 10
    assert prove_order(look_at_labels(moved, labels, 10), moved, labels, 10, probe=0.95)[0].status == "proved"


def test_predictions_of_another_network_lie_apart() -> None:
    labels = np.arange(400) % 10
    outputs = np.eye(10, dtype=np.float32)[labels]
    kept = (labels + 3) % 10
    seen = look_at_labels(kept, labels, 10)
    found, relabelled = prove_own_order(seen, outputs, kept, labels, 10, 1.0)
    assert (found.status, found.apart, relabelled) == ("proved", True, None)
    found, relabelled = prove_own_order(seen, outputs[:, (np.arange(10) - 3) % 10], kept, labels, 10, 1.0)
    assert (found.status, found.apart) == ("proved", False)
    assert relabelled is not None
    assert relabelled.all()
    assert prove_own_order(seen, None, kept, labels, 10, 1.0)[0].apart


def test_where_nothing_speaks_for_another_order_it_stays() -> None:
    assert np.array_equal(best_meanings(np.zeros((5, 5), np.int64)), np.arange(5))
    confusion = np.zeros((4, 4), np.int64)
    confusion[1, 0], confusion[0, 1] = 9, 9
    assert best_meanings(confusion).tolist() == [1, 0, 2, 3]


def _equal(copied: np.ndarray) -> Twins:
    return Twins(copied, copied, could_be_told=True)


def _alike(copied: np.ndarray) -> Twins:
    return Twins(np.zeros_like(copied), copied, could_be_told=True)


def test_duplicates_flatter_by_the_accuracy_that_goes_without_them() -> None:
    copied = np.arange(400) < 100
    learned = np.where(copied, True, np.arange(400) % 5 < 3)[None]
    for twins, seen_as, proved_as in (
        (_equal(copied), "duplicates-across", "duplicates-flatter"),
        (_alike(copied), "copies-across", "copies-flatter"),
    ):
        seen = look_at_duplicates(twins)
        assert (seen.status, seen.code, seen.values) == ("suspected", seen_as, {"count": 100, "share": 0.25})
        found = prove_duplicates(seen, learned, twins)
        assert (found.status, found.code, found.apart) == ("proved", proved_as, False)
        assert found.points is not None
        assert found.points.mean == pytest.approx(100 * (learned[0, ~copied].mean() - learned.mean()))
        assert found.points.mean == pytest.approx(-10)
        assert found.points.low < -10 < found.points.high < 0
        assert found.values == {"count": 100, "share": 0.25, "accuracy": 0.7, "without": 0.6}


def test_duplicates_that_are_no_easier_do_not_flatter() -> None:
    copied = np.arange(1000) < 40
    alike = (np.arange(1000) % 10 < 9)[None]
    seen = look_at_duplicates(_equal(copied))
    found = prove_duplicates(seen, alike, _equal(copied))
    assert found.status == "cleared"
    assert found.points is not None
    assert found.points.mean == pytest.approx(0, abs=1e-9)
    assert prove_duplicates(seen, alike, _equal(np.zeros(1000, bool))) == seen
    cleared = Finding(16, "cleared", "no-duplicates", {})
    assert prove_duplicates(cleared, alike, _equal(copied)) == cleared


def test_less_than_a_point_counts_only_if_it_is_owed_to_the_same_pixels() -> None:
    """Pictures that are no more than alike may be easier for a reason of their own."""
    copied = np.arange(1000) < 40
    learned = np.where(copied, True, np.arange(1000) % 10 < 9)[None]
    both = Twins(copied, copied | (np.arange(1000) == 998), could_be_told=True)
    found = [
        prove_duplicates(look_at_duplicates(twins), learned, twins) for twins in (_equal(copied), both, _alike(copied))
    ]
    assert [one.status for one in found] == ["proved", "proved", "cleared"]
    assert [one.code for one in found] == ["duplicates-flatter", "duplicates-flatter", "copies-flatter"]
    assert all(one.points is not None and -1 < one.points.mean < one.points.high < 0 for one in found)


def test_a_probe_of_a_part_clears_copies_that_would_add_less_than_a_point_if_it_had_learned_all() -> None:
    images = np.arange(2000)
    twins, learned = _alike(images < 60), _alike(images < 20)
    seen = look_at_duplicates(twins)
    no_easier = np.where(images < 20, images % 10 < 9, images % 10 < 8)[None]
    found = rule_out_duplicates(seen, no_easier, twins, learned)
    assert (found.status, found.code, found.values["learned"]) == ("cleared", "copies-add-little", 20)
    assert found.points is not None
    assert found.points.mean == pytest.approx(-3 * (0.9 - 0.8))  # 3% of the images, easier by 10 points
    assert found.points.low > -1
    far_easier = np.where(images < 20, True, images % 10 < 4)[None]  # would add 1.8 points
    assert rule_out_duplicates(seen, far_easier, twins, learned) == seen
    assert rule_out_duplicates(seen, no_easier, twins, _alike(images < 0)) == seen
    others_are_hard = np.where((images >= 20) & (images < 60), False, no_easier[0])[None]
    assert (
        rule_out_duplicates(seen, others_are_hard, twins, learned).points == found.points
    )  # not learned: says nothing


def test_copies_of_equal_pixels_count_also_where_others_hide_what_they_add() -> None:
    equal = np.arange(1000) < 40
    alike = np.arange(1000) < 60
    learned = np.where(equal, True, np.where(alike, np.arange(1000) % 2 == 0, np.arange(1000) % 10 < 9))[None]
    twins = Twins(equal, alike, could_be_told=True)
    seen = look_at_duplicates(twins)
    found = prove_duplicates(seen, learned, twins)
    assert (seen.code, found.status, found.code) == ("copies-across", "proved", "duplicates-flatter")
    assert found.values["count"] == 40
    assert np.array_equal(proved_twins(found, twins), equal)
    assert np.array_equal(proved_twins(replace(found, code="copies-flatter"), twins), alike)


def test_only_test_images_with_a_copy_in_train_count_as_duplicates() -> None:
    copied = np.zeros(200, bool)
    assert look_at_duplicates(_equal(copied)).code == "no-copies"
    assert look_at_duplicates(replace(_equal(copied), could_be_told=False)).code == "no-duplicates"
    copied[:2] = True
    found = look_at_duplicates(_equal(copied))
    assert (found.status, found.code, found.values) == ("suspected", "duplicates-across", {"count": 2, "share": 0.01})
    copied[1] = False
    assert look_at_duplicates(_equal(copied)).status == "cleared"  # too few to flatter


def test_predictions_that_are_not_the_network_s_are_suspected() -> None:
    labels = np.arange(400) % 10
    own = np.eye(10, dtype=np.float32)[np.where(np.arange(400) % 5 > 0, labels, (labels + 1) % 10)]
    shuffled = np.random.default_rng(0).permutation(own.argmax(1))
    looked = look_at_labels(shuffled, labels, 10)
    assert looked.status == "cleared"
    found, relabelled = prove_own_order(looked, own, shuffled, labels, 10, probe=0.8)
    assert (found.status, found.code, found.apart, relabelled) == ("suspected", "evaluations-disagree", True, None)
    assert found.values == {"accuracy": round(float((shuffled == labels).mean()), 4), "own": 0.8}
    better, _ = prove_own_order(look_at_labels(labels, labels, 10), own, labels, labels, 10, probe=0.8)
    assert better.status == "cleared"  # nothing is lost by predictions that are right more often


@pytest.mark.parametrize(
    ("right", "val", "code"),
    [(0.1, 0.85, "far-below-curve"), (0.8, 0.85, "labels-in-order"), (0.1, None, "labels-in-order")],
)
def test_predictions_far_below_their_curve_are_suspected(right: float, val: float | None, code: str) -> None:
    labels = np.arange(500) % 10
    predicted = np.where(np.arange(500) < 500 * right, labels, np.random.default_rng(0).integers(0, 10, 500))
    found = beside_curve(Finding(15, "cleared", "labels-in-order", {}), predicted, labels, val)
    assert (found.code, found.status) == (code, "suspected" if code == "far-below-curve" else "cleared")
