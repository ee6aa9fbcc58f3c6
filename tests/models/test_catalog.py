"""The list of backbones: what is in the package, in weight folders, in the hub's cache, and what would be downloaded."""

import shutil
from pathlib import Path

import pytest

from headstart.models import catalog
from headstart.models.backbones import find_backbone
from headstart.models.catalog import list_backbones
from headstart.models.weights import BUNDLED_WEIGHTS
from tests.models.factory import TINY, write_foreign_files, write_tiny_weights


def test_files_come_first_and_the_hubs_are_marked_as_not_here(tmp_path: Path) -> None:
    write_tiny_weights(tmp_path, TINY)
    listed = {entry.name: entry for entry in list_backbones(tmp_path).entries}
    tiny = listed[TINY]
    assert (tiny.origin, tiny.here, tiny.native_size, tiny.licence) == ("file", True, 64, "CC0-1.0")
    assert tiny.file_bytes == (tmp_path / f"{TINY}.safetensors").stat().st_size
    assert listed["resnet18"].origin == "hub"
    assert not listed["resnet18"].here
    assert listed["resnet18"].parameters == 11_176_512
    assert listed["resnet18"].native_size == 224
    here = [entry.here for entry in listed.values()]
    assert here == sorted(here, reverse=True)


def test_a_file_hides_the_hubs_copy_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "HUB_SUGGESTIONS", (TINY, "resnet18", "resnet50"))
    write_tiny_weights(tmp_path, "other")  # goes by its architecture
    write_tiny_weights(tmp_path, "resnet18")  # a name is a name, whatever the file holds
    listed = [(entry.name, entry.path) for entry in list_backbones(tmp_path).entries if entry.origin != "package"]
    assert listed == [
        (TINY, tmp_path / "other.safetensors"),
        (str(tmp_path / "resnet18.safetensors"), tmp_path / "resnet18.safetensors"),
        ("resnet50", None),
    ]


def test_each_name_leads_to_the_file_that_is_listed_under_it(tmp_path: Path) -> None:
    for name in ("better", "small32_m"):
        shutil.copy(BUNDLED_WEIGHTS / "small32_m.safetensors", tmp_path / f"{name}.safetensors")
    listed = [entry for entry in list_backbones(tmp_path).entries if entry.origin != "hub"]
    assert [entry.name for entry in listed] == [
        str(tmp_path / "better.safetensors"),
        "small32_m",
        "small32_l",
        str(BUNDLED_WEIGHTS / "small32_m.safetensors"),
        "small32_s",
    ]
    for entry in listed:
        assert find_backbone(entry.name, tmp_path).path == entry.path
    assert [entry.origin for entry in listed] == ["file", "file", "package", "package", "package"]


def test_files_that_do_not_fit_are_apart(tmp_path: Path) -> None:
    reasons = write_foreign_files(tmp_path)
    found = list_backbones(tmp_path)
    assert {file.path.stem for file in found.unusable} == reasons.keys()
    assert not any(entry.origin == "file" for entry in found.entries)


def test_what_was_downloaded_before_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "model.safetensors"
    cached.write_bytes(b"x" * 10)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, _: str(cached) if "resnet18" in repository else None,
    )
    listed = {entry.name: entry for entry in list_backbones().entries}
    assert (listed["resnet18"].here, listed["resnet18"].file_bytes) == (True, 10)
    assert not listed["resnet50"].here
