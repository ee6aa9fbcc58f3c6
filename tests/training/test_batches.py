"""Batches of images: what they show from one epoch to the next."""

from typing import Any

import numpy as np
import pytest
import torch

from headstart.records import Preprocessing
from headstart.training.batches import ArrayBatches, ImageBatches

SEED = 5


def test_directions_alternate_from_epoch_to_epoch() -> None:
    # One row of pixels that rises to the right: the sign of its slope is the direction it is seen in.
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, None, :, None], (40, 32, 32, 3))
    labels = np.zeros(40, np.int64)
    batches = ImageBatches(np.array(ramp), labels, np.arange(40), Preprocessing(32), "shift-alternate")

    def mirrored(epoch: int, positions: np.ndarray) -> np.ndarray:
        batches.begin_epoch(epoch, SEED)
        shown = batches.inputs(positions, np.random.default_rng(epoch))
        return np.asarray(shown[:, 0, 16, 20] < shown[:, 0, 16, 12])

    everything = np.arange(40)
    first, second, third = (mirrored(epoch, everything) for epoch in (1, 2, 3))
    assert 5 < first.sum() < 35
    assert np.array_equal(second, ~first)
    assert np.array_equal(third, first)
    assert np.array_equal(mirrored(2, everything[::-1].copy()), second[::-1])
    plain = batches.inputs(everything, None)
    assert bool((plain[:, 0, 16, 20] > plain[:, 0, 16, 12]).all())


def _pictures() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)


PREPROCESSING = Preprocessing(32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.mark.parametrize("augmentation", ["none", "shift", "shift-flip", "shift-alternate", "crop", "crop-flip"])
def test_a_part_kept_on_the_device_gives_the_same_batches(augmentation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, part, positions = np.arange(30), np.arange(4, 28), np.array([3, 20, 0, 7, 11])
    shown = []
    for kept in (False, True):
        monkeypatch.setattr("headstart.training.rows.keeps", lambda *_, kept=kept: kept)
        batches = ImageBatches(_pictures(), labels, part, PREPROCESSING, augmentation, torch.device("cpu"))
        batches.begin_epoch(1, SEED)
        shown.append((batches.inputs(positions, np.random.default_rng(SEED)), batches.inputs(positions, None)))
    (augmented, plain), (augmented_there, plain_there) = shown
    assert torch.equal(plain, plain_there)
    assert augmented_there.is_contiguous(memory_format=torch.channels_last)
    if "crop" in augmentation:  # a colour halfway between two levels may be rounded either way
        assert (augmented - augmented_there).abs().max() <= 1.01 / 255 / 0.2
        assert (augmented != augmented_there).float().mean() < 1e-3
    else:
        assert torch.equal(augmented, augmented_there)


def test_shifts_are_what_numpy_makes_of_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.training.rows.keeps", lambda *_: True)
    pictures, everything = _pictures(), np.arange(30)
    batches = ImageBatches(pictures, everything, everything, PREPROCESSING, "shift-flip", torch.device("cpu"))
    found = batches.inputs(everything, np.random.default_rng(SEED)).permute(0, 2, 3, 1).numpy()
    mean, std = (np.array(values, np.float32) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    draws = np.random.default_rng(SEED)
    down, right = draws.integers(-4, 5, 30), draws.integers(-4, 5, 30)
    mirrored = draws.random(30) < 0.5
    for picture, shown, dy, dx, flip in zip(pictures, found, down, right, mirrored, strict=True):
        padded = np.pad(picture, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        cut = padded[4 + dy : 36 + dy, 4 + dx : 36 + dx]
        cut = (cut[:, ::-1] if flip else cut).astype(np.float32) / np.float32(255)
        expected = (cut - mean) / std
        assert np.array_equal(shown, expected)


def test_arrays_kept_on_the_device_give_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(20, 3, 4, 4)).astype(np.float16)
    part, positions = np.arange(2, 19), np.array([5, 0, 16])
    plain = ArrayBatches(values, np.arange(20), part).inputs(positions, None)
    monkeypatch.setattr("headstart.training.rows.keeps", lambda *_: True)
    kept = ArrayBatches(values, np.arange(20), part, torch.device("cpu")).inputs(positions, None)
    assert kept.dtype == torch.float32
    assert torch.equal(plain, kept)
    assert kept.stride() == plain.stride()
