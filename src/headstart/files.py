"""Files written whole or not at all: atomic writes, SHA-256, canonical JSON, and where caches live."""

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt

from headstart.errors import RunError

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
