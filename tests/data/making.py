"""Small image sets and image folders for the tests of the data layer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.fingerprint import image_hashes, set_fingerprint
from headstart.records import ImageSet


def image_set(
    labels: Sequence[int],
    *,
    parts: Sequence[int] | None = None,
    same_as: dict[int, int] | None = None,
    images: npt.NDArray[np.uint8] | None = None,
) -> ImageSet:
    """A set of different 4 x 4 noise images; `same_as` makes image i a copy of image j."""
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 3), dtype=np.uint8)
    for copy, original in (same_as or {}).items():
        images[copy] = images[original]
    indices = np.array(labels, dtype=np.int64)
    names = tuple(f"class {index}" for index in range(int(indices.max()) + 1))
    official = None if parts is None else np.array(parts, dtype=np.int8)
    return ImageSet(
        name="noise",
        source="noise",
        images=images,
        labels=indices,
        class_names=names,
        official_part=official,
        fingerprint=set_fingerprint(images, indices, names, official),
        image_hashes=image_hashes(images),
    )


def noise(seed: int, height: int = 16, width: int = 16, channels: int = 3) -> npt.NDArray[np.uint8]:
    """`(height, width, channels) uint8` noise, or `(height, width)` for one channel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def write_images(folder: Path, count: int, *, first_seed: int = 0, size: int = 16) -> None:
    """Write `count` different PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(noise(first_seed + index, size, size)).save(folder / f"{index:03}.png")


def global_numpy_state() -> str:
    """The state of NumPy's global random numbers, which no code here may change."""
    return repr(np.random.get_state())  # noqa: NPY002 - it is what must stay as it is
