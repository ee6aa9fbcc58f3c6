"""The lines that a user is told to write give what headstart itself measured the repair with."""

import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.diagnosis.arrival import measure_arrival, sample_images
from headstart.diagnosis.pipeline import _in_gray
from headstart.diagnosis.repair import code_lines, gray_channels, keras_lines
from headstart.diagnosis.subject import subject_of_module
from headstart.records import Preprocessing

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    "contract",
    [
        Preprocessing(48, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        # Caffe's: bytes, blue first, other means for each channel.
        Preprocessing(48, "bicubic", (0.4078, 0.4579, 0.4850), (1 / 255, 1 / 255, 1 / 255), "BGR"),
    ],
)
def test_the_written_preprocessing_is_the_measured_one(contract: Preprocessing) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    names: dict[str, Any] = {}
    exec(code_lines([1, 3, 5], contract, published=None), names)
    expected = apply_preprocessing(image, contract)[0]
    torch.testing.assert_close(names["preprocess"](image[0]), expected, rtol=1e-4, atol=1e-3)


def test_the_written_optimizer_holds_a_head_beside_the_network_and_can_be_run() -> None:
    contract = Preprocessing(32)
    alone = code_lines([12], contract, published=None)
    both = code_lines([12], contract, published=None, own_head=True)
    names: dict[str, Any] = {"model": nn.Linear(2, 2), "head": nn.Linear(2, 3)}
    exec(both, names)
    assert sum(len(group["params"]) for group in names["optimizer"].param_groups) == 4
    exec(alone, names)
    assert sum(len(group["params"]) for group in names["optimizer"].param_groups) == 2


def test_the_lines_of_keras_scale_pixels_as_the_contract_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras' layers as its documentation defines them, on NumPy: the numbers that are written down are looked at."""
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)
    resized: list[Any] = []

    def resizing(height: int, width: int, interpolation: str, antialias: bool) -> Any:
        assert antialias  # it is not by default, and shrinking without it is cause 7
        resized.append((height, width, interpolation))
        return lambda images: images

    layers = SimpleNamespace(
        Resizing=resizing,
        Lambda=lambda function: function,
        Normalization=lambda mean, variance: lambda images: (images - np.array(mean)) / np.sqrt(np.array(variance)),
    )
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(layers=layers, Input=lambda shape: image.astype(float)))
    for contract in (
        Preprocessing(48, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        Preprocessing(48, "bilinear", (0.4078, 0.4579, 0.4850), (1 / 255, 1 / 255, 1 / 255), "BGR"),
    ):
        names: dict[str, Any] = {"backbone": lambda inputs, training: inputs}
        exec(keras_lines([1, 3], contract), names)
        expected = apply_preprocessing(image, contract).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(names["features"], expected, rtol=1e-4, atol=1e-3)
        assert resized[-1] == (48, 48, contract.interpolation)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_written_preprocessing_of_a_network_that_sees_gray_gives_its_channels(channels: int) -> None:
    contract = Preprocessing(48, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    names: dict[str, Any] = {}
    exec(code_lines([1, 3], contract, published=None, gray=channels), names)
    given = names["preprocess"](image[0])
    expected = apply_preprocessing(_in_gray(image), contract)[0, :channels]
    assert given.shape == (channels, 48, 48)
    torch.testing.assert_close(given, expected, rtol=0, atol=0.02)  # gray is rounded before the resize or after it


def test_a_network_s_channels_are_counted_where_it_is_fed_in_gray() -> None:
    for channels, said in ((1, 1), (3, 3)):
        module = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        subject = subject_of_module(module, partial(_gray, channels), IMAGES, 10, name="mine")
        assert gray_channels(measure_arrival(subject, sample_images(IMAGES))) == said
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    coloured = subject_of_module(
        module, lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255, IMAGES, 10, name="mine"
    )
    assert gray_channels(measure_arrival(coloured, sample_images(IMAGES))) is None


def _gray(channels: int, image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("L"))).expand(channels, -1, -1).float() / 255
