"""The lines that a user is told to write give what headstart itself measured the repair with."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.data.preprocessing import apply_preprocessing
from headstart.diagnosis.arrival import measure_arrival, sample_images
from headstart.diagnosis.copies import COPIES
from headstart.diagnosis.pipeline import _in_gray
from headstart.diagnosis.repair_lines import Own, code_lines, gray_channels, keras_lines
from headstart.diagnosis.subject import subject_of_module
from headstart.models.backbones import find_backbone
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


def test_the_written_preprocessing_cuts_out_the_middle_as_it_was_measured() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    contract, names = Preprocessing(56, "bilinear", (0.5,) * 3, (0.5,) * 3), dict[str, Any]()
    exec(code_lines([3], contract, published=None, crop=0.875), names)
    expected = apply_preprocessing(image, Preprocessing(64, "bilinear", (0.5,) * 3, (0.5,) * 3))[0, :, 4:60, 4:60]
    torch.testing.assert_close(names["preprocess"](image[0]), expected, rtol=1e-4, atol=1e-3)


def test_the_written_optimizer_holds_a_head_beside_the_network_and_can_be_run() -> None:
    contract = Preprocessing(32)
    alone = code_lines([12], contract, published=None)
    both = code_lines([12], contract, published=None, own=Own(head_apart=True))
    names: dict[str, Any] = {"model": nn.Linear(2, 2), "head": nn.Linear(2, 3)}
    exec(both, names)
    assert sum(len(group["params"]) for group in names["optimizer"].param_groups) == 4
    exec(alone, names)
    assert sum(len(group["params"]) for group in names["optimizer"].param_groups) == 2


def test_the_written_lines_rename_the_classes_that_are_predicted() -> None:
    names: dict[str, Any] = {"predicted": torch.tensor([0, 0, 2, 1])}
    exec(code_lines([15], None, meant=[2, 0, 1]), names)
    assert names["named"].tolist() == [2, 2, 1, 0]
    of_network, kept = (code_lines([15], None, own=Own(kept_order=one), meant=[1, 0]) for one in (False, True))
    assert "the network gives" in of_network
    assert "you kept" in kept  # the network's own answers have nothing to be renamed
    assert code_lines([15], None, meant=range(5000)) == ""  # nobody reads so many numbers


def test_the_written_split_keeps_equal_images_and_the_pairs_of_the_file_on_one_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every six images in a row the first two have the same pixels, and pairs of the file join them with the next three."""
    images = np.random.default_rng(0).integers(0, 256, (120, 4, 4, 3), np.uint8)
    images[1::6] = images[::6]
    pairs = [
        f"{place + one},{place + other},no" for place in range(0, 120, 6) for one, other in ((1, 2), (3, 4), (4, 2))
    ]
    (tmp_path / COPIES).write_text("\n".join(["test_image,training_image,same_pixels", *pairs]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images": images, "names": [str(place) for place in range(120)]}
    exec(code_lines([16], None), names)
    assert sorted([*names["train"], *names["test"]]) == list(range(120))
    groups = [{place // 6 for place in names[part] if place % 6 < 5} for part in ("train", "test")]
    assert all(groups)
    assert not groups[0] & groups[1]


def test_the_written_statistics_of_batch_norm_are_those_of_the_images_given() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3)).train()
    batches = list(torch.randn(4, 8, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 + 3)
    exec(code_lines([10], None), {"model": model, "train_batches": batches})
    assert not model.training
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, torch.stack(batches).mean((0, 1, 3, 4)))


def test_the_written_rates_are_small_for_the_network_and_larger_for_its_head() -> None:
    names: dict[str, Any] = {"model": nn.Linear(2, 2), "head": nn.Linear(2, 3)}
    exec(code_lines([11], None), names)
    head, network = names["optimizer"].param_groups
    assert network["lr"] < head["lr"] / 10
    assert "trainable = True" in keras_lines([11], Preprocessing(32))
    frozen = code_lines([11], None, frozen=True)
    exec(frozen, names)
    assert not any(parameter.requires_grad for parameter in names["model"].parameters())
    assert "trainable = False" in keras_lines([11], Preprocessing(32), frozen=True)
    both = code_lines([11, 12], None)
    assert both.count("optimizer =") == 1


def test_the_written_repair_of_somebody_s_fine_tuning_begins_with_the_published_weights() -> None:
    published = find_backbone("small32_s")
    assert "load_state_dict" in code_lines([11], None, published, own=Own())
    assert "load_state_dict" not in code_lines([11], None, published)  # a recipe of ours does so anyway


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
