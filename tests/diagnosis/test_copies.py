"""Copies of test images among the others: which count, and the file that names them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.data.fingerprint import image_hashes
from headstart.data.sources import load_images
from headstart.diagnosis.copies import COPIES, Copies, every_other, write_copies
from headstart.records import ImageSet, Split
from tests.data.test_near_duplicates import compressed, scenes
from tests.diagnosis.test_diagnose import right
from tests.diagnosis.test_prove_training import IMAGES
from tests.models.factory import bundled_backbone

NONE = np.zeros(0, np.int64)


def image_set() -> ImageSet:
    """Pictures of which the places from 100 are test: two exact copies, a compressed one, one of a removed duplicate."""
    pixels = scenes(120)
    pixels[100], pixels[101] = pixels[7], pixels[50]
    pixels[102] = compressed(pixels[20], 32)
    labels = np.arange(120) % 2
    return replace(
        IMAGES, images=pixels, labels=labels, class_names=("a", "b"), paths=(), image_hashes=image_hashes(pixels)
    )


SPLIT = Split(np.arange(40), np.arange(60, 100), np.arange(100, 120), 0, "drawn", np.arange(40, 60))


def test_a_twin_has_the_same_pixels_or_is_the_same_picture() -> None:
    copies = Copies.sought(image_set(), SPLIT, every_other(SPLIT))
    found = copies.twins(SPLIT.test, every_other(SPLIT))
    assert np.flatnonzero(found.alike).tolist() == [0, 1, 2]
    assert np.flatnonzero(found.equal).tolist() == [0, 1]
    assert (found.are_equal, found.could_be_told) == (False, True)
    assert np.flatnonzero(copies.twins(SPLIT.test, SPLIT.train).alike).tolist() == [0, 2]  # 50 was taken out
    assert copies.twins(SPLIT.test[:2], every_other(SPLIT)).are_equal
    assert copies.pairs == [(100, 7, True), (101, 50, True), (102, 20, False)]
    assert Copies.sought(image_set(), SPLIT, SPLIT.train).pairs == [(100, 7, True), (102, 20, False)]


def test_of_blank_images_no_more_than_fifty_copies_are_named() -> None:
    pixels = np.zeros((200, 32, 32, 3), np.uint8)
    images = replace(image_set(), images=pixels, labels=np.zeros(200, np.int64), image_hashes=image_hashes(pixels))
    split = Split(np.arange(180), NONE, np.arange(180, 200), 0, "drawn", NONE)
    copies = Copies.sought(images, split, split.train)
    assert len(copies.pairs) == 20 * 50
    assert copies.twins(split.test, split.train).alike.all()


def test_where_pictures_are_too_much_alike_the_same_pixels_alone_count() -> None:
    digits = load_images("digits", limit=60)
    pixels = digits.images.copy()
    pixels[50:53] = pixels[:3]
    pixels[53] = pixels[6]
    pixels[53, 0, 0, 0] ^= 1
    images = replace(digits, images=pixels, image_hashes=image_hashes(pixels))
    split = Split(np.arange(40), np.arange(40, 50), np.arange(50, 60), 0, "drawn", NONE)
    copies = Copies.sought(images, split, split.train)
    found = copies.twins(split.test, split.train)
    assert not found.could_be_told
    assert found.alike.tolist() == [True] * 3 + [False] * 7


def test_the_file_names_every_pair_by_path_or_by_place(tmp_path: Path) -> None:
    images = image_set()
    write_copies(tmp_path, Copies.sought(images, SPLIT, SPLIT.train))
    lines = (tmp_path / COPIES).read_text(encoding="utf-8").splitlines()
    assert lines == ["test_image,training_image,same_pixels", "100,7,yes", "102,20,no"]
    named = replace(images, paths=tuple(f"perro, año/{place}.png" for place in range(120)))
    write_copies(tmp_path, Copies.sought(named, SPLIT, SPLIT.train))
    lines = (tmp_path / COPIES).read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ['"perro, año/100.png","perro, año/7.png",yes', '"perro, año/102.png","perro, año/20.png",no']
    write_copies(tmp_path, Copies.sought(images, replace(SPLIT, test=np.arange(110, 120)), SPLIT.train))
    assert not (tmp_path / COPIES).exists()
    write_copies(tmp_path, None)
    assert not (tmp_path / COPIES).exists()


def test_predictions_that_know_compressed_copies_by_heart_are_flattered(tmp_path: Path) -> None:
    count = 400
    pixels, rng = scenes(2 * count), np.random.default_rng(0)
    test = np.arange(count, 2 * count)
    copied = test[::4]
    for place in copied:
        pixels[place] = compressed(pixels[place - count], 32)
    labels = np.arange(2 * count) % 2
    data = tmp_path / "scenes.npz"
    np.savez(data, X=pixels, y=labels, part=np.repeat(["train", "test"], count))
    right = np.where(np.isin(test, copied), True, rng.random(count) < 0.6)
    predicted = np.where(right, labels[test], 1 - labels[test])
    found = headstart.diagnose(data, predictions=predicted, runs=tmp_path, language="en")
    cause = next(one for one in found.causes if one["id"] == 16)
    assert (cause["status"], cause["evidence"]["code"]) == ("proved", "copies-flatter")
    assert cause["evidence"]["values"]["count"] == len(copied)
    assert cause["evidence"]["values"]["without"] == round(float(right[~np.isin(test, copied)].mean()), 4)
    assert found.record["accuracy"]["repaired"] == cause["evidence"]["values"]["without"]
    lines = (found.folder / COPIES).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(copied)
    assert found.record["repair"]["copies"] == COPIES
    assert COPIES in (found.folder / "report.html").read_text(encoding="utf-8")


def test_a_network_without_a_head_is_judged_by_the_copies_that_its_probe_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 400
    pixels = scenes(2 * count)
    copied = np.arange(count, 2 * count)[::80]  # so few that they add less than a point, whatever they are easier by
    for place in copied:
        pixels[place] = compressed(pixels[place - count], 32)
    data = tmp_path / "scenes.npz"
    np.savez(data, X=pixels, y=np.arange(2 * count) % 2, part=np.repeat(["train", "test"], count))
    monkeypatch.setattr("headstart.diagnosis.judging._MOST_LABELS", 250)
    found = headstart.diagnose(bundled_backbone(), data, preprocess=right, runs=tmp_path, language="en")
    cause = next(one for one in found.causes if one["id"] == 16)
    assert (cause["status"], cause["evidence"]["code"]) == ("cleared", "copies-add-little")
    values = cause["evidence"]["values"]
    assert 0 < values["learned"] < values["count"] <= len(copied)  # of some the original is in val


def test_where_there_are_no_copies_no_file_of_them_is_spoken_of(tmp_path: Path) -> None:
    pixels, labels = scenes(200), np.arange(200) % 2
    data = tmp_path / "scenes.npz"
    np.savez(data, X=pixels, y=labels, part=np.repeat(["train", "test"], 100))
    curve = {"loss": [0.7, 0.6], "accuracy": [0.5, 0.6], "val_loss": [0.7, 0.6], "val_accuracy": [0.5, 0.6]}
    for given in ({"predictions": labels[100:]}, {"history": curve}):
        found = headstart.diagnose(data, runs=tmp_path, language="en", **given)
        assert found.record["repair"]["copies"] is None
        assert not (found.folder / COPIES).exists()
        assert COPIES not in (found.folder / "report.html").read_text(encoding="utf-8")
