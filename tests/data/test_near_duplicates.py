"""Near duplicates: the same picture is found after resizing, compression and mirroring; another picture is not."""

import io

import numpy as np
from PIL import Image

from headstart.data.near_duplicates import SIMILAR, find_near_duplicates


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
