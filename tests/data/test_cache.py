"""Decoded once: a second run decodes nothing, a changed file is noticed, a damaged cache is made again."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import folder as folder_module
from headstart.data.cache import ImageWriter, SeenFile, listing_signature
from headstart.data.decode import Decoded
from headstart.data.folder import load_folder
from headstart.errors import DataError
from headstart.records import ImageSet
from tests.data.making import noise, write_images


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    write_images(tmp_path / "pets" / "cat", 5)
    write_images(tmp_path / "pets" / "dog", 5, first_seed=10)
    (tmp_path / "pets" / "dog" / "bad.png").write_bytes(b"")
    return tmp_path / "pets"


def load(folder: Path) -> ImageSet:
    return load_folder(folder, source=str(folder))


def same(first: ImageSet, second: ImageSet) -> bool:
    return (
        np.array_equal(first.images, second.images)
        and np.array_equal(first.labels, second.labels)
        and np.array_equal(first.image_hashes, second.image_hashes)
        and all(
            getattr(first, name) == getattr(second, name)
            for name in (
                "class_names",
                "fingerprint",
                "paths",
                "left_out",
                "converted",
                "original_sizes",
                "source",
                "name",
            )
        )
    )


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> Decoded:
        raise AssertionError(f"{path} was opened again")

    monkeypatch.setattr(folder_module, "decode_file", refuse)
    monkeypatch.setattr(folder_module, "read_size", refuse)


def test_a_second_run_decodes_nothing(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(pets)
    forbid_decoding(monkeypatch)
    second = load(pets)
    assert same(first, second)
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert second.image_hashes.dtype == np.dtype("<U32")


def test_a_changed_or_new_file_is_noticed(pets: Path) -> None:
    first = load(pets)
    Image.fromarray(noise(99)).save(pets / "cat" / "000.png")
    second = load(pets)
    assert second.fingerprint != first.fingerprint
    write_images(pets / "dog", 6, first_seed=10)
    assert len(load(pets).labels) == 11


def test_equal_size_and_time_are_not_enough_to_be_the_same(pets: Path) -> None:
    path = pets / "cat" / "000.png"
    seen = path.stat()
    first = load(pets)
    data = path.read_bytes()
    other = pets / "cat" / "001.png"
    replacement = other.read_bytes()
    size = max(len(data), len(replacement))
    path.write_bytes(replacement.ljust(size, b"\0")[: max(len(replacement), len(data))])
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert load(pets).fingerprint != first.fingerprint


def test_two_folders_with_the_same_content_share_pixels(pets: Path, tmp_path: Path, cache: Path) -> None:
    first = load(pets)
    copy = tmp_path / "copy"
    for name in ("cat", "dog"):
        (copy / name).mkdir(parents=True)
        for path in (pets / name).iterdir():
            (copy / name / f"renamed-{path.name}").write_bytes(path.read_bytes())
    second = load(copy)
    assert second.fingerprint == first.fingerprint
    assert second.paths[0] == "cat/renamed-000.png"
    assert load(pets).paths[0] == "cat/000.png"
    assert len([path for path in (cache / "images").iterdir() if len(path.name) == 64]) == 1


@pytest.mark.parametrize(
    "damage", ["pixels", "short", "gone", "header", "listing", "labels", "empty listing", "layout"]
)
def test_a_damaged_cache_is_made_again(pets: Path, cache: Path, damage: str) -> None:
    first = load(pets)
    before = np.array(first.images)
    pixels = cache / "images" / first.fingerprint / "images.npy"
    (listing,) = (cache / "images" / "listings").glob("*.json")
    data = bytearray(pixels.read_bytes())
    told = json.loads(listing.read_text())
    if damage == "pixels":
        data[-100] ^= 255
        pixels.unlink()
        pixels.write_bytes(data)
    elif damage == "short":
        pixels.unlink()
        pixels.write_bytes(data[:-100])
    elif damage == "gone":
        pixels.unlink()
    elif damage == "header":
        pixels.unlink()
        pixels.write_bytes(b"not an array" * 100)
    elif damage == "listing":
        listing.write_text(listing.read_text()[:100])
    elif damage == "empty listing":
        listing.write_text("[]")
    elif damage == "layout":
        listing.write_text(json.dumps(told | {"layout_version": 0}))
    else:
        listing.write_text(json.dumps(told | {"labels": [0]}))
    again = load(pets)
    assert np.array_equal(again.images, before)
    assert again.fingerprint == first.fingerprint
    assert same(again, load(pets))


def test_what_a_killed_run_left_is_cleared(pets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(path: Path) -> Decoded:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "decode_file", die)
        with pytest.raises(KeyboardInterrupt):
            load(pets)
    assert not list((cache / "images").glob(".building-*"))
    assert not list((cache / "images" / "listings").glob("*.json"))
    assert len(load(pets).labels) == 10


def test_a_full_disk_is_an_error_that_says_what_to_do(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: ImageWriter, images: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ImageWriter, "append", full)
    with pytest.raises(DataError, match=r"No space left on device.*HEADSTART_CACHE"):
        load(pets)


def test_a_cache_that_cannot_be_written(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="HEADSTART_CACHE"):
        load(pets)


def test_signatures() -> None:
    file = SeenFile("a/b.png", 10, 20, 30)
    signature = listing_signature([file], "folder")
    assert signature == listing_signature([SeenFile("a/b.png", 10, 20, 30)], "folder")
    others = [
        listing_signature([SeenFile("a/c.png", 10, 20, 30)], "folder"),
        listing_signature([SeenFile("a/b.png", 11, 20, 30)], "folder"),
        listing_signature([SeenFile("a/b.png", 10, 21, 30)], "folder"),
        listing_signature([SeenFile("a/b.png", 10, 20, 31)], "folder"),
        listing_signature([file], "other"),
        listing_signature([], "folder"),
    ]
    assert len({signature, *others}) == 7


@pytest.mark.parametrize(("count", "most"), [(0, 3), (3, 3), (9, 1_000_000_000)])
def test_written_images_are_what_numpy_reads(tmp_path: Path, count: int, most: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    with ImageWriter(tmp_path / "images.npy", 5, most) as writer:
        for image in images:
            writer.append(image)
    assert np.array_equal(np.load(tmp_path / "images.npy"), images)
