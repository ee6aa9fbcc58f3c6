"""Folders as people have them: their layouts, their files, and the errors that explain what is wrong."""

import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import folder as folder_module
from headstart.data.decode import read_size
from headstart.data.folder import choose_canvas, load_folder, scan_folder
from headstart.errors import DataError
from headstart.records import ImageSet
from tests.data.making import noise, write_images


def load(folder: Path) -> ImageSet:
    return load_folder(folder, source=str(folder))


def snapshot(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_a_flat_folder(tmp_path: Path) -> None:
    write_images(tmp_path / "pets" / "dog", 3)
    write_images(tmp_path / "pets" / "cat", 4, first_seed=10)
    images = load(tmp_path / "pets")
    assert images.name == "pets"
    assert images.source == str(tmp_path / "pets")
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert images.official_part is None
    assert images.images.shape == (7, 16, 16, 3)
    assert images.images.dtype == np.uint8
    assert np.array_equal(images.images[4], noise(0))
    assert images.paths[0] == "cat/000.png"
    assert images.mirror_safe is None
    assert [(size.width, size.height, size.count) for size in images.original_sizes] == [(16, 16, 7)]
    assert images.canvas == 16


@pytest.mark.parametrize("val_name", ["val", "valid", "validation", "Validation"])
def test_official_parts(tmp_path: Path, val_name: str) -> None:
    for position, part in enumerate(("test", "train", val_name)):
        for offset, name in enumerate(("a", "b")):
            write_images(tmp_path / part / name, 2, first_seed=10 * position + 5 * offset)
    images = load(tmp_path)
    assert images.official_part is not None
    assert images.official_part.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert images.labels.tolist() == [0, 0, 1, 1] * 3
    assert images.paths[0] == "train/a/000.png"


def test_files_in_deeper_folders_litter_and_links(tmp_path: Path) -> None:
    write_images(tmp_path / "a" / "2021" / "x.jpg", 2)  # a folder with the name of a file
    write_images(tmp_path / "elsewhere", 2, first_seed=5)
    write_images(tmp_path / "data" / ".ipynb_checkpoints", 2)
    write_images(tmp_path / "data" / "b", 1, first_seed=9)
    (tmp_path / "a").rename(tmp_path / "data" / "a")
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "circle").symlink_to(tmp_path / "data" / "a")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png"):
        (tmp_path / "data" / "a" / name).write_bytes(b"litter")
    (tmp_path / "data" / "labels.csv").write_text("x")
    images = load(tmp_path / "data")
    assert images.class_names == ("a", "b", "c")
    assert images.paths == ("a/2021/x.jpg/000.png", "a/2021/x.jpg/001.png", "b/000.png", "c/000.png", "c/001.png")
    assert [(file.path, file.reason) for file in images.left_out] == [("labels.csv", "unsupported")]
    assert "no class" in images.left_out[0].detail


def test_names_keep_their_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "ñandú"), unicodedata.normalize("NFD", "ñandú")
    for name in (composed, decomposed, "猫", "a b"):
        write_images(tmp_path / name, 1)
    found = load(tmp_path).class_names
    assert found == tuple(sorted([composed, decomposed, "猫", "a b"]))
    assert len(set(found)) == 4


