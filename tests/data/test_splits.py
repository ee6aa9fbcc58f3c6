"""Splits keep shares, respect official parts, and put no image on two sides."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from headstart.data.splits import draw_stratified, evenly_spaced, make_split
from headstart.errors import DataError, UsageError
from headstart.records import Split
from tests.data.making import global_numpy_state, image_set


def parts_of(split: Split) -> list[int]:
    return [*split.train, *split.val, *split.test]


def test_flat_set_by_hand() -> None:
    labels = [0] * 100 + [1] * 50 + [2] * 10
    images = image_set(labels)
    split, duplicates = make_split(images)
    assert np.bincount(images.labels[split.test]).tolist() == [20, 10, 2]
    assert np.bincount(images.labels[split.val]).tolist() == [8, 4, 1]
    assert np.bincount(images.labels[split.train]).tolist() == [72, 36, 7]
    assert sorted(parts_of(split)) == list(range(160))
    assert split.origin == "drawn"
    assert duplicates.groups == 0
    for part in (split.train, split.val, split.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_shares_agree_with_scikit_learn() -> None:
    labels = np.random.default_rng(0).choice(7, size=1000, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.06, 0.04]).tolist()
    images = image_set(labels)
    split, _ = make_split(images, test_fraction=0.25)
    _, theirs = train_test_split(np.arange(1000), test_size=0.25, stratify=labels, random_state=0)
    ours = np.bincount(images.labels[split.test], minlength=7)
    assert np.abs(ours - np.bincount(images.labels[theirs], minlength=7)).max() <= 1
    assert ours.sum() == 250


def test_official_parts_are_kept() -> None:
    parts = [0] * 40 + [2] * 20
    images = image_set([0, 1] * 30, parts=parts)
    split, _ = make_split(images)
    assert split.test.tolist() == list(range(40, 60))
    assert len(split.val) == 4
    assert split.origin == "official"
    with_val = image_set([0, 1] * 30, parts=[0] * 30 + [1] * 10 + [2] * 20)
    split, _ = make_split(with_val)
    assert split.val.tolist() == list(range(30, 40))
    assert split.train.tolist() == list(range(30))


def test_official_val_without_test_draws_test_from_train() -> None:
    split, _ = make_split(image_set([0, 1] * 30, parts=[0] * 50 + [1] * 10))
    assert split.val.tolist() == list(range(50, 60))
    assert len(split.test) == 10
    assert split.test.max() < 50
    assert split.origin == "drawn"


def test_three_images_are_enough_and_two_are_not() -> None:
    images = image_set([0] * 500 + [1] * 3)
    split, _ = make_split(images)
    for part in (split.train, split.val, split.test):
        assert (images.labels[part] == 1).sum() == 1
    with pytest.raises(DataError, match=r"at least 3 of every class.*'class 1' \(2\).*Add images"):
        make_split(image_set([0] * 500 + [1] * 2))


@pytest.mark.parametrize("seed", range(20))
def test_every_class_is_in_every_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(12), rng.integers(3, 40, size=12)).tolist()
    images = image_set(labels)
    split, _ = make_split(images, seed=seed, val_fraction=float(rng.uniform(0.01, 0.6)), test_fraction=0.3)
    for part in (split.train, split.val, split.test):
        assert len(np.unique(images.labels[part])) == 12
    assert sorted(parts_of(split)) == list(range(len(labels)))


def test_seeds() -> None:
    images = image_set([0, 1] * 50)
    state = global_numpy_state()
    first, again, other = (make_split(images, seed=seed)[0] for seed in (3, 3, 4))
    assert parts_of(first) == parts_of(again)
    assert parts_of(first) != parts_of(other)
    assert global_numpy_state() == state


def test_duplicates_across_parts_leave_train_and_val() -> None:
    # train 0..5, val 6..9, test 10..13; copies: 0 of 10 (test), 1 of 6 (val), 2 of 3 (both train), 7 of 11 (test).
    parts = [0] * 6 + [1] * 4 + [2] * 4
    labels = [0, 1] * 7
    images = image_set(labels, parts=parts, same_as={0: 10, 1: 6, 2: 3, 7: 11})
    split, report = make_split(images)
    assert split.removed_duplicates.tolist() == [0, 1, 7]
    assert split.train.tolist() == [2, 3, 4, 5]
    assert split.val.tolist() == [6, 8, 9]
    assert split.test.tolist() == [10, 11, 12, 13]
    assert report.groups == 4
    assert report.across_splits == 3
    assert report.conflicting_labels == 2  # 1 and 6, 2 and 3; 0 and 10 agree, as 7 and 11 do
    assert report.removed
    assert report.examples == (("10", "0"), ("6", "1"), ("11", "7"), ("2", "3"))


def test_duplicates_can_be_kept() -> None:
    images = image_set([0, 1] * 7, parts=[0] * 6 + [1] * 4 + [2] * 4, same_as={0: 10})
    split, report = make_split(images, remove_duplicates=False)
    assert len(split.removed_duplicates) == 0
    assert 0 in split.train
    assert (report.across_splits, report.removed) == (1, False)


def test_a_class_that_duplicates_would_empty() -> None:
    images = image_set([0, 0, 0, 0, 1, 0, 1, 0, 1], parts=[0, 0, 0, 0, 0, 1, 1, 2, 2], same_as={4: 8})
    with pytest.raises(DataError, match=r"every train image of 'class 1' is an exact copy"):
        make_split(images)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_are_checked(fraction: float) -> None:
    with pytest.raises(UsageError, match="val_fraction is"):
        make_split(image_set([0, 1] * 10), val_fraction=fraction)
    with pytest.raises(UsageError, match="test_fraction is"):
        make_split(image_set([0, 1] * 10), test_fraction=fraction)


def test_drawing_is_uniform_within_a_class() -> None:
    labels = np.array([0] * 10 + [1] * 5, dtype=np.int64)
    counts = np.zeros(15)
    for seed in range(2000):
        counts[draw_stratified(labels, 2, 3, np.random.default_rng(seed))] += 1
    # Each of ten is drawn with probability 2/10, each of five with 1/5: 400 expected, standard deviation below 18.
    assert np.abs(counts - 400).max() < 80


def test_sixty_thousand_images_are_divided_exactly() -> None:
    labels = np.repeat(np.arange(10), 6000)
    images = np.zeros((60000, 4, 4, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(60000) % 256, np.arange(60000) // 256
    made = image_set(labels.tolist(), images=images)
    split, _ = make_split(made)
    assert (len(split.train), len(split.val), len(split.test)) == (43200, 4800, 12000)


def test_a_part_that_is_judged_keeps_every_class_share_and_is_always_the_same() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [600, 300, 100]))
    chosen = evenly_spaced(labels, 100)
    assert np.bincount(labels[chosen]).tolist() == pytest.approx([60, 30, 10], abs=1)
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, evenly_spaced(labels, 100))
    assert np.array_equal(evenly_spaced(labels, 1000), np.arange(1000))
