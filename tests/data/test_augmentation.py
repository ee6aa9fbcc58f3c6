"""Shifts and mirrors agree with the same thing done by hand, one image at a time."""

from typing import Any

import numpy as np
import pytest
import torch

from headstart.data.augmentation import _moved_there, _sampled, _shifts, augment, random_crops
from tests.data.making import global_numpy_state


def batch(count: int = 12, height: int = 16, width: int = 16) -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def every_result(image: np.ndarray, most_rows: int, most_columns: int, *, flip: bool) -> list[bytes]:
    """All that may become of one image, by padding and cutting it with NumPy."""
    height, width = image.shape[1:]
    padded = np.pad(image, ((0, 0), (most_rows,) * 2, (most_columns,) * 2), mode="reflect")
    results = []
    for top in range(2 * most_rows + 1):
        for left in range(2 * most_columns + 1):
            cut = padded[:, top : top + height, left : left + width]
            results.append(cut.tobytes())
            if flip:
                results.append(cut[:, :, ::-1].tobytes())
    return results


def test_none_changes_nothing() -> None:
    images = batch()
    assert augment(images, "none", np.random.default_rng(0)) is images


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (4, 4)])
def test_each_image_is_padded_by_reflection_and_cut(height: int, width: int, flip: bool) -> None:
    images = batch(40, height, width)
    moved = augment(images, "shift-flip" if flip else "shift", np.random.default_rng(1))
    assert moved.shape == images.shape
    assert moved.dtype == images.dtype
    seen = set()
    for before, after in zip(images.numpy(), moved.numpy(), strict=True):
        possible = every_result(before, max(1, height // 8), max(1, width // 8), flip=flip)
        seen.add(possible.index(after.tobytes()))
    assert len(seen) > 5


def test_every_shift_is_equally_likely_and_half_are_mirrored() -> None:
    # The pixel's value says where it was: the result's centre tells the shift, its neighbour the direction.
    count, side = 8100, 16
    positions = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side).expand(count, 1, side, side)
    moved = augment(positions, "shift-flip", np.random.default_rng(0))
    centre, right = moved[:, 0, 8, 7].numpy(), moved[:, 0, 8, 8].numpy()
    assert abs((right < centre).mean() - 0.5) < 0.03
    rows = (centre // side - 8).astype(int)
    assert np.abs(np.bincount(rows + 2, minlength=5) / count - 0.2).max() < 0.03
    columns = (np.where(right > centre, centre, centre - 1) % side - 7).astype(int)
    assert np.abs(np.bincount(columns + 2, minlength=5) / count - 0.2).max() < 0.03


@pytest.mark.parametrize(("share", "most"), [(1 / 8, 4), (1 / 16, 2), (0.001, 1)])
def test_no_image_moves_further_than_it_may(share: float, most: int) -> None:
    side = 32
    positions = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side).expand(400, 1, side, side)
    centre = augment(positions, "shift", np.random.default_rng(0), max_shift=share)[:, 0, 16, 16].numpy()
    for moved in (centre // side - 16, centre % side - 16):
        assert (moved.min(), moved.max()) == (-most, most)


def test_seeds() -> None:
    images = batch(64)
    global_numpy = global_numpy_state()
    global_torch = torch.random.get_rng_state()
    first, again, other = (augment(images, "shift-flip", np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert global_numpy_state() == global_numpy
    assert torch.equal(torch.random.get_rng_state(), global_torch)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_type_and_memory_format_do_not_matter(dtype: torch.dtype) -> None:
    images = batch()
    expected = augment(images, "shift-flip", np.random.default_rng(0))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = images.to(dtype).contiguous(memory_format=memory_format)
        before = given.clone()
        moved = augment(given, "shift-flip", np.random.default_rng(0))
        assert moved.dtype == dtype
        assert torch.equal(moved.to(torch.uint8), expected)
        assert moved.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(given, before)


@pytest.mark.parametrize("count", [0, 1])
def test_tiny_batches(count: int) -> None:
    assert augment(batch(count), "shift-flip", np.random.default_rng(0)).shape == (count, 3, 16, 16)


def photographs(count: int = 20, side: int = 24) -> np.ndarray:
    """Images with structure: a slope from dark to bright in a colour of their own."""
    rng = np.random.default_rng(3)
    slope = np.linspace(40, 200, side)[None, None, :, None] * rng.uniform(0.4, 1, (count, 1, 1, 3))
    return np.broadcast_to(slope, (count, side, side, 3)).astype(np.uint8)


def test_crops_have_the_wanted_side_and_follow_the_generator_alone() -> None:
    images = photographs()
    before, state = images.copy(), global_numpy_state()
    first, again, other = (random_crops(images, 16, np.random.default_rng(seed), mirror=True) for seed in (0, 0, 1))
    assert first.shape == (20, 16, 16, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(images, before)
    assert global_numpy_state() == state


def test_crops_keep_left_and_right_unless_they_mirror() -> None:
    images = photographs(200)
    straight = random_crops(images, 16, np.random.default_rng(0), mirror=False).mean((1, 3))
    assert (np.diff(straight, axis=1) >= -1e-6).all()  # every slope still rises
    mirrored = random_crops(images, 16, np.random.default_rng(0), mirror=True).mean((1, 3))
    rising = (mirrored[:, -1] > mirrored[:, 0]).mean()
    assert 0.4 < rising < 0.6


def test_a_crop_shows_a_part_of_the_image() -> None:
    # The slope's steepness in the crop says how much of the original's width it has: sqrt(0.6 * 3/4) to 1 of it.
    side = 64
    slope = np.broadcast_to(np.linspace(60, 187, side)[None, None, :, None], (500, side, side, 3)).astype(np.uint8)
    crops = random_crops(slope, 32, np.random.default_rng(0), mirror=False).astype(float).mean((1, 3))
    # Contrast and brightness scale the slope as well; they are 0.9 to 1.1 each and average to one.
    steepness = (crops[:, -1] - crops[:, 0]) / 127
    assert 0.75 < np.median(steepness) < 0.98
    assert steepness.max() < 1.25
    assert steepness.min() > 0.5


def test_a_large_image_is_averaged_not_picked_at() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    crops = random_crops(noise, 16, np.random.default_rng(0), mirror=False)
    assert crops.std(axis=(1, 2)).mean() < 0.25 * noise.std()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("side", "canvas"), [(16, 24), (16, 64), (24, 16)])
def test_crops_of_a_tensor_are_those_of_an_array(side: int, canvas: int, mirror: bool) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (30, canvas, canvas, 3), dtype=np.uint8)
    before = noise.copy()
    expected = random_crops(noise, side, np.random.default_rng(0), mirror=mirror)
    found = random_crops(torch.from_numpy(noise), side, np.random.default_rng(0), mirror=mirror)
    assert found.dtype == torch.uint8
    assert np.array_equal(noise, before)
    difference = np.abs(found.numpy().astype(int) - expected)
    assert difference.max() <= 1  # colours halfway between two values
    assert (difference > 0).mean() < 1e-3


def test_many_samples_in_one_pixel_do_not_overflow() -> None:
    white = np.full((2, 160, 160, 3), 255, np.uint8)
    crops = random_crops(white, 8, np.random.default_rng(0), mirror=False)  # 20 x 20 samples of 255 pass 16 bits
    assert crops.min() >= 229  # brightness falls by a tenth at most


@pytest.mark.parametrize("kind", ["shift", "shift-flip"])
def test_what_a_gpu_does_in_few_calls_is_what_the_cpu_does(kind: Any) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 3, 9, 12), dtype=np.uint8))
    expected = augment(images, kind, np.random.default_rng(4))
    rng = np.random.default_rng(4)
    shifts = [_shifts(9, 1 / 8, 7, rng), _shifts(12, 1 / 8, 7, rng)]
    mirrored = rng.random(7) < 0.5 if kind == "shift-flip" else np.zeros(7, bool)
    assert torch.equal(_moved_there(images, *torch.from_numpy(np.stack([*shifts, mirrored]))), expected)


@pytest.mark.parametrize("samples", [64, 192, 320, 448])
def test_positions_of_a_crop_are_the_same_from_a_tensor(samples: int) -> None:
    rng = np.random.default_rng(0)
    stretch = rng.uniform(100, 224, 3000)
    first = rng.random(3000) * (224 - stretch)
    expected = _sampled(224, first, stretch, samples)
    found = _sampled(224, torch.from_numpy(first), torch.from_numpy(stretch), samples)
    assert np.array_equal(found.numpy(), expected)
