"""The benchmark's images: CIFAR-10 as PNG files and as arrays, a small part of it, and folders of larger JPEG files.

    python -m benchmarks.speed.data --cifar10 DIR --folder DIR --images N --out FILE

makes a folder of JPEG files, on all cores.
"""

import argparse
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.files import sha256_of_text, write_json
from headstart.randomness import generator

PARTS = ("train", "test")
JPEG_SIDE, JPEG_QUALITY, _NOISE = 256, 90, 8.0
"""Side, quality, and deviation of the noise that keeps enlarged pixels from compressing like flat ones (all chosen)."""

_TEST_SHARE = 6  # one image of six, as in CIFAR-10


def png_folder(source: Path, work: Path) -> Path:
    """CIFAR-10 as PNG files, which every peer reads; other lossless files, or an archive of them, are converted once."""
    if not source.exists():
        raise SystemExit(
            f"{source} does not exist. Expected CIFAR-10: a folder with train/ and test/, or an archive of one."
        )
    if source.is_dir() and {file.suffix for part in PARTS for file in _files(source, part)} == {".png"}:
        return source
    target = _place(source, work) / "cifar10-png"
    if target.exists():
        return target
    with _new_folder(target) as made:
        if source.is_dir():
            _convert(source, made)
        else:
            with tempfile.TemporaryDirectory(dir=work) as unpacked, tarfile.open(source) as archive:
                archive.extractall(unpacked, filter="data")
                (train,) = Path(unpacked).glob("**/train")
                _convert(train.parent, made)
    return target


def _place(source: Path, work: Path) -> Path:
    """A folder for what is made of a source as it is now: of another one, or a changed one, everything is made anew."""
    seen = source.stat()
    place = work / sha256_of_text(f"{source} {seen.st_size} {seen.st_mtime_ns}")[:8]
    place.mkdir(exist_ok=True)
    return place


def part_of(folder: Path, work: Path, per_class: int) -> Path:
    """A copy of the first images of each class: `per_class` of train and a third as many of test."""
    target = _place(folder, work) / f"cifar10-{per_class}"
    if not target.exists():
        with _new_folder(target) as made:
            for part, wanted in zip(PARTS, (per_class, per_class // 3), strict=True):
                for name in _classes(folder):
                    (made / part / name).mkdir(parents=True)
                    for file in sorted((folder / part / name).iterdir())[:wanted]:
                        shutil.copy(file, made / part / name / file.name)
    return target


def arrays_of(folder: Path, work: Path) -> Path:
    """The images of a folder as arrays, as data sets that come with a framework have them."""
    target = _place(folder, work) / f"{folder.name}.npz"
    if not target.exists():
        arrays = {}
        for part in PARTS:
            files = _files(folder, part)
            arrays[f"{part}_images"] = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
            names = _classes(folder)
            arrays[f"{part}_labels"] = np.array([names.index(file.parent.name) for file in files], np.int64)
        with tempfile.TemporaryDirectory(dir=work) as made:
            np.savez(Path(made) / "arrays.npz", **arrays)  # type: ignore[arg-type]
            (Path(made) / "arrays.npz").rename(target)
    return target


def headstart_arrays(arrays: Path) -> Path:
    """The same arrays in one file as `headstart compare` takes them: `X`, `y` and `part`."""
    target = arrays.with_name(f"headstart-{arrays.name}")
    if not target.exists():
        with np.load(arrays) as file, tempfile.TemporaryDirectory(dir=arrays.parent) as made:
            joined = {
                name: np.concatenate([file[f"{part}_{kind}"] for part in PARTS])
                for name, kind in (("X", "images"), ("y", "labels"))
            }
            joined["part"] = np.repeat(PARTS, [len(file[f"{part}_labels"]) for part in PARTS])
            np.savez(Path(made) / "arrays.npz", **joined)  # type: ignore[arg-type]
            (Path(made) / "arrays.npz").rename(target)
    return target


def read_all(folder: Path) -> int:
    """Read every file once, so that the first process to be measured does not wait for the disk alone; return the bytes."""
    return sum(len(file.read_bytes()) for part in PARTS for file in _files(folder, part))


def main() -> None:
    """Make a folder of JPEG files; those that are there already stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    wanted = list(_wanted(arguments.cifar10, arguments.folder, arguments.images))
    for one in {one.target.parent for one in wanted}:
        one.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(_write_jpeg, wanted, chunksize=64))
    write_json(arguments.out, {"images": len(sizes), "bytes": sum(sizes)})


@dataclass(frozen=True)
class _Wanted:
    """A JPEG file to be made: `number` draws its noise."""

    source: Path
    target: Path
    number: int


def _wanted(cifar10: Path, folder: Path, images: int) -> Iterator[_Wanted]:
    """Classes in turn, so that every number of images is balanced; beyond CIFAR-10's number the noise alone differs."""
    for part, count in (("train", images - images // _TEST_SHARE), ("test", images // _TEST_SHARE)):
        by_class = [sorted((cifar10 / part / name).iterdir()) for name in _classes(cifar10)]
        files = [file for row in zip_longest(*by_class) for file in row if file is not None]
        for number in range(count):
            source = files[number % len(files)]
            yield _Wanted(source, folder / part / source.parent.name / f"{number:06d}.jpg", number)


def _write_jpeg(wanted: _Wanted) -> int:
    if not wanted.target.exists():
        enlarged = Image.open(wanted.source).convert("RGB").resize((JPEG_SIDE,) * 2, Image.Resampling.BICUBIC)
        rng = generator(wanted.number, "benchmark", wanted.target.parent.parent.name)
        noisy = np.asarray(enlarged, np.float32) + rng.normal(0, _NOISE, (JPEG_SIDE, JPEG_SIDE, 3))
        temporary = wanted.target.with_suffix(".tmp")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(temporary, "JPEG", quality=JPEG_QUALITY)
        temporary.replace(wanted.target)
    return wanted.target.stat().st_size


def _classes(folder: Path) -> list[str]:
    return sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir())


def _files(folder: Path, part: str) -> list[Path]:
    if not (folder / part).is_dir():
        raise SystemExit(f"{folder} has no folder {part!r}. Expected train/<class>/ and test/<class>/ with images.")
    return [file for name in _classes(folder) for file in sorted((folder / part / name).iterdir())]


def _convert(source: Path, target: Path) -> None:
    for part in PARTS:
        for file in _files(source, part):
            place = target / part / file.parent.name
            place.mkdir(parents=True, exist_ok=True)
            Image.open(file).convert("RGB").save(place / f"{file.stem}.png")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that gets its name once it is whole."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        yield Path(made)
        Path(made).rename(target)
        Path(made).mkdir()  # for the block to remove


if __name__ == "__main__":
    main()
