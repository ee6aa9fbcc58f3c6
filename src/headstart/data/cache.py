"""Decoded images kept on disk, so that a second run decodes nothing.

    <cache>/images/<fingerprint>/images.npy   pixels, (N, S, S, 3) uint8, memory-mapped when used
    <cache>/images/listings/<signature>.json  everything else that decoding found, and the fingerprint

A signature stands for files as they were seen (name, size, times); a fingerprint for what was decoded from them. Two
folders with the same content share their pixels.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from headstart.data.decode import DECODER_VERSION
from headstart.data.fingerprint import set_fingerprint
from headstart.errors import RunError
from headstart.files import cache_folder, canonical_json, kept_in, read_json, write_text
from headstart.records import Converted, Images, ImageSet, LeftOut, SizeCount

_LAYOUT_VERSION = 1
_VERIFIED_BYTES = 1 << 30  # up to 1 GiB (0.6 s of SHA-256, measured on 2 cores) pixels are hashed again at every use

_DAMAGED = (RunError, OSError, ValueError, KeyError, TypeError, AttributeError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeenFile:
    """A file as a listing sees it: its path relative to the source (`/`-separated) and what `stat` says."""

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


def listing_signature(files: Iterable[SeenFile], *purpose: str) -> str:
    """Hash a listing of files, without opening them.

    The time of the last change of the inode is part of it, because archives can carry equal sizes and modification
    times.

    Args:
        files: in a fixed order.
        purpose: words that keep apart what is made from the same files.

    Returns:
        64 hexadecimal digits; it also changes with the version of the decoder.
    """
    digest = hashlib.sha256(canonical_json([_LAYOUT_VERSION, DECODER_VERSION, *purpose]).encode())
    for file in files:
        line = f"{file.path}\0{file.size}\0{file.mtime_ns}\0{file.ctime_ns}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def cached_images(signature: str, build: Callable[[Path], ImageSet]) -> ImageSet:
    """Return the images of a signature: from disk if they are there and whole, otherwise built, stored, and then read.

    Args:
        signature: from `listing_signature`.
        build: called with a new folder in which it writes `images.npy` (see `ImageWriter`); returns the set, whose
            `images` are those of the file. A second process that wants the same signature waits for the first.

    Returns:
        The set as it was built, with memory-mapped, read-only `images`.

    Raises:
        DataError: the cache folder cannot be written, or the disk is full.
    """
    root = cache_folder() / "images"
    listing = root / "listings" / f"{signature}.json"
    if listing.exists() and not os.access(listing.parent, os.W_OK):
        with suppress(*_DAMAGED):  # a cache that others share and only read
            return _read(root, listing)
    with kept_in(root, "Decoded images"):
        listing.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(listing.with_suffix(".lock")):
            try:
                return _read(root, listing)
            except FileNotFoundError:
                pass
            except _DAMAGED as error:
                _log.warning("The cached images of %s are damaged (%s) and are made again.", listing, error)
            building = root / f".building-{signature[:16]}"
            shutil.rmtree(building, ignore_errors=True)  # left there by a run that was killed
            building.mkdir(parents=True)
            try:
                built = build(building)
                target = root / built.fingerprint
                text = json.dumps(_described(built))
                with FileLock(root / f".{built.fingerprint[:16]}.lock"):
                    already_there = _holds(target, built)
                    del built  # Windows renames no folder with a file that is still mapped
                    if not already_there:
                        shutil.rmtree(target, ignore_errors=True)
                        building.rename(target)
                    write_text(listing, text)
            finally:
                shutil.rmtree(building, ignore_errors=True)
            return _read(root, listing)


class ImageWriter:
    """Writes `(N, S, S, 3) uint8` images one after the other to an `.npy` file whose N is known only at the end.

    A plain file, not a memory map: a full disk must be an error, and in a memory map it ends the process.
    """

    def __init__(self, path: Path, canvas: int, most: int) -> None:
        """Open the file; `most` is the largest N that may come."""
        self._canvas = canvas
        self._most = most
        self._count = 0
        self._stream = path.open("wb")
        self._start = self._write_header(most)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._stream.seek(0)
                if self._write_header(self._count) != self._start:
                    raise RunError("The header of images.npy changed its length; please report this.")
                self._stream.flush()
                os.fsync(self._stream.fileno())
        finally:
            self._stream.close()

    def append(self, images: npt.NDArray[np.uint8]) -> None:
        """Write `(n, S, S, 3)` or `(S, S, 3)` more."""
        block = np.ascontiguousarray(images).reshape(-1, self._canvas, self._canvas, 3)
        self._stream.write(block.data)
        self._count += len(block)

    def _write_header(self, count: int) -> int:
        shape = (count, self._canvas, self._canvas, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)
        return self._stream.tell()


def _described(images: ImageSet) -> dict[str, Any]:
    """Everything but the pixels, as JSON can hold it."""
    return {
        "layout_version": _LAYOUT_VERSION,
        "fingerprint": images.fingerprint,
        "shape": list(images.images.shape),
        "name": images.name,
        "source": images.source,
        "labels": images.labels.tolist(),
        "class_names": list(images.class_names),
        "official_part": None if images.official_part is None else images.official_part.tolist(),
        "image_hashes": images.image_hashes.tolist(),
        "paths": list(images.paths),
        "left_out": [asdict(file) for file in images.left_out],
        "converted": [asdict(kind) for kind in images.converted],
        "original_sizes": [asdict(size) for size in images.original_sizes],
        "mirror_safe": images.mirror_safe,
    }


def _read(root: Path, listing: Path) -> ImageSet:
    """Read a set, and refuse it if anything is missing or not as it was written."""
    if not listing.is_file():
        raise FileNotFoundError(listing)
    told = read_json(listing)
    if told["layout_version"] != _LAYOUT_VERSION:
        raise ValueError(f"layout version {told['layout_version']}, expected {_LAYOUT_VERSION}")
    parts = told["official_part"]
    described = ImageSet(
        name=told["name"],
        source=told["source"],
        images=np.empty((0, *told["shape"][1:]), dtype=np.uint8),
        labels=np.array(told["labels"], dtype=np.int64),
        class_names=tuple(told["class_names"]),
        official_part=None if parts is None else np.array(parts, dtype=np.int8),
        fingerprint=told["fingerprint"],
        image_hashes=np.array(told["image_hashes"], dtype="<U32"),
        paths=tuple(told["paths"]),
        left_out=tuple(LeftOut(**file) for file in told["left_out"]),
        converted=tuple(
            Converted(kind["conversion"], kind["count"], tuple(kind["examples"])) for kind in told["converted"]
        ),
        original_sizes=tuple(SizeCount(**size) for size in told["original_sizes"]),
        mirror_safe=told["mirror_safe"],
    )
    count = told["shape"][0]
    if not len(described.labels) == len(described.image_hashes) == count:
        raise ValueError(f"{len(described.labels)} labels for {count} images")
    pixels = _mapped(root / described.fingerprint)
    if list(pixels.shape) != told["shape"]:
        raise ValueError(f"{pixels.shape} pixels, expected {told['shape']}")
    if pixels.nbytes <= _VERIFIED_BYTES and _fingerprint(pixels, described) != described.fingerprint:
        raise ValueError("the pixels are not those that were written")
    return replace(described, images=pixels)


def _mapped(folder: Path) -> Images:
    pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise ValueError(f"images.npy holds {pixels.dtype} of {pixels.ndim} dimensions")
    return pixels  # type: ignore[no-any-return]


def _holds(folder: Path, images: ImageSet) -> bool:
    """Whether a folder already holds these pixels, whole."""
    try:
        pixels = _mapped(folder)
    except (OSError, ValueError):
        return False
    return pixels.shape == images.images.shape and _fingerprint(pixels, images) == images.fingerprint


def _fingerprint(pixels: Images, images: ImageSet) -> str:
    return set_fingerprint(pixels, images.labels, images.class_names, images.official_part)
