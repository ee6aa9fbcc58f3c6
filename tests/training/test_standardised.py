"""Standardised rows: the same from memory and from a file."""

import errno
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.errors import DataError
from headstart.training import standardised
from headstart.training.standardised import BLOCK, StandardisedRows


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder that rows go to."""
    monkeypatch.setattr(standardised, "_IN_MEMORY", 0)
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("HEADSTART_CACHE", str(cache))
    return cache


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Features, one of which never moves, and two blocks and a half of their rows, in no order."""
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, (3000, 7)).astype(np.float32)
    features[:, 4] = 5
    return features, rng.permutation(3000)[: 2 * BLOCK + 500]


def test_each_feature_has_mean_0_and_deviation_1(on_disk: Path) -> None:
    features, rows = drawn()
    with StandardisedRows(features, rows) as found:
        blocks = [block.clone() for block in found.blocks()]
        again = [block.clone() for block in found.blocks()]
        assert [len(block) for block in blocks] == [BLOCK, BLOCK, 500]
        assert len(list(on_disk.iterdir())) <= 1  # where the system lets an open file have no name: none
    values = torch.cat(blocks)
    moving = [0, 1, 2, 3, 5, 6]
    assert torch.allclose(values.mean(0), torch.zeros(7), atol=1e-6)
    assert torch.allclose(values[:, moving].std(0, correction=0), torch.ones(6), atol=1e-5)
    assert not bool(values[:, 4].any())
    assert torch.equal(values, torch.cat(again))
    assert list(on_disk.iterdir()) == []


def test_memory_and_file_hold_the_same(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, rows = drawn()
    with StandardisedRows(features, rows) as filed:
        from_file = torch.cat([block.clone() for block in filed.blocks()])
    monkeypatch.setattr(standardised, "_IN_MEMORY", 1 << 20)
    held = StandardisedRows(features, rows)
    assert torch.allclose(from_file, torch.cat(list(held.blocks())), atol=1e-6)
    assert np.allclose(held.applied(features[:5].copy()), filed.applied(features[:5].copy()), atol=1e-6)


class FullFile(io.BytesIO):
    """A file on a disk without space."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class ShortFile(io.BytesIO):
    """A file of which a part is gone."""

    def readinto(self, _: object) -> int:
        return 0


def test_a_full_disk_is_named_and_the_file_closed(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FullFile()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: file)
    with pytest.raises(
        DataError, match=r"training features of a probe cannot be kept.*No space left.*HEADSTART_CACHE"
    ) as found:
        StandardisedRows(*drawn())
    assert str(on_disk) in str(found.value)
    assert file.closed


def test_a_file_that_cannot_be_read_any_more_is_named(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: ShortFile())
    with StandardisedRows(*drawn()) as found, pytest.raises(DataError, match="cannot be read"):
        list(found.blocks())


def test_the_file_lies_in_the_cache_or_where_that_cannot_be_written_with_other_temporary_ones(
    on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[object] = []

    def opened(**arguments: object) -> io.BytesIO:
        folders.append(arguments.get("dir"))
        return io.BytesIO()

    monkeypatch.setattr(tempfile, "TemporaryFile", opened)
    StandardisedRows(*drawn()).close()
    assert folders == [on_disk]
    blocked = tmp_path / "a file"
    blocked.write_text("where the folder should be")
    monkeypatch.setenv("HEADSTART_CACHE", str(blocked))
    StandardisedRows(*drawn()).close()
    assert folders == [on_disk, None]
