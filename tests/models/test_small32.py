"""The small32 family: its shapes, its place among timm's models, and the weights that come with the package."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from headstart.errors import WeightsUnavailableError
from headstart.models import weights
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
    assert [size.macs for size in sizes] == [12_828_672, 33_030_144, 87_146_496]
    assert [size.parameters for size in sizes] == [461_312, 1_071_840, 2_948_976]
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


def test_a_width_without_weights_says_how_to_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUNDLED_WEIGHTS", tmp_path)
    with pytest.raises(WeightsUnavailableError, match="headstart pretrain DATA --architecture small32_l"):
        find_backbone("small32_l")


BUNDLED: dict[str, tuple[str, list[float]]] = {
    # name: (hash of the float16 and float32 tensors in the file, first features of the fixed input below)
    "small32_s": (
        "65b278dcc2e6605ae8abb3d23fec3484af92372c402f11874a3d4a11a36c90a6",
        [0.0305, 0.1479, 0.0, 0.2703, 0.0049, 0.6083],
    ),
    "small32_m": (
        "4d3247c81b6681259d0d98f32e39df0530aecddff89cdfc3f4a970cbd1a57419",
        [0.0077, 0.3842, 0.0243, 0.0581, 0.2813, 0.2622],
    ),
    "small32_l": (
        "3496151822a8cf3da0b446c44e3d639aa0168dabd81f02e82bcfe63d2dd8fbf0",
        [0.0081, 0.0, 0.0207, 0.0354, 0.003, 0.077],
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
    assert (teacher["name"], teacher["preprocessing"]["input_size"], teacher["weight"]) == ("mobilenetv2_100", 192, 20)
    assert teacher["both_directions"]
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert f"`{teacher['weights_sha256']}` |" in card
    assert (
        "mobilenetv2_100, each image at 192 px (bicubic), in both directions, weight of its part of the loss 20" in card
    )


def test_rounding_changes_the_hash() -> None:
    state = Small32(FAMILY["small32_s"]).state_dict()
    assert hash_of_state(state) != hash_of_state({name: value.half() for name, value in state.items()})


@pytest.mark.data
@pytest.mark.parametrize("name", BUNDLED)
def test_the_teacher_of_the_bundled_files_is_the_one_at_hand(name: str, real_weights: Path) -> None:
    teacher = json.loads(read_weights_file(BUNDLED_WEIGHTS / f"{name}.safetensors").metadata["teacher"])
    assert find_backbone("mobilenetv2_100", real_weights).weights_sha256 == teacher["weights_sha256"]
