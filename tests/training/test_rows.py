"""Rows of a part: the same from the host's memory as from the device's."""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from headstart.files import read_rows
from headstart.training import rows as under_test
from headstart.training.rows import Rows, keeps

CPU = torch.device("cpu")
INDICES = np.array([9, 0, 4, 7, 2, 1, 3])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("block", [3, 4096])
def test_kept_or_not_the_rows_are_the_same(dtype: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 200, (10, 4, 5)).astype(dtype)
    asked = (np.array([6, 0, 0]), np.arange(7), np.array([], np.int64))
    plain = Rows(array, INDICES, CPU)
    found = [plain.at(positions) for positions in asked]
    monkeypatch.setattr(under_test, "keeps", lambda *_: True)
    monkeypatch.setattr(under_test, "held_rows", lambda _: block)
    kept = Rows(array, INDICES, CPU)
    for positions, from_host in zip(asked, found, strict=True):
        from_device = kept.at(positions)
        assert isinstance(from_host, np.ndarray)
        assert isinstance(from_device, torch.Tensor)
        assert from_device.numpy().dtype == dtype
        assert np.array_equal(from_host, array[INDICES[positions]])
        assert np.array_equal(from_device.numpy(), from_host)


def test_a_part_is_copied_once_and_only_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(10)
    monkeypatch.setattr(under_test, "keeps", lambda *_: True)
    kept = Rows(array, np.arange(10), CPU)
    array[0] = 50
    kept.at(np.array([1]))
    array[1] = 60
    assert torch.as_tensor(kept.at(np.array([0, 1]))).tolist() == [50, 1]


@pytest.mark.parametrize(("limit", "reads"), [(4 * 7, [5, 2, 7]), (4 * 7 - 1, [5, 2, 5, 2, 1])])
def test_a_small_part_that_is_gone_through_again_is_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, reads: list[int]
) -> None:
    path = tmp_path / "features.npy"
    np.save(path, np.arange(20, 30, dtype=np.float32))
    from_file: list[int] = []

    def counted(array: Any, rows: Any) -> Any:
        if isinstance(array, np.memmap):
            from_file.append(len(rows))
        return read_rows(array, rows)

    monkeypatch.setattr(under_test, "_READ_ONCE", limit)
    monkeypatch.setattr(under_test, "read_rows", counted)
    rows = Rows(np.load(path, mmap_mode="r"), INDICES, CPU)
    for positions in ([6, 0, 1, 2, 3], [4, 5], [5, 4, 3, 2, 1], [0, 6], [2]):
        assert np.array_equal(rows.at(np.array(positions)), 20 + INDICES[positions])
    assert from_file == reads


def test_batches_of_a_large_mapped_file_do_not_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_READ_ONCE", 1_000_000)
    path = tmp_path / "images.npy"
    np.save(path, np.full((64, 512, 512, 3), 7, np.uint8))  # 50 MB
    images = np.load(path, mmap_mode="r")
    rows = Rows(images, np.arange(64), CPU)
    before = psutil.Process().memory_info().rss
    for first in range(0, 64, 2):
        assert (rows.at(np.arange(first, first + 2)) == 7).all()
    assert psutil.Process().memory_info().rss - before < 10_000_000


@pytest.mark.parametrize(
    ("device_type", "needed", "free", "kept"),
    [("cuda", 1, 4, True), ("cuda", 2, 4, False), ("cuda", 0, 0, True), ("cpu", 1, 100, False), ("mps", 1, 100, False)],
)
def test_a_quarter_of_a_gpus_free_memory(device_type: str, needed: int, free: int, kept: bool) -> None:
    assert keeps(device_type, needed, free) == kept
