"""Frozen features: both engines agree, what is kept is not computed again, a failing export falls back."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from headstart.data.preprocessing import _per_channel, apply_preprocessing, resized_pixels
from headstart.data.sources import load_images
from headstart.errors import DataError
from headstart.models.backbones import build_random_backbone, untrained_backbone
from headstart.records import ImageSet, Preprocessing
from headstart.study.observer import SilentObserver
from headstart.training import frozen
from headstart.training.features import _FromPixels, are_extracted, extract_features
from headstart.training.frozen import FrozenNetwork, Way, choose_forward
from tests.models.factory import TINY

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_images("digits", limit=60)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return build_random_backbone(untrained_backbone(TINY), 0)


def _extract(images: ImageSet, module: nn.Module, key: str = "tiny", **settings: Any) -> Any:
    return extract_features(images, module, key, PREPROCESSING, device=CPU, reporter=SilentObserver(), **settings)


def test_features_equal_plain_pytorchs(images: ImageSet, module: nn.Module) -> None:
    features = _extract(images, module)
    with torch.inference_mode():
        expected = module(apply_preprocessing(images.images, PREPROCESSING)).numpy()
    assert features.engine == "onnxruntime"
    assert features.values.shape == expected.shape
    assert np.abs(features.values - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("channel_order", ["RGB", "BGR"])
@pytest.mark.parametrize("half_precision", [False, True])
def test_the_engine_scales_and_normalises_as_every_other_part_of_the_program_does(
    images: ImageSet, module: nn.Module, channel_order: Literal["RGB", "BGR"], half_precision: bool
) -> None:
    preprocessing = replace(PREPROCESSING, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channel_order=channel_order)
    few = replace(images, images=images.images[:100], labels=images.labels[:100])
    found = extract_features(
        few,
        module,
        "tiny",
        preprocessing,
        device=CPU,
        reporter=SilentObserver(),
        half_precision=half_precision,
    )
    with torch.inference_mode():
        expected = module(apply_preprocessing(few.images, preprocessing)).numpy()
    assert found.engine == "onnxruntime"
    relative = 1e-3 if half_precision else 1e-5
    assert np.abs(found.values - expected).max() <= relative * np.abs(expected).max()


def test_an_exporter_leaves_nothing_behind_in_what_prepares_pixels(images: ImageSet, module: nn.Module) -> None:
    preprocessing = replace(PREPROCESSING, mean=(0.11, 0.12, 0.13), std=(0.21, 0.22, 0.23))
    expected = apply_preprocessing(images.images[:4], preprocessing)
    _per_channel.cache_clear()
    network = _FromPixels(module, preprocessing).eval()
    torch.export.export(network, (resized_pixels(images.images[:4], preprocessing).contiguous(),), strict=False)
    assert torch.equal(apply_preprocessing(images.images[:4], preprocessing), expected)
    assert not any(part.training for part in network.modules())


def test_a_second_time_nothing_is_computed(images: ImageSet, module: nn.Module) -> None:
    first = _extract(images, module)

    class Forbidden(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise AssertionError("computed again")

    again = _extract(images, Forbidden())
    assert np.array_equal(first.values, again.values)
    assert again.seconds == first.seconds
    with pytest.raises(AssertionError, match="computed again"):
        _extract(images, Forbidden(), key="another network")


def test_half_precision_is_kept_as_such(images: ImageSet, module: nn.Module) -> None:
    exact, half = _extract(images, module), _extract(images, module, half_precision=True)
    assert half.values.dtype == np.float16
    assert np.allclose(exact.values, half.values, rtol=2e-3, atol=1e-3)


def test_a_long_job_begins_with_a_race_that_is_remembered(
    images: ImageSet, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setattr("headstart.training.frozen._WORTH_A_RACE", 0.0)
    monkeypatch.setattr("headstart.training.frozen._RACE_SECONDS", 0.02)
    races: list[list[Way]] = []
    race = frozen._race

    def noted(forwards: dict[Way, frozen.Forward], inputs: torch.Tensor) -> Way:
        races.append(list(forwards))
        return race(forwards, inputs)

    monkeypatch.setattr("headstart.training.frozen._race", noted)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        features = _extract(images, module)
        _extract(images, module, half_precision=True)  # another job with the same network
        assert torch.get_num_threads() == 2
        # Whoever wins next time, on whatever machine: every way gives PyTorch's numbers.
        for way in races[0]:
            pixels = resized_pixels(images.images[:1], PREPROCESSING)
            forward, engine = choose_forward(_FromPixels(module, PREPROCESSING).eval(), pixels, CPU)
            network = FrozenNetwork(forward, engine, way)
            monkeypatch.setattr("headstart.training.features.fastest", lambda *_, network=network: network)
            again = _extract(images, module, key=str(way))
            assert np.abs(again.values - features.values).max() <= 1e-5 * np.abs(features.values).max()
    finally:
        torch.set_num_threads(threads)
    assert len(races) == 1
    assert {(way.workers, way.threads) for way in races[0]} == {(1, 2), (2, 1)}


def test_a_network_that_cannot_be_exported_is_run_by_pytorch(images: ImageSet) -> None:
    class Stubborn(nn.Module):
        """Branches on the data, which no export can follow."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) if float(images.sum()) > 1e9 else images.amax((2, 3))

    forward, engine = choose_forward(Stubborn(), apply_preprocessing(images.images[:4], PREPROCESSING), CPU)
    assert engine == "torch (cpu)"
    assert forward(torch.ones(2, 3, 4, 4)).tolist() == [[1.0] * 3] * 2


