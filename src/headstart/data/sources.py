"""What a user names becomes an image set: a built-in data set, a folder, or an `.npz` file."""

import contextlib
import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.data.cifar import load_cifar
from headstart.data.fingerprint import image_hashes, set_fingerprint
from headstart.data.folder import load_folder
from headstart.data.npz import load_npz
from headstart.data.splits import TEST, VAL, draw_stratified
from headstart.errors import UsageError
from headstart.randomness import generator
from headstart.records import ImageSet, Indices, SizeCount

BUILT_IN = ("digits", "cifar10", "cifar100")
_DIGITS_LEVELS = 16  # scikit-learn's digits count 0 to 16 inked pixels per cell


def load_images(
    source: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    download: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> ImageSet:
    """Load the images that a source names.

    Args:
        source: `digits`, `cifar10`, `cifar100`, a folder, or an `.npz` file. A folder with the name of a built-in set
            is written with its path, such as `./digits`.
        limit: use only this many images, each class with its share. If the source has a test part of its own, the limit
            is on train and val together, and test is cut to the same number if it is larger. `None` uses all.
        seed: draws the images of a limit.
        download: whether the network may be used.
        progress: called with (done, total): files while they are decoded, bytes while they are downloaded.

    Returns:
        The set; its fingerprint is of what is returned, so that it changes with the limit. What was left out or
        converted, and the original sizes, are those of the whole source.

    Raises:
        UsageError: the source is none of these, or the limit is too small for the number of classes.
        DataError: images that cannot be used.
        DataUnavailableError: a built-in set that is neither here nor reachable.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"The limit is {limit}; expected a number of images, at least 1.")
    images = _load_all(source, download=download, progress=progress)
    return images if limit is None else _limited(images, limit, seed)


def _load_all(source: str, *, download: bool, progress: Callable[[int, int], None] | None) -> ImageSet:
    if source == "digits":
        return _digits()
    if source in BUILT_IN:
        return load_cifar(source, download=download, progress=progress)
    path = Path(source).expanduser()
    if not source or "\0" in source:
        raise _unknown(source, path)
    if path.is_dir():
        return load_folder(path, source=source, progress=progress)
    if path.is_file() and path.suffix.lower() == ".npz":
        return load_npz(path, source=source)
    raise _unknown(source, path)


def _unknown(source: str, path: Path) -> UsageError:
    expected = (
        "Expected `digits`, `cifar10`, `cifar100`, a folder with one subfolder per class, or an .npz file with X and y."
    )
    if source and "\0" not in source and path.is_file():
        return UsageError(
            f"{source} is a file, but not an .npz file. {expected} If it is an archive, unpack it and name the folder."
        )
    names = list(BUILT_IN)
    with contextlib.suppress(OSError, ValueError):  # there may be no such folder to suggest names from
        names += [str(path.parent / entry) for entry in os.listdir(path.parent)]
    close = difflib.get_close_matches(source, names, n=3)
    suggestion = f" Did you mean {' or '.join(close)}?" if close else ""
    return UsageError(f"There is no data set {source!r} here.{suggestion} {expected}")


def _digits() -> ImageSet:
    """Scikit-learn's embedded handwritten digits: 1,797 images of 8 x 8, 0 to 16, no network needed."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    gray = np.rint(bunch.images * (255 / _DIGITS_LEVELS)).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=3)
    labels = bunch.target.astype(np.int64)
    class_names = tuple(str(name) for name in bunch.target_names)
    return ImageSet(
        name="digits",
        source="digits",
        images=images,
        labels=labels,
        class_names=class_names,
        official_part=None,
        fingerprint=set_fingerprint(images, labels, class_names, None),
        image_hashes=image_hashes(images),
        original_sizes=(SizeCount(8, 8, len(images)),),
        mirror_safe=False,  # a mirrored 2 is no digit
    )


def _limited(images: ImageSet, limit: int, seed: int) -> ImageSet:
    """Draw a stratified part of a set, in the order of the set."""
    parts = images.official_part
    classes = len(images.class_names)
    if parts is None or not (parts == TEST).any():
        pools = [np.arange(len(images.labels), dtype=np.int64)]
        least = 3
    else:
        pools = [np.flatnonzero(parts != TEST).astype(np.int64), np.flatnonzero(parts == TEST).astype(np.int64)]
        least = 2
    has_val = parts is not None and bool((parts == VAL).any())
    chosen = []
    for position, pool in enumerate(pools):
        if len(pool) <= limit:
            chosen.append(pool)
            continue
        labels, groups, each = images.labels[pool], classes, least
        if position == 1:
            each = 1
        elif has_val:
            # Train and val keep their proportion: a class in val counts as a class of its own.
            assert parts is not None
            labels, groups, each = labels + classes * (parts[pool] == VAL), 2 * classes, max(1, least - 1)
        minimum = int(np.minimum(np.bincount(labels, minlength=groups), each).sum())
        if minimum > limit:
            raise UsageError(
                f"The limit is {limit}, but the {classes} classes of {images.source} need at least {minimum} images "
                "so that every class is in every part. Raise the limit."
            )
        drawn = draw_stratified(labels, groups, limit, generator(seed, "limit", position), least=each)
        chosen.append(pool[drawn])
    return _subset(images, np.sort(np.concatenate(chosen)))


def _subset(images: ImageSet, indices: Indices) -> ImageSet:
    if len(indices) == len(images.labels):
        return images
    pixels = images.images[indices]
    labels = images.labels[indices]
    parts: npt.NDArray[np.int8] | None = None if images.official_part is None else images.official_part[indices]
    return replace(
        images,
        images=pixels,
        labels=labels,
        official_part=parts,
        fingerprint=set_fingerprint(pixels, labels, images.class_names, parts),
        image_hashes=images.image_hashes[indices],
        paths=tuple(images.paths[index] for index in indices) if images.paths else (),
    )
