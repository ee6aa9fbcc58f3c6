"""Backbones: where weights are found, the errors when they are not, input sizes, and the cut for fine-tuning."""

import shutil
import socket
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from headstart.errors import UsageError, WeightsError, WeightsUnavailableError
from headstart.models.backbones import (
    build_backbone,
    build_random_backbone,
    default_input_size,
    find_backbone,
    located,
    made_for_small_images,
    seeded_torch,
    split_for_fine_tuning,
    untrained_backbone,
)
from headstart.models.weights import BUNDLED_WEIGHTS, weight_files
from tests.models.factory import TINY, tiny_state, write_foreign_files, write_tiny_weights, write_vit


def _image(size: int = 64) -> torch.Tensor:
    return torch.linspace(-1, 1, 2 * 3 * size * size).view(2, 3, size, size)


def test_a_file_gives_its_own_weights_and_preprocessing(tmp_path: Path) -> None:
    write_tiny_weights(tmp_path)
    backbone = find_backbone(TINY, tmp_path)
    assert (backbone.source, backbone.native_size, backbone.licence) == ("file", 64, "CC0-1.0")
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    module = build_backbone(backbone)
    assert not module.training
    assert torch.equal(module.state_dict()["conv_stem.weight"], tiny_state()["conv_stem.weight"])
    assert module(_image()).shape == (2, backbone.features)


def test_a_file_can_be_named_outright(tmp_path: Path) -> None:
    path = write_tiny_weights(tmp_path, name="anything")
    assert find_backbone(str(path)).path == path


def test_a_file_that_lacks_a_key_is_refused(tmp_path: Path) -> None:
    state = tiny_state()
    del state["conv_head.weight"]
    write_tiny_weights(tmp_path)
    save_file(
        state,
        tmp_path / f"{TINY}.safetensors",
        metadata={"architecture": TINY, "input_size": "64", "mean": "0,0,0", "std": "1,1,1"},
    )
    with pytest.raises(WeightsError, match=r"conv_head\.weight"):
        find_backbone(TINY, tmp_path)


@pytest.mark.parametrize("name", ["unheard", "argued", "fetched", "misfit", "model", "torn"])
def test_a_file_that_timm_cannot_build_is_refused_with_its_field(tmp_path: Path, name: str) -> None:
    said = write_foreign_files(tmp_path)[name]
    with pytest.raises(WeightsError) as caught:
        find_backbone(str(tmp_path / f"{name}.safetensors"))
    assert said in str(caught.value)
    assert f"{name}.safetensors" in str(caught.value)


def test_a_bundled_backbone_is_found_beside_files_that_do_not_fit(tmp_path: Path) -> None:
    write_foreign_files(tmp_path)
    assert find_backbone("small32_s", tmp_path).path == BUNDLED_WEIGHTS / "small32_s.safetensors"


def test_a_name_that_only_a_file_goes_by_is_that_files_path(tmp_path: Path) -> None:
    path = write_tiny_weights(tmp_path, name="mine")
    shutil.copy(BUNDLED_WEIGHTS / "small32_s.safetensors", tmp_path / "fine.safetensors")
    assert located("mine", tmp_path) == str(path)
    assert find_backbone(located("mine", tmp_path)).path == path
    # A name of timm's stays one, even where a file holds that architecture; a path stays a path.
    for name in (TINY, "small32_s", "resnet18.a1_in1k", str(path), "nosuchnet"):
        assert located(name, tmp_path) == name
    assert not made_for_small_images("fine")
    assert made_for_small_images(located("fine", tmp_path))


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UsageError, match="mobilenetv2_100"):
        find_backbone("mobilenet_v2_100")


