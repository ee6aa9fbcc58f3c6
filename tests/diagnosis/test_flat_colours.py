"""Two paths are compared of which one augments: what random draws explain is no difference, another range or order is one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from headstart.diagnosis.flat_colours import FlatColours, measure_flat_colours
from headstart.diagnosis.subject import batched

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
IMAGENET = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = v2.Normalize([0.5] * 3, [0.5] * 3)
RANDOM = (
    v2.RandomResizedCrop(32, antialias=True),
    v2.RandomHorizontalFlip(),
    v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    v2.RandomGrayscale(0.2),
)


def flat(*steps: nn.Module, after: Callable[[torch.Tensor], torch.Tensor] | None = None) -> FlatColours | None:
    """Measure a torchvision pipeline."""
    pipeline: Any = v2.Compose([v2.ToImage(), *steps])
    scaled = v2.ToDtype(torch.float32, scale=True)

    def path(image: Any) -> torch.Tensor:
        inputs: torch.Tensor = pipeline(scaled(v2.functional.to_image(image)))
        return inputs if after is None else after(inputs)

    return measure_flat_colours(batched(path, IMAGES), 32)


def test_what_black_and_white_become_is_read_off() -> None:
    found = flat(HALF)
    assert found is not None
    assert (found.low, found.high, found.order) == (-1.0, 1.0, "RGB")
    found = flat(after=lambda inputs: 255 * inputs.flip(-3))
    assert found is not None
    assert (found.low, found.high, found.order) == (0.0, 255.0, "BGR")


@pytest.mark.parametrize("normalize", [nn.Identity(), HALF, IMAGENET])
@pytest.mark.parametrize(
    "augmentation", [RANDOM, (v2.RandomCrop(32, padding=4),), (v2.TrivialAugmentWide(),), (v2.RandAugment(),)]
)
def test_random_augmentation_is_no_difference(augmentation: tuple[nn.Module, ...], normalize: nn.Module) -> None:
    plain, augmented = flat(normalize), flat(*augmentation, normalize, v2.RandomErasing(0.5))
    assert plain is not None
    assert augmented is not None
    assert plain.same_range(augmented)
    assert plain.same_order(augmented)
    span = plain.high - plain.low
    assert abs(augmented.low - plain.low) < 0.1 * span
    assert abs(augmented.high - plain.high) < 0.1 * span


@pytest.mark.parametrize("augmentation", [(), RANDOM])
def test_another_range_or_order_is_a_difference(augmentation: tuple[nn.Module, ...]) -> None:
    ranges = [flat(*augmentation, normalize) for normalize in (nn.Identity(), HALF, IMAGENET)]
    ranges.append(flat(*augmentation, after=lambda inputs: 255 * inputs))
    for place, normalize in enumerate((nn.Identity(), HALF, IMAGENET)):
        plain = flat(normalize)
        assert plain is not None
        assert [plain.same_range(one) for one in ranges if one is not None] == [place == other for other in range(4)]
    plain, swapped = flat(HALF), flat(*augmentation, HALF, after=lambda inputs: inputs.flip(-3))
    assert plain is not None
    assert swapped is not None
    assert plain.same_range(swapped)
    assert not plain.same_order(swapped)


def test_a_path_that_says_nothing_of_one_colour_is_not_measured() -> None:
    def alone(inputs: torch.Tensor) -> torch.Tensor:
        return (inputs - inputs.mean()) / inputs.std()

    def strict(inputs: torch.Tensor) -> torch.Tensor:
        assert float(inputs.std()) > 0, "an image of one colour"
        return inputs

    assert flat(after=alone) is None
    assert flat(after=strict) is None
    framed = flat(after=lambda inputs: nn.functional.pad(inputs, (48, 48, 48, 48)))
    assert framed == flat()
    gray = flat(v2.Grayscale(1))
    assert gray is not None
    assert gray.order is None


def test_random_hue_makes_no_order_of_its_own() -> None:
    found = flat(v2.ColorJitter(0.8, 0.8, 0.8, 0.5))
    assert found is not None
    assert found.order is None


def test_global_random_numbers_are_left_as_they_were() -> None:
    def path(images: Any) -> torch.Tensor:
        return v2.Compose(RANDOM)(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)  # type: ignore[no-any-return]

    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert measure_flat_colours(path, 32) == measure_flat_colours(path, 32)
    assert torch.equal(torch.get_rng_state(), before)
