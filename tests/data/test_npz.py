"""Arrays are taken only if they can mean one thing."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from headstart.data.npz import load_npz
from headstart.data.splits import TEST, TRAIN, VAL
from headstart.errors import DataError
from headstart.records import ImageSet
from tests.data.making import noise

GRAY = np.stack([noise(seed, 8, 8, 1) for seed in range(6)])
COLOUR = np.stack([noise(seed, 8, 8) for seed in range(6)])
Y = [0, 1, 2, 0, 1, 2]


def load(folder: Path, **arrays: npt.ArrayLike) -> ImageSet:
    np.savez(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    return load_npz(folder / "set.npz", source="set.npz")


def refused(folder: Path, **arrays: npt.ArrayLike) -> str:
    with pytest.raises(DataError) as caught:
        load(folder, **arrays)
    return str(caught.value)


def test_shapes(tmp_path: Path) -> None:
    assert np.array_equal(load(tmp_path, X=COLOUR, y=Y).images, COLOUR)
    for gray in (GRAY, GRAY[..., None]):
        images = load(tmp_path, X=gray, y=Y)
        assert np.array_equal(images.images, np.stack([GRAY] * 3, axis=3))
        assert [(kind.conversion, kind.count) for kind in images.converted] == [("grayscale", 6)]
    opaque = np.concatenate([COLOUR, np.full((6, 8, 8, 1), 255, np.uint8)], axis=3)
    assert np.array_equal(load(tmp_path, X=opaque, y=Y).images, COLOUR)
    clear = np.concatenate([COLOUR, np.zeros((6, 8, 8, 1), np.uint8)], axis=3)
    assert (load(tmp_path, X=clear, y=Y).images == 255).all()


def test_oblong_and_large_images_go_to_the_canvas(tmp_path: Path) -> None:
    images = load(tmp_path, X=np.stack([noise(seed, 20, 12) for seed in range(6)]), y=Y)
    assert images.images.shape == (6, 12, 12, 3)
    assert [(size.width, size.height, size.count) for size in images.original_sizes] == [(12, 20, 6)]
    assert load(tmp_path, X=np.zeros((6, 300, 300), np.uint8), y=Y).canvas == 256


def test_other_types_that_mean_one_thing(tmp_path: Path) -> None:
    for values in (COLOUR / 255, COLOUR.astype(np.float32), COLOUR.astype(np.int64), (COLOUR / 255).astype(np.float32)):
        assert np.array_equal(load(tmp_path, X=values, y=Y).images, COLOUR)
    assert np.array_equal(load(tmp_path, X=GRAY > 127, y=Y).images[..., 0], (GRAY > 127) * 255)


@pytest.mark.parametrize(
    "values",
    [GRAY / 255 * 16, GRAY / 127.5 - 1, GRAY.astype(np.uint16) * 257, GRAY / 255 * 1.01, (GRAY > 127).astype(np.int64)],
)
def test_values_that_could_mean_two_things(tmp_path: Path, values: npt.NDArray[np.generic]) -> None:
    assert "could mean more than one thing" in refused(tmp_path, X=values, y=Y)


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    assert "could mean more than one thing" in refused(tmp_path, X=np.full((6, 8, 8), np.nan), y=Y)
    assert "X is of type" in refused(tmp_path, X=np.full((6, 8, 8), "a"), y=Y)


def test_labels(tmp_path: Path) -> None:
    assert load(tmp_path, X=COLOUR, y=[5, 5, -1, 5, 7, 7]).class_names == ("-1", "5", "7")
    texts = load(tmp_path, X=COLOUR, y=["cat", "ñandú", "cat", "cat", "ñandú", "cat"])
    assert texts.class_names == ("cat", "ñandú")
    assert texts.labels.tolist() == [0, 1, 0, 0, 1, 0]
    assert texts.labels.dtype == np.int64
    named = load(tmp_path, X=COLOUR, y=np.array(Y)[:, None].astype(np.uint8), class_names=["z", "a", "m"])
    assert named.class_names == ("z", "a", "m")
    assert named.labels.tolist() == Y
    ordered = load(tmp_path, X=COLOUR, y=["a", "b"] * 3, class_names=["b", "a"])
    assert ordered.labels.tolist() == [1, 0] * 3
    assert load(tmp_path, X=COLOUR, y=np.array([b"a", b"b"] * 3)).class_names == ("a", "b")


def test_errors_say_what_was_expected(tmp_path: Path) -> None:
    assert "has no array y; it has X" in refused(tmp_path, X=COLOUR)
    assert "has no array X and no array y; it has images" in refused(tmp_path, images=COLOUR)
    assert "X has 6 images and y has 5 labels" in refused(tmp_path, X=COLOUR, y=Y[:5])
    assert "numpy.moveaxis(X, 1, -1)" in refused(tmp_path, X=np.moveaxis(COLOUR, -1, 1), y=Y)
    assert "X has shape (6, 192)" in refused(tmp_path, X=COLOUR.reshape(6, -1), y=Y)
    assert "at least 4 on each side" in refused(tmp_path, X=COLOUR[:, :3], y=Y)
    assert "X has no images" in refused(tmp_path, X=COLOUR[:0], y=[])
    assert "only one class, 3" in refused(tmp_path, X=COLOUR, y=[3] * 6)
    assert "y has shape (6,) and type float64" in refused(tmp_path, X=COLOUR, y=np.array(Y) / 2)
    assert "y goes from 0 to 2, but class_names has 2 names" in refused(tmp_path, X=COLOUR, y=Y, class_names=["a", "b"])
    assert "class 'd' of class_names has no image" in refused(tmp_path, X=COLOUR, y=Y, class_names=list("abcd"))
    assert "'b', which is not in class_names" in refused(tmp_path, X=COLOUR, y=["a", "b"] * 3, class_names=["a", "c"])
    assert "names a class twice" in refused(tmp_path, X=COLOUR, y=Y, class_names=["a", "a", "b"])


def test_parts_of_its_own(tmp_path: Path) -> None:
    parts = ["train", "train", "test", "val", "test", "train"]
    images = load(tmp_path, X=COLOUR, y=Y, part=parts)
    assert images.official_part is not None
    assert images.official_part.tolist() == [TRAIN, TRAIN, TEST, VAL, TEST, TRAIN]
    assert images.fingerprint != load(tmp_path, X=COLOUR, y=Y).fingerprint
    assert "part has 'Test'" in refused(tmp_path, X=COLOUR, y=Y, part=["Test", *parts[1:]])
    assert "for each of the 6 images" in refused(tmp_path, X=COLOUR, y=Y, part=parts[1:])
    assert "for each of the 6 images" in refused(tmp_path, X=COLOUR, y=Y, part=[0, 0, 2, 1, 2, 0])


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    assert "because they could run code" in refused(tmp_path, X=COLOUR, y=np.array(["a", None] * 3, dtype=object))


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    for content in (b"", b"text", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as \.npz.*numpy\.savez"):
            load_npz(path, source="set.npz")