def test_without_network_the_error_says_where_the_file_should_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:  # a port on which nobody listens
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(WeightsUnavailableError, match=f"put {TINY}.safetensors") as caught:
        find_backbone(TINY, tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


def test_weights_that_no_hub_has_are_not_called_a_failed_download(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="timm publishes none") as caught:
        find_backbone("mobilenetv2_035", tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(UsageError, match=r"no weights 'nonsense' of 'mobilenetv2_100'. It has: ra_in1k"):
        find_backbone("mobilenetv2_100.nonsense", tmp_path)


def test_the_hubs_own_cache_serves_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = timm.get_pretrained_cfg(TINY).hf_hub_id
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model(TINY)
    cache = tmp_path / "hub"
    snapshot = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(cache), raising=False)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repo, name: str(snapshot / name) if repo == repository else None,
    )
    backbone = find_backbone(TINY)
    assert backbone.source == "hub"
    assert torch.equal(
        build_backbone(backbone).state_dict()["conv_stem.weight"], network.state_dict()["conv_stem.weight"]
    )
    shutil.rmtree(cache)


def test_random_weights_follow_the_seed_and_leave_global_state_alone() -> None:
    backbone = untrained_backbone(TINY)
    before = torch.random.get_rng_state()
    first, again, other = (build_random_backbone(backbone, seed)(_image()) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_seeded_torch_puts_the_state_back_after_an_error() -> None:
    before = torch.random.get_rng_state()

    def fail() -> None:
        with seeded_torch(3):
            torch.rand(1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("canvas", "expected"), [(8, 96), (28, 128), (32, 128), (64, 128), (150, 160), (256, 224)])
def test_input_size_follows_data_and_backbone(canvas: int, expected: int) -> None:
    assert default_input_size(canvas, 224) == expected


def test_a_small_backbone_is_not_fed_more_than_it_was_made_for() -> None:
    assert default_input_size(32, 64) == 64


@pytest.mark.parametrize(("canvas", "native", "expected"), [(28, 28, 28), (20, 28, 28), (30, 28, 32), (35, 35, 35)])
def test_a_small_backbone_sees_its_own_size_where_the_images_are_no_larger(
    canvas: int, native: int, expected: int
) -> None:
    assert default_input_size(canvas, native) == expected


@pytest.mark.parametrize(
    ("canvas", "native", "expected"),
    [(40, 32, 40), (64, 32, 48), (256, 32, 48), (64, 28, 40), (256, 64, 64), (64, 8, 8)],
)
def test_of_larger_images_a_small_backbone_sees_at_most_half_as_much_again(
    canvas: int, native: int, expected: int
) -> None:
    assert default_input_size(canvas, native) == expected


def test_a_network_of_one_size_says_so(tmp_path: Path) -> None:
    assert untrained_backbone("test_vit").fixed_size
    assert not untrained_backbone(TINY).fixed_size
    sized = {"": 160, '{"img_size": 96}': 96, '{"img_size": [64, 64]}': 64}
    for arguments, side in sized.items():
        path = write_vit(tmp_path, side, arguments or "{}")
        backbone = find_backbone(str(path))
        assert (backbone.fixed_size, backbone.native_size) == (True, side)
        assert build_backbone(backbone)(torch.zeros(1, 3, side, side)).shape == (1, backbone.features)
    path = write_vit(tmp_path, 96, '{"dynamic_img_size": true}')
    free = find_backbone(str(path))
    assert not free.fixed_size
    assert build_backbone(free)(torch.zeros(1, 3, 128, 128)).shape == (1, free.features)


def test_a_file_that_says_another_size_than_its_networks_only_one_is_refused(tmp_path: Path) -> None:
    path = write_vit(tmp_path, 96, "{}")
    with pytest.raises(WeightsError, match="'input_size' in its metadata is 96, but test_vit takes 160 px only"):
        find_backbone(str(path))
    assert path not in [file.path for file in weight_files(tmp_path)]


@pytest.mark.parametrize("name", [TINY, "test_resnet", "mobilenetv2_035"])
def test_tail_after_trunk_is_the_backbone(name: str) -> None:
    module = build_random_backbone(untrained_backbone(name), 0)
    cut = split_for_fine_tuning(module, _image())
    assert cut is not None
    trunk, tail = cut
    other = _image() ** 2
    assert torch.allclose(tail(trunk(other)), module(other), rtol=1e-4, atol=1e-5)
    assert all(any(p is q for q in module.parameters()) for p in tail.parameters())


def test_an_architecture_of_another_shape_is_not_cut() -> None:
    module = build_random_backbone(untrained_backbone("test_vit"), 0)
    assert split_for_fine_tuning(module, torch.zeros(1, 3, 160, 160)) is None
