"""What identifies images: a hash of one image's pixels, and one of a whole set."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from headstart.files import canonical_json, release_pages, sha256_of_text
from headstart.records import Images, Labels

IMAGE_HASH_CHARACTERS = 32  # 128 bits: no accidental collision in any data set that fits a disk
_BLOCK_BYTES = 1 << 24  # chosen: 16 MiB, so that hashing a memory-mapped file never loads it whole


def image_hash(image: npt.NDArray[np.uint8]) -> str:
    """Hash one image's decoded pixels and size.

    Args:
        image: `(H, W, 3) uint8`.

    Returns:
        32 hexadecimal digits (BLAKE2b); equal for equal pixels of equal size, whatever the file format.
    """
    digest = hashlib.blake2b(str(image.shape).encode(), digest_size=IMAGE_HASH_CHARACTERS // 2)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def image_hashes(images: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.str_]:
    """Hash images one by one.

    Args:
        images: an array `(N, H, W, 3) uint8`, or anything that yields images.

    Returns:
        `(N,) <U32`.
    """
    return np.array([image_hash(image) for image in images], dtype=f"<U{IMAGE_HASH_CHARACTERS}")


def set_fingerprint(
    images: Images, labels: Labels, class_names: Sequence[str], official_part: npt.NDArray[np.int8] | None
) -> str:
    """Hash a set's content: pixels, labels, class names and parts, in their order.

    Args:
        images: `(N, S, S, 3) uint8`; read in blocks.
        labels: `(N,) int64`.
        class_names: one per class.
        official_part: `(N,) int8` or `None`.

    Returns:
        64 hexadecimal digits (SHA-256), the same on every platform.
    """
    pixels = hashlib.sha256()
    step = max(1, _BLOCK_BYTES // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        pixels.update(np.ascontiguousarray(images[start : start + step]).data)
        release_pages(images)
    parts = None if official_part is None else hashlib.sha256(official_part.astype("<i1").tobytes()).hexdigest()
    return sha256_of_text(
        canonical_json(
            {
                "shape": list(images.shape),
                "pixels": pixels.hexdigest(),
                "labels": hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest(),
                "class_names": list(class_names),
                "official_part": parts,
            }
        )
    )
