"""What arrives is recognised, whatever the owner's code looks like."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.transforms import InterpolationMode, v2

from headstart.diagnosis.arrival import (
    Arrival,
    effective_receptive_field,
    measure_arrival,
    not_understood,
    sample_images,
    watch_maps,
)
from headstart.diagnosis.look_pixels import look_at_pixels
from headstart.diagnosis.subject import batched, subject_of_module
from headstart.errors import UsageError
from headstart.records import Images, Preprocessing
from tests.models.factory import TINY

CONTRACT = Preprocessing(64, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def photographs(count: int = 40, side: int = 32) -> Images:
    """Smooth coloured pictures: noise of 8 x 8 patches, enlarged."""
    small = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    pictures = v2.functional.resize(torch.from_numpy(small).permute(0, 3, 1, 2), [side, side])
    images: Images = np.ascontiguousarray(pictures.permute(0, 2, 3, 1).numpy())
    return images


def compose(
    *steps: nn.Module, size: int = 64, mode: InterpolationMode = InterpolationMode.BILINEAR
) -> Callable[..., Any]:
    """A torchvision pipeline as tutorials write it."""
    resize = v2.Resize((size, size), interpolation=mode, antialias=True)
    pipeline: Callable[..., Any] = v2.Compose([v2.ToImage(), resize, v2.ToDtype(torch.float32, scale=True), *steps])
    return pipeline


def arrive(preprocess: Callable[..., Any], before: nn.Module | None = None) -> Arrival:
    """Measure through a tiny network, with a module before it if one is given."""
    network = timm.create_model(TINY, num_classes=0)
    module = network if before is None else nn.Sequential(before, network)
    images = photographs()
    subject = subject_of_module(module, preprocess, images[:2], 10, name="mine", train_mode=False)
    return measure_arrival(subject, sample_images(images))


def test_a_plain_pipeline_is_read_off() -> None:
    arrival = arrive(compose(v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])))
    assert (arrival.size, arrival.content, arrival.order, arrival.crop) == (64, 64, "RGB", 1.0)
    assert arrival.fit > 0.99
    assert arrival.mean == pytest.approx((0.485, 0.456, 0.406), abs=0.02)
    assert arrival.std == pytest.approx((0.229, 0.224, 0.225), rel=0.02)
    assert arrival.map_side == 2


def test_frame_order_and_interpolation_are_seen() -> None:
    def padded(image: Any) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image)[..., ::-1].copy()).permute(2, 0, 1).float() / 255
        return nn.functional.pad(pixels, (48, 48, 48, 48))

    arrival = arrive(padded)
    assert (arrival.size, arrival.content, arrival.order) == (128, 32, "BGR")
    assert [arrival.low, arrival.high] == pytest.approx([0, 1], abs=0.01)
    assert arrive(compose(size=96, mode=InterpolationMode.NEAREST)).interpolation == "nearest"
    assert arrive(compose(size=96)).interpolation == "bilinear"


def test_a_normalisation_inside_the_network_counts() -> None:
    class Inner(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return (pixels - 0.5) / 0.5

    arrival = arrive(compose(v2.Normalize([0.5] * 3, [0.5] * 3)), Inner())
    findings = {finding.cause: finding for finding in look_at_pixels(arrival, CONTRACT, 32, 64)}
    assert findings[4].status == "suspected"
    assert findings[3].status == "cleared"


@pytest.mark.parametrize(
    ("steps", "suspected"),
    [
        ((v2.Normalize([0.5] * 3, [0.5] * 3),), set()),
        ((), {3}),
        ((v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),), {3}),
        ((v2.Lambda(lambda pixels: pixels * 255),), {3}),
        ((v2.Lambda(lambda pixels: pixels / 255), v2.Normalize([0.5] * 3, [0.5] * 3)), {4}),
        ((v2.Lambda(lambda pixels: pixels / 255),), {4}),
        ((v2.Normalize([0.5] * 3, [0.5] * 3), v2.Lambda(lambda pixels: pixels.flip(-3))), {5}),
    ],
)
def test_ranges_and_orders_against_the_contract(steps: tuple[nn.Module, ...], suspected: set[int]) -> None:
    findings = look_at_pixels(arrive(compose(*steps, size=96)), CONTRACT, 24, 64)
    assert {finding.cause for finding in findings if finding.status == "suspected"} == suspected
    assert {finding.cause for finding in findings} == {1, 2, 3, 4, 5, 7}


@pytest.mark.parametrize("kind", ["image", "channel"])
def test_images_standardised_one_by_one_are_recognised(kind: str) -> None:
    axes = (0, 1, 2) if kind == "image" else (1, 2)

    def alone(image: Any) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image.resize((48, 48)))).permute(2, 0, 1).float()
        return (pixels - pixels.mean(axes, keepdim=True)) / pixels.std(axes, keepdim=True)

    arrival = arrive(alone)
    assert arrival.standardised == kind
    assert arrival.fit > 0.98
    findings = {finding.cause: finding for finding in look_at_pixels(arrival, CONTRACT, 32, 64)}
    assert (findings[3].status, findings[3].code) == ("suspected", "standardised-alone")
    wanted = {finding.cause: finding for finding in look_at_pixels(arrival, CONTRACT, 32, 64, "image")}
    assert (wanted[3].status, wanted[3].code) == ("cleared", "standardised-as-expected")
    assert arrive(compose(v2.Normalize([0.5] * 3, [0.5] * 3))).standardised == "none"


def test_a_range_between_two_explanations_names_both() -> None:
    own = v2.Normalize([0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616])  # CIFAR-10's own, a common habit
    findings = {finding.cause: finding for finding in look_at_pixels(arrive(compose(own, size=96)), CONTRACT, 24, 64)}
    assert [findings[cause].status for cause in (3, 4)] == ["suspected", "suspected"]
    assert (findings[3].like, findings[4].like) == ((4,), (3,))


def test_what_is_no_picture_of_the_pixels_is_not_judged() -> None:
    def shuffled(image: Any) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return pixels.flatten(1)[:, torch.randperm(1024, generator=torch.Generator().manual_seed(0))].view(3, 32, 32)

    findings = look_at_pixels(arrive(shuffled), CONTRACT, 32, 64)
    assert {finding.code for finding in findings if finding.cause != 1} == {"input-not-understood"}


def test_a_path_that_draws_at_random_is_said_to_do_so() -> None:
    training = compose(v2.RandomHorizontalFlip(), v2.RandomCrop(64, padding=16))
    arrival = arrive(training)
    assert not arrival.repeats
    findings = look_at_pixels(arrival, CONTRACT, 32, 64)
    assert {finding.code for finding in findings if finding.cause != 1} == {"input-is-random"}
    assert not_understood(arrival) == ("input-is-random", {"fit": round(arrival.fit, 3)})


def test_an_input_that_is_no_square_is_said_to_be_none() -> None:
    def wide(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((64, 48)))).permute(2, 0, 1).float() / 255

    arrival = arrive(wide)
    assert arrival.oblong
    assert not_understood(arrival) == ("input-not-square", {})
    findings = look_at_pixels(arrival, CONTRACT, 32, 64)
    assert {finding.code for finding in findings if finding.cause != 1} == {"input-not-square"}


def test_a_preprocessing_may_take_a_picture_an_array_or_a_batch() -> None:
    images = photographs(3)
    ways: list[Callable[..., Any]] = [
        compose(),
        lambda batch: torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 if batch.ndim == 4 else 1 / 0,
        lambda array: np.transpose(array, (2, 0, 1)) if isinstance(array, np.ndarray) and array.ndim == 3 else 1 / 0,
    ]
    for way in ways:
        assert batched(way, images)(images).shape[:2] == (3, 3)
    with pytest.raises(UsageError, match=r"given a PIL image.*given a batch.*given an image"):
        batched(lambda images: 1 / 0, images)


@pytest.mark.parametrize(("size", "side"), [(32, 8), (4, 1)])
def test_the_last_map_is_the_one_before_the_pooling(size: int, side: int) -> None:
    squeezed = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 16, 1))  # as MobileNetV3 ends
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1), squeezed)
    sides, hooks = watch_maps(module)
    module(torch.zeros(1, 3, size, size))
    assert sides[-1] == side
    for hook in hooks:
        hook.remove()
    module(torch.zeros(1, 3, 64, 64))
    assert sides[-1] == side


def test_what_a_position_of_the_last_map_sees() -> None:
    def field(*layers: nn.Module) -> int:
        module = nn.Sequential(*layers)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(1.0)
        return effective_receptive_field(module, torch.ones(2, 3, 16, 16))

    # Two 3 x 3 kernels of ones: 5 x 5 pixels, the corners of which have 1 / 9 of the middle's weight.
    assert field(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)) == 5
    assert field(nn.Conv2d(3, 4, 4, stride=4)) == 4
    assert field(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1)) == 1


def test_what_is_measured_of_a_contract_is_told_without_rounding_s_dust() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    plain = subject_of_module(
        module, lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255, images, 10, name="mine"
    )
    arrival = measure_arrival(plain, sample_images(images))
    assert (arrival.mean, arrival.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
