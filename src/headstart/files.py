"""Files written whole or not at all: atomic writes, SHA-256, canonical JSON, and where caches live."""

import errno
import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, RunError

_CHUNK_BYTES = 1 << 20  # chosen: large enough that hashing, not system calls, takes the time


def canonical_json(value: Any) -> str:
    """Write a value as JSON in one way only: sorted keys, no spaces, Unicode kept, no NaN.

    Args:
        value: anything that JSON can hold.

    Returns:
        The text. Equal values give equal texts, so that their hashes can be compared.

    Raises:
        ValueError: a number is NaN or infinite.

    >>> canonical_json({"b": 1, "a": [1.5, "ñ"]})
    '{"a":[1.5,"ñ"],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush it and rename it into place.

    Args:
        path: where the finished file will be. Its folder is made if missing.

    Yields:
        The temporary path to write to. If the block raises, it is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes files that only their owner can read; a finished file follows the user's umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def kept_in(folder: Path, what: str) -> Iterator[None]:
    """Turn an error of the cache's disk inside the block into one that says what to do.

    Args:
        folder: of the cache; errors about files elsewhere pass.
        what: that cannot be kept there, for the message.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None and not str(error.filename).startswith(str(folder)):
            raise
        raise DataError(
            f"{what} cannot be kept in {folder} ({error.strerror or error}). Free some space there, or let the environment variable "
            "HEADSTART_CACHE name a folder that can be written."
        ) from error


def reserve(path: Path, start: int) -> None:
    """Take the space of a file that was made long without being written, from a place on: on a full disk this is an error, and
    writing through a memory map ends the process.
    """
    size = path.stat().st_size
    with path.open("rb+") as stream:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(stream.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # this file system cannot do so
                    raise
            else:
                return
        stream.seek(start)
        while (left := size - stream.tell()) > 0:
            stream.write(bytes(min(left, _CHUNK_BYTES)))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON atomically: two-space indent, insertion order, Unicode kept, no NaN."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def release_pages(array: npt.NDArray[Any]) -> None:
    """Give the memory of a memory-mapped array's pages back; they stay in the file and come again when they are read.

    Pages that were read once count as the process's memory until somebody needs it, which makes a training on a large
    cache look (and on a small machine be) much larger than it is. Does nothing for other arrays and on systems that
    cannot do it.
    """
    mapped: Any = array.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def read_rows(array: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Some rows of an array, as a copy; those of a memory-mapped file are read from the file.

    Looked at through the mapping, a row brings its neighbours with it, and all of that counts as the process's memory: a fine-tuning
    held half a gigabyte of activations that way (docs/log.md). A file is taken to be replaced only by one that says the same, as
    caches that are named by their content are.

    Args:
        array: `(N, ...)` of any type.
        rows: `(n,) int64`, places in 0..N-1.

    Returns:
        `(n, ...)` of the array's type, contiguous.
    """
    mapped, base = cast(Any, array), cast(Any, array.base)
    # A view of a mapping has its parent for a base, and lies elsewhere in the file; what was written to one may not be there yet.
    in_file = isinstance(base, mmap.mmap) and isinstance(array, np.memmap) and array.flags.c_contiguous
    if not in_file or mapped.mode != "r" or not mapped.filename or not len(rows) or rows.min() < 0:
        return np.ascontiguousarray(array[rows])
    taken = np.empty((len(rows), *array.shape[1:]), array.dtype)
    numbers = taken.view(np.uint8).reshape(len(rows), -1)
    runs = np.flatnonzero(np.diff(rows, prepend=rows[0]) != 1)  # where a row does not follow the one before it
    try:
        with Path(mapped.filename).open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != mapped.offset + mapped.nbytes:
                raise EOFError(f"{mapped.filename} is another file.")
            for first, end in pairwise([*runs.tolist(), len(rows)]):
                file.seek(mapped.offset + int(rows[first]) * numbers.shape[1])
                _fill(numbers[first:end].data.cast("B"), file)
    except (OSError, EOFError):  # taken away or replaced meanwhile: the mapping still has it
        return np.ascontiguousarray(array[rows])
    return taken


def _fill(place: memoryview, file: RawIOBase) -> None:
    """Read until a place is full; one call reads two gigabytes at most."""
    while len(place):
        count = file.readinto(place)
        if not count:
            raise EOFError(f"{getattr(file, 'name', 'The file')} ends too early.")
        place = place[count:]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is not readable JSON ({error}). Delete it and run the same command again.") from error


def cache_folder() -> Path:
    """Return the folder for decoded images, features and downloads: `HEADSTART_CACHE`, or the platform's cache folder."""
    if chosen := os.environ.get("HEADSTART_CACHE"):
        return Path(chosen).expanduser()
    if os.name == "nt" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "headstart"
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "headstart"
    return Path.home() / ".cache" / "headstart"
