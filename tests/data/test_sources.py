"""What a user may name, what a limit keeps, and what the errors say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from headstart.data.fingerprint import set_fingerprint
from headstart.data.sources import load_images
from headstart.data.splits import make_split
from headstart.errors import UsageError
from headstart.records import ImageSet
from tests.data.making import global_numpy_state, write_images


def test_digits() -> None:
    images = load_images("digits", download=False)
    reference = load_digits()
    assert images.images.shape == (1797, 8, 8, 3)
    assert images.images.dtype == np.uint8
    assert np.array_equal(images.images[..., 0], np.rint(reference.images * 255 / 16))
    assert np.array_equal(images.labels, reference.target)
    assert images.class_names == tuple("0123456789")
    assert images.mirror_safe is False
    assert images.official_part is None
    assert images.fingerprint == set_fingerprint(images.images, images.labels, images.class_names, None)


def test_a_folder_and_an_npz_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "digits" / "a", 3)
    write_images(tmp_path / "digits" / "b", 3, first_seed=5)
    np.savez(tmp_path / "tiny.npz", X=np.zeros((4, 8, 8), np.uint8), y=[0, 1, 0, 1])
    monkeypatch.chdir(tmp_path)
    assert len(load_images("./digits").labels) == 6
    assert len(load_images("digits").labels) == 1797
    images = load_images("tiny.npz")
    assert (images.name, images.source) == ("tiny", "tiny.npz")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_images("~/digits").labels) == 6


def test_unknown_sources_get_suggestions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    (tmp_path / "set.zip").write_bytes(b"PK")
    for source, words in (
        ("cifar-10", "Did you mean cifar10"),
        ("digit", "Did you mean digits"),
        ("flower", "Did you mean flowers"),
        (str(tmp_path / "flowrs"), f"Did you mean {tmp_path / 'flowers'}"),
        ("qqqqqq", "There is no data set 'qqqqqq' here. Expected `digits`"),
        ("", "There is no data set '' here"),
        ("a\0b", "There is no data set"),
        ("nowhere/at/all", "Expected `digits`"),
        ("set.zip", "unpack it and name the folder"),
    ):
        with pytest.raises(UsageError) as caught:
            load_images(source)
        assert words in str(caught.value)
        assert caught.value.exit_code == 2


def classes(images: ImageSet, part: int | None = None) -> list[int]:
    labels = images.labels if part is None else images.labels[images.official_part == part]
    return [int(count) for count in np.bincount(labels, minlength=len(images.class_names))]


def test_a_limit_keeps_shares() -> None:
    whole = load_images("digits")
    limited = load_images("digits", limit=200)
    assert len(limited.labels) == 200
    assert np.abs(np.array(classes(limited)) - np.array(classes(whole)) * 200 / 1797).max() <= 1
    assert limited.fingerprint != whole.fingerprint
    assert limited.fingerprint == set_fingerprint(limited.images, limited.labels, limited.class_names, None)
    positions = [int(np.flatnonzero(whole.image_hashes == digest)[0]) for digest in limited.image_hashes]
    assert len(set(limited.image_hashes)) == 200
    assert positions == sorted(positions)
    make_split(limited)


def test_a_limit_is_drawn_by_its_seed() -> None:
    state = global_numpy_state()
    first, again, other = (load_images("digits", limit=50, seed=seed).fingerprint for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert global_numpy_state() == state


def test_a_limit_above_the_number_of_images_changes_nothing() -> None:
    assert load_images("digits", limit=5000).fingerprint == load_images("digits").fingerprint


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_must_be_positive(limit: int) -> None:
    with pytest.raises(UsageError, match="expected a number of images"):
        load_images("digits", limit=limit)


def test_a_limit_too_small_for_the_classes() -> None:
    with pytest.raises(UsageError, match=r"10 classes of digits need at least 30 images"):
        load_images("digits", limit=29)
    make_split(load_images("digits", limit=30))


def test_a_limit_with_official_parts(tmp_path: Path) -> None:
    for position, (part, counts) in enumerate({"train": (40, 20), "val": (8, 4), "test": (40, 20)}.items()):
        for offset, (name, count) in enumerate(zip("ab", counts, strict=True)):
            write_images(tmp_path / part / name, count, first_seed=1000 * position + 100 * offset, size=4)
    limited = load_images(str(tmp_path), limit=36)
    assert [classes(limited, part) for part in (0, 1, 2)] == [[20, 10], [4, 2], [24, 12]]
    assert len(limited.paths) == len(limited.labels) == 72
    make_split(limited)
    fewer = load_images(str(tmp_path), limit=65)
    assert [classes(fewer, part) for part in (0, 1, 2)] == [[36, 18], [7, 4], [40, 20]]


def test_reading_data_does_not_import_torch() -> None:
    modules = "sources, folder, decode, cache, splits, audit, npz, cifar"
    code = f"import sys; from headstart.data import {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
