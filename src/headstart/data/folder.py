"""A folder with one subfolder per class becomes an image set.

DIR/<class>/...                              flat: all parts are drawn
DIR/train/<class>/...  DIR/test/<class>/...  parts are kept; val (or valid, validation) may be there too
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from headstart.data.cache import ImageWriter, SeenFile, cached_images, listing_signature
from headstart.data.decode import (
    DecoderSettings,
    Undecodable,
    decode_file,
    decoder_settings,
    read_size,
    to_canvas,
    use_decoder_settings,
)
from headstart.data.fingerprint import image_hash, set_fingerprint
from headstart.data.parallel import cores, map_in_order
from headstart.errors import DataError
from headstart.records import Converted, Images, ImageSet, LeftOut, SizeCount

LARGEST_CANVAS = 256  # chosen: networks here look at 224 pixels at most, and 256 leaves room for a crop
SMALLEST_CANVAS = 8
_CANVAS_STEP = 8  # chosen: networks halve the image several times
_FEW = 64  # chosen: of a set in which every tenth image has another size, one in a thousand looks uniform in so many
_MANY = 4000  # chosen: decoding so many takes as long as starting processes does
_SMALL, _MANY_CORES = 96, 6  # by measurements at 32 to 256 px on two cores, and at 64 px on 16
_EXAMPLES = 5  # paths shown for each conversion
_PART_NAMES = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
_PART_WORDS = ("train", "val", "test")
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"})


@dataclass(frozen=True)
class Listing:
    """What a folder holds, before anything is opened.

    Attributes:
        root: the folder.
        class_names: sorted by code point.
        files: in order of part, class and path.
        labels: of each file, an index into `class_names`.
        parts: of each file, 0 train, 1 val, 2 test; empty for a flat folder.
        left_out: files that stand beside the class folders.
    """

    root: Path
    class_names: tuple[str, ...]
    files: tuple[SeenFile, ...]
    labels: tuple[int, ...]
    parts: tuple[int, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _Ready:
    """One file after decoding: what goes to the cache, or why it is left out."""

    pixels: Images | None
    digest: str
    width: int
    height: int
    conversions: tuple[str, ...]
    reason: str
    detail: str


def load_folder(folder: Path, *, source: str, progress: Callable[[int, int], None] | None = None) -> ImageSet:
    """Decode a folder of images, or read what an earlier run decoded.

    Args:
        folder: see the top of this file.
        source: what the user asked for.
        progress: called with (files done, files in all) while files are decoded.

    Returns:
        The set. Files are tried by content; those that cannot be used are in `left_out`, with reasons.

    Raises:
        DataError: the folder has no usable layout, or a class has no usable image.
    """
    listing = scan_folder(folder)
    purpose = [*listing.class_names, "parts" if listing.parts else "flat"]
    signature = listing_signature(listing.files, "folder", *purpose)
    found = cached_images(signature, partial(_decode_all, listing, progress=progress))
    name = folder.resolve().name or "images"
    # Files beside the class folders are not part of the signature: they change nothing that is decoded.
    return replace(found, name=_shown(name), source=source, left_out=listing.left_out + found.left_out)


def scan_folder(folder: Path) -> Listing:
    """List a folder's classes, parts and files; nothing is opened.

    Hidden files and the litter of operating systems are skipped. Links to folders are followed, but never in a circle.

    Args:
        folder: see the top of this file.

    Returns:
        The listing, in an order that does not depend on the file system.

    Raises:
        DataError: the layout is not one of the two.
    """
    subfolders, beside = _entries(folder)
    if not subfolders:
        what = f"{len(beside)} files but no folders" if beside else "nothing"
        raise DataError(
            f"{folder} holds {what}. Expected one folder per class, DIR/<class>/<image files>, or DIR/train/<class> "
            "and DIR/test/<class>. Put the images of each class into a folder with the name of the class."
        )
    roots = _part_folders(folder, subfolders)
    parts_found = roots is not None
    classes_of: dict[int, list[str]] = {}
    files: list[tuple[int, str, SeenFile]] = []
    for part, root in (roots or {0: folder}).items():
        names, more = _entries(root) if parts_found else (subfolders, [])
        beside += [f"{root.name}/{name}" for name in more]
        classes_of[part] = names
        for name in names:
            inside = sorted(_files_below(str(root / name), str(folder), ()), key=lambda file: file.path)
            files += [(part, name, file) for file in inside]
    _check_classes(folder, classes_of, roots)
    class_names = sorted(classes_of[0])
    _check_filled(folder, class_names, files)
    index = {name: position for position, name in enumerate(class_names)}
    files.sort(key=lambda entry: (entry[0], entry[1]))  # stable: paths stay sorted within a class
    return Listing(
        root=folder,
        class_names=tuple(_shown(name) for name in class_names),
        files=tuple(file for _, _, file in files),
        labels=tuple(index[name] for _, name, _ in files),
        parts=tuple(part for part, _, _ in files) if parts_found else (),
        left_out=tuple(
            LeftOut(_shown(name), "unsupported", "beside the class folders, so that it has no class")
            for name in sorted(beside)
        ),
    )


def choose_canvas(sizes: Sequence[tuple[int, int]]) -> int:
    """Choose the side at which images of these sizes are kept.

    If at least half of the images have the same shorter side, of 256 pixels at most, it is that: most images then keep
    their pixels. Otherwise it is the median of the shorter sides, between 8 and 256, rounded to a multiple of 8: to the
    nearest one, or down where the nearest would enlarge every image.

    Args:
        sizes: (width, height) of each image, at least one.

    Returns:
        The side in pixels.

    >>> choose_canvas([(32, 32), (32, 32), (640, 480)])
    32
    >>> choose_canvas([(640, 480), (500, 333), (90, 70)])
    256
    """
    shorter = [min(size) for size in sizes]
    side, count = min(Counter(shorter).items(), key=lambda entry: (-entry[1], -entry[0]))
    if 2 * count >= len(shorter) and side <= LARGEST_CANVAS:
        return side
    median = min(max(float(np.median(shorter)), SMALLEST_CANVAS), LARGEST_CANVAS)
    nearest = int(median / _CANVAS_STEP + 0.5) * _CANVAS_STEP
    if nearest > max(shorter):
        nearest -= _CANVAS_STEP
    return max(nearest, SMALLEST_CANVAS)


def _decode_all(listing: Listing, target: Path, *, progress: Callable[[int, int], None] | None) -> ImageSet:
    """Decode every file of a listing into `target/images.npy`."""
    paths = [listing.root / file.path for file in listing.files]
    sizes = _sizes(paths)
    if not sizes:
        _check_usable(
            listing,
            [],
            list(map_in_order(partial(_prepared, canvas=SMALLEST_CANVAS, settings=decoder_settings()), paths)),
        )
    canvas = choose_canvas(sizes)
    while True:
        ready: list[_Ready] = []
        prepared = partial(_prepared, canvas=canvas, settings=decoder_settings())
        apart = _processes_pay(len(paths), canvas)
        with ImageWriter(target / "images.npy", canvas, len(paths)) as writer:
            for one in map_in_order(prepared, paths, progress=progress, processes=apart):
                if one.pixels is not None:
                    writer.append(one.pixels)
                ready.append(replace(one, pixels=None))
        used = [position for position, one in enumerate(ready) if not one.reason]
        _check_usable(listing, used, ready)
        # Files whose header was fine and whose pixels were not must not decide the size of the others.
        again = choose_canvas([(ready[position].width, ready[position].height) for position in used])
        if again == canvas:
            break
        canvas = again
    return _assembled(listing, target, ready, used)


def _assembled(listing: Listing, target: Path, ready: Sequence[_Ready], used: Sequence[int]) -> ImageSet:
    images: Images = np.load(target / "images.npy", mmap_mode="r", allow_pickle=False)
    labels = np.array([listing.labels[position] for position in used], dtype=np.int64)
    parts = np.array([listing.parts[position] for position in used], dtype=np.int8) if listing.parts else None
    shown = [_shown(file.path) for file in listing.files]
    sizes = Counter((ready[position].width, ready[position].height) for position in used)
    converted: dict[str, list[str]] = {}
    for position in used:
        for conversion in ready[position].conversions:
            converted.setdefault(conversion, []).append(shown[position])
    return ImageSet(
        name="",
        source="",
        images=images,
        labels=labels,
        class_names=listing.class_names,
        official_part=parts,
        fingerprint=set_fingerprint(images, labels, listing.class_names, parts),
        image_hashes=np.array([ready[position].digest for position in used], dtype="<U32"),
        paths=tuple(shown[position] for position in used),
        left_out=tuple(
            LeftOut(path, one.reason, one.detail) for path, one in zip(shown, ready, strict=True) if one.reason
        ),
        converted=tuple(
            Converted(conversion, len(places), tuple(places[:_EXAMPLES]))
            for conversion, places in sorted(converted.items())
        ),
        original_sizes=tuple(
            SizeCount(width, height, count)
            for (width, height), count in sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))
        ),
    )


def _processes_pay(files: int, canvas: int) -> bool:
    """Whether files are decoded sooner by processes than by threads (docs/log.md).

    Of larger images the decoders do most of the work, which threads share as well, and what processes hand back has to be copied;
    but with many cores threads wait for each other all the time.
    """
    return files >= _MANY and (canvas <= _SMALL or cores() >= _MANY_CORES)


def _sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """The sizes that headers tell: of a few files where these are all of one side, otherwise of all that have a header.

    The sides of all files decide in the end (`_decode_all`); headers are read so that they need not be decoded twice.
    """
    few = paths[:: max(len(paths) // _FEW, 1)]
    sizes = [size for size in map_in_order(_size_or_none, few) if size is not None]
    if len({min(size) for size in sizes}) != 1 and len(few) < len(paths):
        sizes = [size for size in map_in_order(_size_or_none, paths) if size is not None]
    return sizes


def _size_or_none(path: Path) -> tuple[int, int] | None:
    """The size that a header tells, or nothing: why a file is left out is found when it is decoded."""
    try:
        return read_size(path)
    except Undecodable:
        return None


def _prepared(path: Path, canvas: int, settings: DecoderSettings) -> _Ready:
    use_decoder_settings(settings)  # in another process, too
    try:
        decoded = decode_file(path)
    except Undecodable as error:
        return _Ready(None, "", 0, 0, (), error.reason, error.detail)
    height, width = decoded.image.shape[:2]
    pixels = to_canvas(decoded.image, canvas)
    return _Ready(pixels, image_hash(decoded.image), width, height, decoded.conversions, "", "")


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in a folder, sorted, without hidden ones and litter."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_litter(entry.name):
                    continue
                (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}). Check the folder and its permissions.") from error
    return sorted(folders), sorted(files)


def _files_below(folder: str, root: str, above: tuple[tuple[int, int], ...]) -> Iterator[SeenFile]:
    """List the files below a class folder; a folder that is its own ancestor (by a link) is not entered again.

    Paths are plain strings: a hundred thousand `Path` objects would take seconds each time that a cached folder is looked at.
    """
    try:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(folder) as scanned:
            entries = [entry for entry in scanned if not _is_litter(entry.name)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror}). Check the folder and its permissions.") from error
    shown = Path(folder).relative_to(root).as_posix()
    for entry in entries:
        relative = f"{shown}/{entry.name}"
        try:
            inside = entry.is_dir()
            seen = os.stat(entry.path)
        except OSError:
            yield SeenFile(relative, -1, 0, 0)  # such as a link to nothing: decoding says so, and it is left out
            continue
        if inside:
            yield from _files_below(entry.path, root, (*above, identity))
        else:
            yield SeenFile(relative, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER


def _part_folders(folder: Path, subfolders: Sequence[str]) -> dict[int, Path] | None:
    """Find train, val and test; `None` if the folder is flat.

    A flat folder may have a class called `train` (beside `bicycle`): it is a part only if it holds folders.
    """
    named = [(name, _PART_NAMES.get(name.casefold())) for name in subfolders]
    parts = {name: part for name, part in named if part is not None and _entries(folder / name)[0]}
    if not parts:
        if named and all(part is not None for _, part in named):
            raise DataError(
                f"{folder} holds {_quoted(subfolders)} with images in them, but no class folders: which class an image belongs to is "
                f"not said. Expected {folder / subfolders[0]}/<class>/ with the images of each class."
            )
        return None
    others = [name for name in subfolders if name not in parts]
    if others:
        raise DataError(
            f"{folder} holds {_quoted(parts)} with folders inside, as parts of a data set have, and also "
            f"{_quoted(others)}. Expected either only train, val and test, or only class folders. Move what does not "
            "belong there away."
        )
    found: dict[int, Path] = {}
    for name, part in parts.items():
        if part in found:
            raise DataError(
                f"{folder} holds {found[part].name!r} and {name!r}, which both mean {_PART_WORDS[part]}. Keep one of "
                "them."
            )
        found[part] = folder / name
    if 0 not in found:
        raise DataError(
            f"{folder} holds {_quoted(parts)} but no train folder. Expected DIR/train/<class>/<image files>."
        )
    return dict(sorted(found.items()))


def _check_classes(folder: Path, classes_of: dict[int, list[str]], roots: dict[int, Path] | None) -> None:
    train = classes_of[0]
    for part, names in classes_of.items():
        if unknown := sorted(set(names) - set(train)):
            raise DataError(
                f"{folder}: {_PART_WORDS[part]} has the classes {_quoted(unknown)}, which train has not. Every class "
                "needs images to learn from: add them to train, or take these classes out."
            )
    if len(train) == 1:
        where = folder if roots is None else roots[0]
        inner = where / train[0]
        hint = f" Did you mean {inner}?" if _entries(inner)[0] else ""
        raise DataError(
            f"{where} holds only one class, {train[0]!r}. Expected at least two class folders side by side.{hint}"
        )


def _check_filled(folder: Path, class_names: Sequence[str], files: Sequence[tuple[int, str, SeenFile]]) -> None:
    in_train = {name for part, name, _ in files if part == 0}
    if empty := [name for name in class_names if name not in in_train]:
        raise DataError(
            f"{folder}: the class folders {_quoted(empty)} hold no files{_of_train(files)}. "
            "Put images into them, or take them out."
        )


def _of_train(files: Sequence[tuple[int, str, SeenFile]]) -> str:
    return " in train" if any(part for part, _, _ in files) else ""


def _check_usable(listing: Listing, used: Sequence[int], ready: Sequence[_Ready]) -> None:
    """Refuse a class of which not one training image could be decoded, and say why its files were left out."""
    parts = listing.parts or (0,) * len(listing.files)
    usable = {listing.labels[position] for position in used if parts[position] == 0}
    for label, name in enumerate(listing.class_names):
        if label in usable:
            continue
        mine = [p for p in range(len(ready)) if listing.labels[p] == label and parts[p] == 0]
        reasons = Counter(ready[position].reason for position in mine)
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise DataError(
            f"{listing.root}: none of the {len(mine)} files of class {name!r} can be used ({told}; such as "
            f"{_shown(listing.files[mine[0]].path)}). Expected PNG, JPEG, WebP, BMP, TIFF or GIF images. Replace the "
            "files, or take the class out."
        )


def _shown(name: str) -> str:
    """Make a file name that is not valid text printable and storable; every other name stays as it is."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _quoted(names: Sequence[str] | dict[str, int], most: int = 8) -> str:
    listed = [repr(_shown(name)) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