def test_a_graph_that_holds_for_one_number_of_images_only_is_not_used(images: ImageSet) -> None:
    class Tokens(nn.Module):
        """A class token beside the patches, as in a vision transformer: one exporter takes the number of images for fixed."""

        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.ones(1, 1, 3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            patches = images.flatten(2).transpose(1, 2)
            return torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], dim=1).sum(1)

    module = Tokens().eval()
    forward, engine = choose_forward(module, apply_preprocessing(images.images[:4], PREPROCESSING), CPU)
    assert engine == "onnxruntime"
    for count in (1, 3, 7):
        inputs = apply_preprocessing(images.images[:count], PREPROCESSING)
        with torch.inference_mode():
            assert np.allclose(forward(inputs), module(inputs).numpy(), rtol=1e-4, atol=1e-2), count


def test_a_killed_extraction_leaves_nothing_that_could_be_taken_for_finished(
    images: ImageSet, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))

    class Killed(Exception):
        pass

    class KillingReporter(SilentObserver):
        def advance(self, done: int, *_: Any, **__: Any) -> None:
            raise Killed

    with pytest.raises(Killed):
        extract_features(images, module, "k", PREPROCESSING, device=CPU, reporter=KillingReporter())
    assert not list(tmp_path.rglob("features.npy"))
    assert not list(tmp_path.rglob("facts.json"))


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_damaged_features_are_made_again(
    images: ImageSet, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    whole = np.array(_extract(images, module).values)
    (path,) = tmp_path.rglob("features.npy")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "gone":
        path.unlink()
    else:
        np.save(path, whole[:3])
    assert not are_extracted(images, "tiny", PREPROCESSING, device=CPU)
    assert np.array_equal(_extract(images, module).values, whole)
    assert are_extracted(images, "tiny", PREPROCESSING, device=CPU)


def test_a_full_disk_is_an_error_that_says_what_to_do_and_leaves_nothing(
    images: ImageSet, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))

    def full(path: Path, start: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("headstart.training.features.reserve", full)
    with pytest.raises(DataError, match=r"Features .* cannot be kept .*No space left on device.*HEADSTART_CACHE"):
        _extract(images, module)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".npy", ".tmp")]


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(
    images: ImageSet, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match="HEADSTART_CACHE"):
        _extract(images, module)


def test_what_a_killed_extraction_left_is_cleared_and_a_shared_cache_is_only_read(
    images: ImageSet, module: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    first = _extract(images, module)
    (path,) = tmp_path.rglob("features.npy")
    leftover = path.with_name(".features.npy.abcd.tmp")
    leftover.write_bytes(b"torn")
    path.unlink()
    _extract(images, module)
    assert not leftover.exists()
    monkeypatch.setattr("headstart.training.features.os.access", lambda *_: False)
    monkeypatch.setattr("headstart.training.features.FileLock", None)  # nobody may write there
    assert np.array_equal(_extract(images, module).values, first.values)
