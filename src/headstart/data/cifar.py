"""CIFAR-10 and CIFAR-100: downloaded once, verified, read by torchvision."""

import logging
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from headstart.data.cache import ImageWriter, SeenFile, cached_images, listing_signature
from headstart.data.fingerprint import image_hashes, set_fingerprint
from headstart.environment import require_working_packages
from headstart.errors import DataError, DataUnavailableError
from headstart.files import cache_folder, sha256_of_file, written_atomically
from headstart.records import ImageSet, SizeCount

_TIMEOUT_SECONDS = 30  # chosen: of one silent wait, not of the whole download
_CHUNK_BYTES = 1 << 18

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """Where a data set comes from and how it is recognised.

    Attributes:
        title: the data set's own name.
        reader: class of `torchvision.datasets` that reads it, and checks the MD5 of every file.
        folder: what the archive unpacks to.
        filename: of the archive.
        url: where to download it.
        sha256: of the archive.
    """

    title: str
    reader: str
    folder: str
    filename: str
    url: str
    sha256: str


# Address: the authors' page, www.cs.toronto.edu/~kriz/cifar.html. SHA-256: as in keras/src/datasets/cifar10.py and
# cifar100.py.
ARCHIVES = {
    "cifar10": Archive(
        title="CIFAR-10",
        reader="CIFAR10",
        folder="cifar-10-batches-py",
        filename="cifar-10-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "cifar100": Archive(
        title="CIFAR-100",
        reader="CIFAR100",
        folder="cifar-100-python",
        filename="cifar-100-python.tar.gz",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
}


def load_cifar(name: str, *, download: bool = True, progress: Callable[[int, int], None] | None = None) -> ImageSet:
    """Load CIFAR-10 or CIFAR-100 with its official train and test parts.

    Copies that torchvision or Keras unpacked before, in `./data` or in the Keras folder, are used where they are.

    Args:
        name: `cifar10` or `cifar100`.
        download: whether the network may be used.
        progress: called with (bytes done, bytes in all) while downloading.

    Returns:
        The set, canvas 32.

    Raises:
        DataUnavailableError: it is not on this machine and cannot be downloaded.
        DataError: an archive is there, but it is not the one that was published.
    """
    archive = ARCHIVES[name]
    root = _unpacked_root(archive) or _unpack(name, archive, download=download, progress=progress)
    try:
        images = cached_images(_signature(root, archive), partial(_build, archive, root))
    except DataError:
        # What was unpacked is damaged. Our own copy can be made again; another program's copy is not ours to touch.
        if root != _downloads():
            _log.warning("%s holds a damaged copy of %s; it is not used.", root, archive.title)
        root = _unpack(name, archive, download=download, progress=progress)
        images = cached_images(_signature(root, archive), partial(_build, archive, root))
    return replace(images, name=name, source=name)


def _downloads() -> Path:
    return cache_folder() / "downloads"


def _unpacked_root(archive: Archive) -> Path | None:
    """The first folder that already has the unpacked data set, if there is one."""
    keras = Path.home() / ".keras" / "datasets"
    places = (_downloads(), Path("data"), keras, keras / f"{archive.folder}-target")
    return next((place for place in places if (place / archive.folder).is_dir()), None)


def _signature(root: Path, archive: Archive) -> str:
    files = []
    for path in sorted((root / archive.folder).iterdir()):
        seen = path.stat()
        files.append(SeenFile(path.name, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))
    return listing_signature(files, archive.reader)


def _build(archive: Archive, root: Path, target: Path) -> ImageSet:
    train = _read(archive, root, train=True, unpack=False)
    test = _read(archive, root, train=False, unpack=False)
    pixels = np.concatenate([train.data, test.data])
    labels = np.array([*train.targets, *test.targets], dtype=np.int64)
    parts = np.repeat(np.array([0, 2], dtype=np.int8), [len(train.data), len(test.data)])
    class_names = tuple(str(name) for name in train.classes)
    canvas = pixels.shape[1]
    with ImageWriter(target / "images.npy", canvas, len(pixels)) as writer:
        writer.append(pixels)
    return ImageSet(
        name="",
        source="",
        images=pixels,
        labels=labels,
        class_names=class_names,
        official_part=parts,
        fingerprint=set_fingerprint(pixels, labels, class_names, parts),
        image_hashes=image_hashes(pixels),
        original_sizes=(SizeCount(canvas, canvas, len(pixels)),),
        mirror_safe=True,  # animals and vehicles, seen from either side
    )


def _read(archive: Archive, root: Path, *, train: bool, unpack: bool) -> Any:
    """Let torchvision read one part; `unpack` lets it open the archive that lies in `root`."""
    require_working_packages()
    from torchvision import datasets

    with warnings.catch_warnings():
        # The published files were pickled by NumPy 1 with `align=0`, which NumPy 2.4 warns about.
        warnings.filterwarnings("ignore", message=".*align.*")
        try:
            return getattr(datasets, archive.reader)(str(root), train=train, download=unpack)
        except RuntimeError as error:
            raise DataError(f"The copy of {archive.title} in {root} is damaged ({error}). Delete {root}.") from error


def _unpack(name: str, archive: Archive, *, download: bool, progress: Callable[[int, int], None] | None) -> Path:
    """Make sure that the archive is in the downloads folder, is the published one, and is unpacked there."""
    root = _downloads()
    path = root / archive.filename
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{archive.filename}.lock"):
            if not path.exists():
                if not download:
                    raise DataUnavailableError(_ways_out(name, archive, path, "downloading was not allowed"))
                try:
                    _download(archive, path, progress)
                except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
                    reason = f"{archive.url} cannot be reached: {getattr(error, 'reason', None) or error}"
                    raise DataUnavailableError(_ways_out(name, archive, path, reason)) from error
            if (found := sha256_of_file(path)) != archive.sha256:
                raise DataError(
                    f"{path} is not the published {archive.title}: expected SHA-256 {archive.sha256}, found {found}. "
                    f"Delete it and run the same command again, or put the file from {archive.url} in its place."
                )
            _read(archive, root, train=True, unpack=True)
    except OSError as error:
        raise DataError(
            f"{archive.title} cannot be kept in {root} ({error.strerror or error}). Free some space there, or let the "
            "environment variable HEADSTART_CACHE name a folder that can be written."
        ) from error
    return root


def _download(archive: Archive, path: Path, progress: Callable[[int, int], None] | None) -> None:
    _log.info("Downloading %s from %s to %s", archive.title, archive.url, path)
    request = urllib.request.Request(archive.url, headers={"User-Agent": "headstart"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response, written_atomically(path) as temporary:
        total = int(response.headers.get("Content-Length") or 0)
        done = 0
        with temporary.open("wb") as stream:
            while chunk := response.read(_CHUNK_BYTES):
                stream.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, max(total, done))
        if total and done < total:
            raise ConnectionError(f"the connection ended after {done} of {total} bytes")
        if (found := sha256_of_file(temporary)) != archive.sha256:
            raise ConnectionError(f"what came is not {archive.title} (SHA-256 {found}, expected {archive.sha256})")


def _ways_out(name: str, archive: Archive, path: Path, reason: str) -> str:
    return (
        f"{archive.title} is not on this machine, and {reason}. Three ways out: "
        f"(1) download {archive.url} elsewhere and put the file at {path}; "
        "(2) name a folder of images instead, DIR/<class>/<image files> or DIR/train/<class> and DIR/test/<class>; "
        f"(3) use `digits` instead of `{name}`: it needs no network."
    )
