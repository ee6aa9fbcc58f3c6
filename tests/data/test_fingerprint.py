"""A fingerprint changes with everything that it covers, and with nothing else."""

import hashlib

import numpy as np
import pytest

from headstart.data import fingerprint
from headstart.data.fingerprint import image_hash, image_hashes, set_fingerprint
from tests.data.making import noise

IMAGES = np.stack([noise(seed, 8, 8) for seed in range(10)])
LABELS = np.arange(10) % 2
PARTS = np.zeros(10, dtype=np.int8)


def test_each_ingredient_counts() -> None:
    pixel, label, part = IMAGES.copy(), LABELS.copy(), PARTS.copy()
    pixel[9, 7, 7, 2] ^= 1
    label[0] = 1
    part[0] = 2
    all_of_them = [
        set_fingerprint(IMAGES, LABELS, ("a", "b"), None),
        set_fingerprint(IMAGES, LABELS, ("a", "b"), PARTS),
        set_fingerprint(IMAGES, LABELS, ("a", "b"), part),
        set_fingerprint(pixel, LABELS, ("a", "b"), None),
        set_fingerprint(IMAGES, label, ("a", "b"), None),
        set_fingerprint(IMAGES, LABELS, ("a", "c"), None),
        set_fingerprint(IMAGES[::-1], LABELS, ("a", "b"), None),
        set_fingerprint(IMAGES.reshape(40, 4, 4, 3), LABELS, ("a", "b"), None),
    ]
    assert len(set(all_of_them)) == len(all_of_them)
    assert all(len(one) == 64 for one in all_of_them)


@pytest.mark.parametrize("block", [1, 500, 1 << 24])
def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    expected = set_fingerprint(IMAGES, LABELS, ("a", "b"), PARTS)
    monkeypatch.setattr(fingerprint, "_BLOCK_BYTES", block)
    assert set_fingerprint(np.asfortranarray(IMAGES), LABELS, ("a", "b"), PARTS) == expected


def test_pages_are_given_back_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    released = list[bool]()
    monkeypatch.setattr(fingerprint, "release_pages", lambda images: released.append(images is IMAGES))
    monkeypatch.setattr(fingerprint, "_BLOCK_BYTES", 3 * IMAGES[0].nbytes)
    set_fingerprint(IMAGES, LABELS, ("a", "b"), PARTS)
    assert released == 4 * [True]


def test_image_hashes() -> None:
    hashes = image_hashes(IMAGES)
    assert hashes.dtype == np.dtype("<U32")
    assert len(set(hashes)) == 10
    assert hashes[3] == image_hash(IMAGES[3].copy())
    assert hashes[3] == hashlib.blake2b(b"(8, 8, 3)" + IMAGES[3].tobytes(), digest_size=16).hexdigest()
    assert image_hash(np.zeros((4, 8, 3), np.uint8)) != image_hash(np.zeros((8, 4, 3), np.uint8))
