"""Near duplicates: the same picture is found after resizing, compression and mirroring; another picture is not, be it much alike."""

import io

import numpy as np
from PIL import Image

from headstart.data.near_duplicates import SIMILAR, find_near_duplicates, find_same_pictures
from headstart.data.sources import load_images


def scene(seed: int, side: int) -> np.ndarray:
    """A picture of blurred patches: neighbouring pixels resemble each other, as in a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def compressed(pixels: np.ndarray, side: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream).convert("RGB"))


def test_finds_the_same_picture_resized_compressed_mirrored_or_darker() -> None:
    others = np.stack([scene(seed, 64) for seed in range(50)])
    judged = np.stack(
        [
            compressed(others[7], 32),
            compressed(others[20][:, ::-1], 32),
            (compressed(others[33], 32) * 0.7).astype(np.uint8),
            scene(1000, 32),
        ]
    )
    found = find_near_duplicates(judged, np.arange(4), others, np.arange(50))
    assert found.nearest[:3].tolist() == [7, 20, 33]
    assert (found.correlation[:3] >= SIMILAR).all()
    assert found.correlation[3] < SIMILAR
    assert found.count == 3


def test_only_the_named_images_are_looked_at() -> None:
    others = np.stack([scene(seed, 32) for seed in range(10)])
    found = find_near_duplicates(others, np.array([4]), others, np.array([0, 1, 2]))
    assert found.count == 0
    assert found.nearest[0] in (0, 1, 2)


def test_an_image_without_contrast_is_like_none() -> None:
    flat = np.full((2, 32, 32, 3), 90, np.uint8)
    assert find_near_duplicates(flat, np.arange(2), flat, np.arange(2)).count == 0


def scenes(count: int) -> np.ndarray:
    return np.stack([scene(seed, 32) for seed in range(count)])


def test_copies_within_a_set_are_found_by_standing_out() -> None:
    images = scenes(120)
    images[100] = compressed(images[7], 32)
    images[101] = compressed(images[20][:, ::-1], 32)
    images[102] = (images[33] * 0.7).astype(np.uint8)
    images[34] = compressed(images[33], 32)  # a picture may have several copies
    images[103] = images[5]
    found = find_same_pictures(images, np.arange(95, 120), np.arange(95))
    pairs = set(zip(found.judged.tolist(), found.others.tolist(), strict=True))
    assert found.can_tell
    assert pairs == {(100, 7), (101, 20), (102, 33), (102, 34), (103, 5)}
    assert found.among(np.arange(99, 105), np.arange(30)).tolist() == [False, True, True, False, True, False]
    found = find_same_pictures(images, np.arange(110, 115), np.arange(95))
    assert found.can_tell
    assert found.among(np.arange(110, 115), np.arange(95)).tolist() == [False] * 5


def test_a_set_whose_images_nearly_all_have_copies_is_not_taken_for_one_of_pictures_that_are_alike() -> None:
    """As where every photograph was augmented into a file of its own before the split."""
    images = scenes(200)
    for place in range(150, 195):
        images[place] = compressed(images[place - 150], 32)
    found = find_same_pictures(images, np.arange(150, 200), np.arange(150))
    assert found.can_tell
    assert found.judged.tolist() == list(range(150, 195))
    assert found.others.tolist() == list(range(45))


def test_pictures_of_one_kind_that_are_all_alike_are_no_copies() -> None:
    """Small things before a sky: they correlate at 0.9 and more, each with many."""
    images = scenes(160)
    sky = np.linspace(60, 220, 32).astype(np.uint8)[:, None, None] + np.zeros((32, 32, 3), np.uint8)
    rng = np.random.default_rng(0)
    for place in range(100, 160):
        images[place] = sky
        row, column = rng.integers(4, 24, 2)
        images[place, row : row + 4, column : column + 6] = rng.integers(0, 256, 3)
    judged, others = np.arange(0, 160, 4), np.array([place for place in range(160) if place % 4])
    alike = find_near_duplicates(images, judged[judged >= 100], images, others)
    assert (alike.correlation > 0.9).mean() > 0.8
    found = find_same_pictures(images, judged, others)
    assert found.can_tell
    assert len(found.judged) == 0


def test_where_most_pictures_are_alike_or_few_nobody_can_tell() -> None:
    digits = load_images("digits").images
    found = find_same_pictures(digits, np.arange(200), np.arange(200, 1797))
    assert not found.can_tell
    assert len(found.judged) == 0
    assert not find_same_pictures(scenes(30), np.arange(20, 30), np.arange(15)).can_tell
    assert not find_same_pictures(scenes(30), np.zeros(0, np.int64), np.arange(30)).can_tell