def test_a_name_that_is_no_text_can_be_stored(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2)
    try:
        os.rename(os.fsencode(tmp_path / "b" / "000.png"), os.fsencode(tmp_path / "b") + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    images = load(tmp_path)
    assert images.paths[3] == "b/\\xff.png"
    assert [path.encode() for path in load(tmp_path).paths] == [path.encode() for path in images.paths]


def test_forty_good_and_twelve_bad_files(tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    for seed, name in enumerate(("a", "b")):
        write_images(root / name, 20, first_seed=100 * seed, size=32)
    odd = root / "a"
    (odd / "empty.png").write_bytes(b"")
    Image.fromarray(noise(1, 64, 64)).save(odd / "whole.jpg", quality=95)
    whole = (odd / "whole.jpg").read_bytes()
    (odd / "whole.jpg").unlink()
    (odd / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (odd / "text.jpg").write_text("not an image at all")
    Image.fromarray(noise(2, 32, 32)).convert("CMYK").save(odd / "cmyk.jpg")
    Image.fromarray(noise(3, 32, 32, 1).astype(np.uint16) * 257).save(odd / "sixteen.png")
    Image.fromarray(noise(4, 32, 32)).quantize(4).save(odd / "palette.png", transparency=bytes([0, 255, 255, 255]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(5, 32, 40)).save(odd / "rotated.jpg", exif=exif)
    Image.fromarray(noise(6, 1, 1)).save(odd / "dot.png")
    Image.fromarray(noise(7, 1, 5000)).save(odd / "line.png")
    frames = [Image.fromarray(noise(seed, 32, 32)) for seed in (8, 9)]
    frames[0].save(odd / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(noise(10, 32, 32)).save(odd / "wrong.jpg", "PNG")
    (odd / "dangling.png").symlink_to(odd / "nowhere.png")
    before = snapshot(root)

    images = load(root)

    assert {file.path: file.reason for file in images.left_out} == {
        "a/empty.png": "empty",
        "a/truncated.jpg": "truncated",
        "a/text.jpg": "not-an-image",
        "a/dot.png": "too-small",
        "a/line.png": "too-small",
        "a/dangling.png": "unreadable",
    }
    assert {kind.conversion: (kind.count, kind.examples) for kind in images.converted} == {
        "cmyk": (1, ("a/cmyk.jpg",)),
        "16-bit": (1, ("a/sixteen.png",)),
        "grayscale": (1, ("a/sixteen.png",)),
        "palette": (2, ("a/moving.gif", "a/palette.png")),
        "alpha": (1, ("a/palette.png",)),
        "exif-rotated": (1, ("a/rotated.jpg",)),
        "first-frame": (1, ("a/moving.gif",)),
        "wrong-extension": (1, ("a/wrong.jpg",)),
    }
    assert len(images.labels) == 46
    assert images.canvas == 32
    sizes = {(size.width, size.height): size.count for size in images.original_sizes}
    assert sizes == {(32, 32): 45, (32, 40): 1}
    assert str(tmp_path) not in "".join(file.detail for file in images.left_out)
    assert snapshot(root) == before


def test_the_order_of_results_does_not_depend_on_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "pets" / "a", 60)
    write_images(tmp_path / "pets" / "b", 60, first_seed=100)
    fingerprints = set()
    for count in (1, 7):
        monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / f"cache{count}"))
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        fingerprints.add(load(tmp_path / "pets").fingerprint)
    assert len(fingerprints) == 1


def test_progress_counts_every_file_once(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 50)
    write_images(tmp_path / "b", 50)
    seen: list[tuple[int, int]] = []
    load_folder(tmp_path, source="x", progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (100, 100)


def test_a_damaged_file_does_not_decide_the_canvas(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(noise(1, 20, 20)).save(tmp_path / name / "one.png")
        Image.fromarray(noise(2, 28, 28)).save(tmp_path / name / "two.png")
        for index in range(4):
            Image.fromarray(noise(3, 100, 100)).save(tmp_path / name / f"{index}.jpg")
            data = (tmp_path / name / f"{index}.jpg").read_bytes()
            (tmp_path / name / f"{index}.jpg").write_bytes(data[:1000])
    images = load(tmp_path)
    assert len(images.labels) == 4
    assert images.canvas == choose_canvas([(20, 20), (28, 28)] * 2)


@pytest.mark.parametrize("many", [2, 100])
def test_processes_decode_with_the_settings_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    for seed, name in enumerate(("a", "b")):
        write_images(tmp_path / name, 3, first_seed=10 * seed)
    path = tmp_path / "a" / "000.png"
    path.write_bytes(path.read_bytes()[:-40])
    monkeypatch.setattr("headstart.data.folder._MANY", many)
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    assert len(load(tmp_path).labels) == 6


@pytest.mark.parametrize("others", [3, 9])
def test_all_sides_decide_the_canvas_whatever_those_looked_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr("headstart.data.folder._FEW", 2)
    sides = [20] * 6 + [28] * others
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index, side in enumerate(sides):
            Image.fromarray(noise(index, side, side)).save(tmp_path / name / f"{index:02}.png")
    asked: list[str] = []

    def noted(path: Path) -> tuple[int, int]:
        asked.append(path.name)
        return read_size(path)

    monkeypatch.setattr("headstart.data.folder.read_size", noted)
    images = load(tmp_path)
    assert asked == ["00.png", "00.png"]
    assert images.canvas == choose_canvas([(side, side) for side in sides])
    assert {size.width: size.count for size in images.original_sizes} == {20: 12, 28: 2 * others}


@pytest.mark.parametrize(
    ("sizes", "canvas"),
    [
        ([(32, 32)] * 5, 32),
        ([(8, 8)] * 5, 8),
        ([(28, 28)] * 5 + [(300, 300)], 28),
        ([(500, 375), (640, 480), (333, 500)], 256),
        ([(300, 300)] * 3, 256),
        ([(60, 90), (61, 70), (70, 66)], 64),
        ([(59, 90), (60, 90), (61, 70)], 56),
        ([(5, 9), (6, 7), (4, 30)], 8),
    ],
)
def test_canvas(sizes: list[tuple[int, int]], canvas: int) -> None:
    assert choose_canvas(sizes) == canvas


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(folder)
    return str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "holds nothing" in refused(tmp_path)
    assert "DIR/<class>/" in refused(tmp_path)


def test_files_without_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    assert "holds 3 files but no folders" in refused(tmp_path)


def test_only_one_class(tmp_path: Path) -> None:
    write_images(tmp_path / "pets" / "cat", 3)
    assert "only one class, 'cat'" in refused(tmp_path / "pets")
    write_images(tmp_path / "pets" / "cat" / "inner", 3)
    assert f"Did you mean {tmp_path / 'pets' / 'cat'}?" in refused(tmp_path / "pets")


def test_a_class_of_test_that_train_has_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "train" / name, 3)
    write_images(tmp_path / "test" / "c", 3)
    message = refused(tmp_path)
    assert "test has the classes 'c', which train has not" in message


def test_a_class_folder_without_files(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 3)
    (tmp_path / "b").mkdir()
    assert "class folders 'b' hold no files" in refused(tmp_path)


def test_a_class_without_a_usable_image(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 3)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jpg").write_bytes(b"")
    (tmp_path / "b" / "2.jpg").write_text("text")
    message = refused(tmp_path)
    assert "none of the 2 files of class 'b' can be used (1 empty, 1 not-an-image" in message
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(b"")
    assert "none of the 3 files of class 'a' can be used (3 empty" in refused(tmp_path)


def test_parts_without_class_folders_are_not_two_classes(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_images(tmp_path / part, 2)
    said = refused(tmp_path)
    assert "no class folders" in said
    assert f"{tmp_path / 'test'}/<class>/" in said


def test_a_link_to_itself_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / name, 2)
    (tmp_path / "a" / "loop.png").symlink_to(tmp_path / "a" / "loop.png")
    loaded = load(tmp_path)
    assert len(loaded.labels) == 4
    assert [file.path for file in loaded.left_out] == ["a/loop.png"]


def test_parts_mixed_with_other_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "train" / "a", 1)
    write_images(tmp_path / "extra" / "a", 1)
    assert "holds 'train' with folders inside" in refused(tmp_path)


def test_parts_without_train_and_parts_twice(tmp_path: Path) -> None:
    write_images(tmp_path / "test" / "a", 1)
    assert "no train folder" in refused(tmp_path)
    write_images(tmp_path / "train" / "a", 1)
    write_images(tmp_path / "val" / "a", 1)
    write_images(tmp_path / "valid" / "a", 1)
    assert "'val' and 'valid', which both mean val" in refused(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path / "train", 2)
    write_images(tmp_path / "bicycle", 2, first_seed=5)
    assert scan_folder(tmp_path).class_names == ("bicycle", "train")


def test_scanning_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "a", 2)
    write_images(tmp_path / "b", 2)
    monkeypatch.setattr(folder_module, "decode_file", None)
    monkeypatch.setattr(folder_module, "read_size", None)
    assert len(scan_folder(tmp_path).files) == 4
