"""The bottom layer: randomness, files, errors, command lines, the lazy package."""

import gc
import importlib
import mmap
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import headstart
from headstart import errors
from headstart.cli import main
from headstart.cli.app import quick_imports
from headstart.environment import command_line
from headstart.errors import HeadstartError, RunError
from headstart.files import (
    cache_folder,
    canonical_json,
    read_json,
    read_rows,
    release_pages,
    sha256_of_file,
    sha256_of_text,
    write_json,
    written_atomically,
)
from headstart.randomness import derive_seed, generator


def test_purposes_have_streams_of_their_own() -> None:
    first, again, other, seeded = (
        generator(seed, purpose, 1).random(5).tolist()
        for seed, purpose in ((0, "order"), (0, "order"), (0, "augmentation"), (1, "order"))
    )
    assert first == again
    assert first != other
    assert first != seeded
    assert derive_seed(1, "2") != derive_seed(12, "")
    assert 0 <= derive_seed(0) < 2**63


def test_randomness_leaves_numpys_global_state_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    generator(3, "anything").random(10)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index] # noqa: NPY002


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": "ñ"}) == canonical_json({"a": "ñ", "b": 1})
    with pytest.raises(ValueError):
        canonical_json({"x": float("nan")})


def test_hashes_equal_the_published_ones(tmp_path: Path) -> None:
    # SHA-256 of "abc": FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_text("abc") == expected == sha256_of_file(tmp_path / "abc")


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": True})

    def fail() -> None:
        with written_atomically(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(path) == {"old": True}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_written_files_can_be_read_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("content", "named"), [(None, "does not exist"), (b"{", "not readable JSON"), (b"\xff", "not readable")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, named: str) -> None:
    path = tmp_path / "facts.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=named) as caught:
        read_json(path)
    assert "facts.json" in str(caught.value)


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/headstart")


def test_every_error_is_ours_and_has_an_exit_code() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(found) == 8
    assert all(issubclass(error, HeadstartError) for error in found)
    assert all(error.__name__ in (errors.__doc__ or "") for error in found)


def test_every_public_name_can_be_had() -> None:
    for name in headstart.__all__:
        assert getattr(headstart, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = headstart.nothing


def test_importing_and_help_do_not_import_torch() -> None:
    code = "import sys, headstart, headstart.cli; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "False"]


def test_identity_of_a_record_is_stable_across_processes() -> None:
    code = "from headstart.randomness import derive_seed; print(derive_seed(7, 'order', 3))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == derive_seed(7, "order", 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_rows_are_read_from_a_mapped_file_as_they_would_be_seen_in_it(tmp_path: Path, dtype: Any) -> None:
    path = tmp_path / "rows.npy"
    values = np.random.default_rng(0).integers(0, 200, (40, 3, 5)).astype(dtype)
    np.save(path, values)
    mapped = np.load(path, mmap_mode="r")
    for rows in ([7], [3, 4, 5, 9, 9, 8, 0, 39], range(40), []):
        found = read_rows(mapped, np.array(rows, np.int64))
        assert found.dtype == dtype
        assert not isinstance(found, np.memmap)
        assert np.array_equal(found, values[np.array(rows, np.int64)])
    some = np.array([5, 2])
    np.save(tmp_path / "columns.npy", np.asfortranarray(values))
    columns = np.load(tmp_path / "columns.npy", mmap_mode="r")
    assert isinstance(columns, np.memmap)
    assert not columns.flags.c_contiguous
    changed = np.load(path, mmap_mode="c")
    changed[5] = 7  # in memory alone
    for other in (values, mapped[10:], mapped[:, 1:], columns, changed):
        assert np.array_equal(read_rows(other, some), other[some])
    assert np.array_equal(read_rows(mapped, np.array([-1, 3])), values[[-1, 3]])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets nobody take a mapped file away")
@pytest.mark.parametrize("replaced", [False, True])
def test_rows_of_a_mapped_file_that_was_taken_away_are_those_of_the_mapping(tmp_path: Path, replaced: bool) -> None:
    values, path = np.arange(30.0).reshape(10, 3), tmp_path / "rows.npy"
    np.save(path, values)
    mapped = np.load(path, mmap_mode="r")
    path.unlink()
    if replaced:
        np.save(path, np.zeros((40, 3)))
    assert np.array_equal(read_rows(mapped, np.array([5, 2])), values[[5, 2]])


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="this system keeps a mapped file's pages as it likes")
def test_released_pages_leave_the_process_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(4_000_000,))
    written[:] = 3.0
    release_pages(written)  # not flushed: what was written must not be lost
    assert float(written[-1]) == 3.0
    mapped = np.load(path, mmap_mode="r")
    process = psutil.Process()
    before = process.memory_info().rss
    assert float(mapped.sum()) == 12_000_000
    assert process.memory_info().rss - before > 12_000_000
    release_pages(mapped)
    assert process.memory_info().rss - before < 4_000_000
    assert float(mapped[::1000].sum()) == 12_000
    release_pages(np.ones(3))  # of an array in memory there is nothing to give back


@pytest.mark.parametrize(
    ("set_by_user", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "5"}, {"GOMP_SPINCOUNT": "5"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_command_line_lets_waiting_threads_sleep_unless_its_user_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, set_by_user: dict[str, str], expected: dict[str, str]
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what the program sets is taken back after the test
        monkeypatch.delenv(name)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    seen: list[dict[str, str]] = []

    def command() -> None:
        seen.append({name: os.environ[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in os.environ})

    monkeypatch.setattr("headstart.cli.app.app", command)
    main()
    assert seen == [expected]


def test_garbage_is_collected_again_after_imports_and_what_they_made_is_left_out() -> None:
    before = gc.get_freeze_count()
    try:
        with pytest.raises(ModuleNotFoundError), quick_imports():  # noqa: PT012 - what is looked at holds within it
            assert not gc.isenabled()
            importlib.import_module("headstart.no_such_module")
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
        gc.disable()
        with quick_imports():
            pass
        assert not gc.isenabled(), "who had turned it off keeps it so"
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_command_is_quoted_for_the_shell_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("headstart", "compare", "my images", "--recipe", "R&D.toml")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("headstart.environment.os.name", "nt")
        on_windows = command_line(*words)
        at_its_end = command_line(r"C:\images", r"C:\my images" + "\\")
    assert at_its_end == r'C:\images "C:\my images\\"'
    assert on_windows == 'headstart compare "my images" --recipe "R&D.toml"'
    if os.name == "posix":
        assert command_line(*words) == "headstart compare 'my images' --recipe 'R&D.toml'"
