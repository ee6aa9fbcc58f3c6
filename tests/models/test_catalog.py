"""The list of backbones: what is in the package, in weight folders, in the hub's cache, and what would be downloaded."""

from pathlib import Path

import pytest

from headstart.models.catalog import HUB_SUGGESTIONS, list_backbones
from tests.models.factory import TINY, write_tiny_weights


def test_files_come_first_and_the_hubs_are_marked_as_not_here(tmp_path: Path) -> None:
    write_tiny_weights(tmp_path, TINY)
    listed = {entry.name: entry for entry in list_backbones(tmp_path)}
    tiny = listed[TINY]
    assert (tiny.origin, tiny.here, tiny.native_size, tiny.licence) == ("file", True, 64, "CC0-1.0")
    assert tiny.file_bytes == (tmp_path / f"{TINY}.safetensors").stat().st_size
    assert listed["resnet18"].origin == "hub"
    assert not listed["resnet18"].here
    assert listed["resnet18"].parameters == 11_176_512
    assert listed["resnet18"].native_size == 224
    here = [entry.here for entry in listed.values()]
    assert here == sorted(here, reverse=True)


def test_a_file_hides_the_hubs_copy_of_the_same_name(tmp_path: Path) -> None:
    assert "mobilenetv2_100" in HUB_SUGGESTIONS
    write_tiny_weights(tmp_path, "other")
    names = [entry.name for entry in list_backbones(tmp_path)]
    assert str(tmp_path / "other.safetensors") in names
    assert len(names) == len(set(names))


def test_what_was_downloaded_before_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "model.safetensors"
    cached.write_bytes(b"x" * 10)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, _: str(cached) if "resnet18" in repository else None,
    )
    listed = {entry.name: entry for entry in list_backbones()}
    assert (listed["resnet18"].here, listed["resnet18"].file_bytes) == (True, 10)
    assert not listed["resnet50"].here
