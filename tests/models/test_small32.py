"""The small32 family: its shapes, its place among timm's models, and the weights that come with the package."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from headstart.errors import WeightsUnavailableError
from headstart.models.backbones import build_backbone, find_backbone, made_for_small_images
from headstart.models.cost import complexity
from headstart.models.small32 import FAMILY, ResidualBlock, Small32
from headstart.models.weights import BUNDLED_WEIGHTS, hash_of_state, read_weights_file


@pytest.mark.parametrize("name", FAMILY)
def test_timm_builds_it_by_name(name: str) -> None:
    network = timm.create_model(name, num_classes=0)
    assert isinstance(network, Small32)
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, network.num_features)


def test_the_widths_cost_what_is_said_of_them() -> None:
    sizes = [complexity(Small32(channels), 32) for channels in FAMILY.values()]
    assert [size.macs for size in sizes] == [12_828_672, 42_246_144, 87_146_496]
    assert [size.parameters for size in sizes] == [461_312, 1_440_768, 2_948_976]
    # By hand, the widest: 9 (kernel) x channels in x channels out x positions, layer by layer.
    stem, stage1 = 9 * 3 * 48 * 32**2, 9 * 48 * 96 * 16**2
    stage2, stage3 = 9 * (96 * 160 + 2 * 160**2) * 8**2, 9 * (160 * 320 + 2 * 320**2) * 4**2
    assert stem + stage1 + stage2 + stage3 == 87_146_496


@pytest.mark.parametrize(("side", "last"), [(28, 4), (32, 4), (64, 8)])
def test_the_last_map_keeps_at_least_four_by_four(side: int, last: int) -> None:
    network = Small32(FAMILY["small32_s"]).eval()
    maps = network.stage3(network.stage2(network.stage1(network.stem(torch.zeros(1, 3, side, side)))))
    assert maps.shape[2:] == (last, last)


def test_a_new_residual_block_passes_positive_maps_through() -> None:
    maps = torch.rand(1, 8, 4, 4)
    assert torch.equal(ResidualBlock(8).eval()(maps), maps)


def test_a_width_without_weights_says_how_to_make_them() -> None:
    with pytest.raises(WeightsUnavailableError, match="headstart pretrain DATA --architecture small32_l"):
        find_backbone("small32_l")


BUNDLED: dict[str, tuple[str, list[float]]] = {
    # name: (hash of the float16 and float32 tensors in the file, first features of the fixed input below)
    "small32_s": (
        "718912cf8b65d043324da99285332d52b485b6b8a61097e3e9d73d5c2f5e4b0f",
        [0.0283, 0.061, 0.0029, 0.0539, 1.8282, 0.2123],
    ),
    "small32_m": (
        "bd966aad4b61561daac6157065ee5ae7d998c3a14a9b1540eaa4b6792053a88d",
        [0.0, 0.5305, 0.0, 0.0116, 0.2863, 0.0166],
    ),
}


def fixed_input() -> torch.Tensor:
    """Two smooth colourful images, the same on every machine: no random numbers."""
    grid = torch.linspace(-1, 1, 32)
    waves = [torch.sin(3 * grid[:, None] + k) * torch.cos(5 * grid[None, :] - k) for k in range(6)]
    return torch.stack(waves).view(2, 3, 32, 32)


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_weights_are_the_ones_that_were_measured(name: str) -> None:
    wanted_hash, wanted = BUNDLED[name]
    backbone = find_backbone(name)
    assert backbone.path == BUNDLED_WEIGHTS / f"{name}.safetensors"
    assert backbone.weights_sha256 == wanted_hash
    with torch.inference_mode():
        features = build_backbone(backbone)(fixed_input())[0, : len(wanted)].numpy()
    assert np.allclose(features, wanted, rtol=1e-3, atol=1e-4), features.tolist()
    assert made_for_small_images(name)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_file_says_how_it_was_made_and_is_small(name: str) -> None:
    path = BUNDLED_WEIGHTS / f"{name}.safetensors"
    metadata = read_weights_file(path).metadata
    assert path.stat().st_size <= 8_000_000
    assert "Tiny ImageNet" in metadata["pretraining"]
    assert "CIFAR" not in metadata["pretraining"]
    assert len(json.loads(metadata["classes"])) == 200
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert metadata["weights_sha256"] == BUNDLED[name][0]
    for key in ("weights_sha256", "float32_sha256"):
        assert f"`{metadata[key]}` |" in card
    assert f"headstart pretrain tiny-imagenet-200/train --architecture {name}" in card


@pytest.mark.parametrize("name", BUNDLED)
def test_the_card_of_a_bundled_file_was_judged_as_its_metadata_says(name: str) -> None:
    path = BUNDLED_WEIGHTS / f"{name}.safetensors"
    (judged,) = json.loads(read_weights_file(path).metadata["judged"])
    card = path.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in card if line.startswith(f"| {judged['data']} |"))
    assert judged["exact_duplicates"] is None  # 32 px and 64 px: there can be none, and none were counted
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        judged["data"],
        f"{judged['input_size']} px",
        f"{judged['labels']:,}",
        f"{judged['test_images']:,}",
        f"{judged['probe_accuracy']:.1%}",
        "–",
        f"{judged['near_duplicates']:,}",
        f"{judged['probe_accuracy_without_near_duplicates']:.1%}",
    ]


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_file_and_its_card_say_who_taught_it(name: str) -> None:
    path = BUNDLED_WEIGHTS / f"{name}.safetensors"
    metadata = read_weights_file(path).metadata
    teacher = json.loads(metadata["teacher"])
    assert (teacher["name"], teacher["preprocessing"]["input_size"], teacher["weight"]) == ("mobilenetv2_100", 128, 20)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert f"`{teacher['weights_sha256']}` |" in card
    assert "mobilenetv2_100, each image at 128 px (bicubic), weight of its part of the loss 20" in card


def test_rounding_changes_the_hash() -> None:
    state = Small32(FAMILY["small32_s"]).state_dict()
    assert hash_of_state(state) != hash_of_state({name: value.half() for name, value in state.items()})


@pytest.mark.data
def test_the_teacher_of_the_bundled_files_is_the_one_at_hand(real_weights: Path) -> None:
    teacher = json.loads(read_weights_file(BUNDLED_WEIGHTS / "small32_m.safetensors").metadata["teacher"])
    assert find_backbone("mobilenetv2_100", real_weights).weights_sha256 == teacher["weights_sha256"]
