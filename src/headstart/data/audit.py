"""What can be said about a data set before anything is trained on it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.files import release_pages
from headstart.randomness import generator
from headstart.records import DuplicateReport, Images, ImageSet, Indices, Split

_BLOCK_BYTES = 1 << 24  # chosen: 16 MiB of pixels at a time, whatever the size of the set
_LEVELS = 256
_SIZES_SHOWN = 20  # docs/results.md


def data_facts(images: ImageSet, split: Split, duplicates: DuplicateReport) -> dict[str, Any]:
    """Describe a data set: the object `data` of `results.json`, without its `samples`.

    Args:
        images: the set.
        split: its parts.
        duplicates: what `make_split` found.

    Returns:
        A dictionary that JSON can hold; docs/results.md says what each field is.
    """
    classes = len(images.class_names)
    counts = {
        name: np.bincount(images.labels[part], minlength=classes)
        for name, part in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    mean, std = channel_statistics(images.images, split.train)
    present = counts["train"][counts["train"] > 0]
    return {
        "name": images.name,
        "source": images.source,
        "fingerprint": images.fingerprint,
        "images": len(images.labels),
        "classes": [
            {"name": name, **{part: int(count[index]) for part, count in counts.items()}}
            for index, name in enumerate(images.class_names)
        ],
        "canvas": images.canvas,
        "original_sizes": [
            {"width": size.width, "height": size.height, "count": size.count}
            for size in images.original_sizes[:_SIZES_SHOWN]
        ],
        "original_size_kinds": len(images.original_sizes),
        "channel_mean": mean.tolist(),
        "channel_std": std.tolist(),
        "grayscale": is_grayscale(images.images),
        "imbalance": float(present.max() / present.min()) if len(present) else 1.0,
        "split": {
            "train": len(split.train),
            "val": len(split.val),
            "test": len(split.test),
            "seed": split.seed,
            "origin": split.origin,
        },
        "duplicates": {
            "groups": duplicates.groups,
            "across_splits": duplicates.across_splits,
            "conflicting_labels": duplicates.conflicting_labels,
            "removed": duplicates.removed,
            "examples": [list(pair) for pair in duplicates.examples],
        },
        "left_out": [{"path": file.path, "reason": file.reason, "detail": file.detail} for file in images.left_out],
        "converted": [
            {"conversion": kind.conversion, "count": kind.count, "examples": list(kind.examples)}
            for kind in images.converted
        ],
        "mirror_safe": images.mirror_safe,
    }


def channel_statistics(images: Images, indices: Indices) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each channel over some images, read in blocks.

    From how often each level occurs: whole numbers, so that the block size cannot matter.

    Args:
        images: `(N, S, S, 3) uint8`.
        indices: `(n,) int64`, which of them, at least one.

    Returns:
        Two arrays `(3,) float64`, 0 to 255: mean, and population standard deviation (divided by n, not n - 1).
    """
    step = _images_per_block(images)
    histograms = np.zeros((3, _LEVELS), np.int64)
    for start in range(0, len(indices), step):
        pixels = images[indices[start : start + step]].reshape(-1, 3)
        histograms += [np.bincount(pixels[:, channel], minlength=_LEVELS) for channel in range(3)]
        release_pages(images)
    levels = np.arange(_LEVELS)
    count = len(indices) * images.shape[1] * images.shape[2]
    mean = histograms @ levels / count
    return mean, np.sqrt(np.maximum(histograms @ levels**2 / count - mean**2, 0))


def is_grayscale(images: Images) -> bool:
    """Whether every image has three equal channels; stops at the first block that does not.

    Args:
        images: `(N, S, S, 3) uint8`.
    """
    step = _images_per_block(images)
    for start in range(0, len(images), step):
        block = images[start : start + step]
        if not (np.array_equal(block[..., 0], block[..., 1]) and np.array_equal(block[..., 0], block[..., 2])):
            return False
        release_pages(images)
    return True


def sample_indices(images: ImageSet, split: Split, per_class: int = 5, seed: int = 0) -> dict[int, list[int]]:
    """Draw a few training images of every class, to be shown.

    Args:
        images: the set.
        split: its parts; only train is shown.
        per_class: how many of each class, if it has as many.
        seed: draws them.

    Returns:
        Class index to image indices, in the order of the classes; indices are sorted.
    """
    labels = images.labels[split.train]
    shuffled = generator(seed, "samples").permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ends = np.cumsum(np.bincount(labels, minlength=len(images.class_names)))
    return {
        index: sorted(split.train[chosen[:per_class]].tolist())
        for index, chosen in enumerate(np.split(by_class, ends[:-1]))
    }


def _images_per_block(images: Images) -> int:
    return max(1, _BLOCK_BYTES // max(1, int(np.prod(images.shape[1:]))))
