"""Train, val and test: stratified, seeded, and without the same image on two sides."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.errors import DataError, UsageError
from headstart.randomness import generator
from headstart.records import DuplicateReport, ImageSet, Indices, Labels, Split

TRAIN, VAL, TEST, UNASSIGNED = 0, 1, 2, 3
JUDGED_TRAIN_IMAGES = 10_000
"""Train accuracy is measured on so many images (chosen): its standard error is then at most half a point."""

_EXAMPLES = 10  # records.DuplicateReport says up to ten


def has_own_test(images: ImageSet) -> bool:
    """Whether a set came with a test part, which pretraining leaves alone."""
    return images.official_part is not None and bool((images.official_part == TEST).any())


def make_split(
    images: ImageSet,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    remove_duplicates: bool = True,
) -> tuple[Split, DuplicateReport]:
    """Divide a set into train, val and test.

    Parts that the source has of its own are kept. Test, if the source has none, is drawn first; val, if it has none, is
    then drawn from what is left. Every class gives its share to each part, and at least one image.

    Args:
        images: the set.
        seed: draws what has to be drawn.
        val_fraction: of the training part (train and val together).
        test_fraction: of all images outside an official val; not used if the source has a test part.
        remove_duplicates: take images out of train and val whose exact pixels are also in test, and out of train those
            that are also in val. Near duplicates are not looked for.

    Returns:
        The split, and what was found about exact duplicates.

    Raises:
        UsageError: a fraction outside 0..1, or both together leave nothing for train.
        DataError: a class has too few images, or loses its last image in a part to the removal of duplicates.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise UsageError(f"{name} is {fraction}; expected a fraction between 0 and 1, such as 0.1.")
    classes = len(images.class_names)
    part = (
        np.full(len(images.labels), UNASSIGNED, dtype=np.int8)
        if images.official_part is None
        else images.official_part.copy()
    )
    part[part == UNASSIGNED] = TRAIN
    has_test, has_val = bool((part == TEST).any()), bool((part == VAL).any())
    needed = 1 + (not has_test) + (not has_val)
    _check_enough(images, part, needed)
    if not has_test:
        pool = np.flatnonzero(part == TRAIN)
        wanted = round(test_fraction * len(pool))
        chosen = draw_stratified(
            images.labels[pool], classes, wanted, generator(seed, "split", "test"), leave=needed - 1
        )
        part[pool[chosen]] = TEST
    if not has_val:
        pool = np.flatnonzero(part == TRAIN)
        wanted = round(val_fraction * len(pool))
        chosen = draw_stratified(images.labels[pool], classes, wanted, generator(seed, "split", "val"), leave=1)
        part[pool[chosen]] = VAL
    report, across = find_duplicates(images, part, removed=remove_duplicates)
    removed = across if remove_duplicates else np.array([], dtype=np.int64)
    if remove_duplicates:
        _check_still_there(images, part, removed)
        part[removed] = -1
    split = Split(
        train=_indices(part == TRAIN),
        val=_indices(part == VAL),
        test=_indices(part == TEST),
        seed=seed,
        origin="official" if has_test else "drawn",
        removed_duplicates=removed,
    )
    return split, report


def draw_stratified(
    labels: Labels, classes: int, wanted: int, rng: np.random.Generator, *, least: int = 1, leave: int = 0
) -> Indices:
    """Draw positions so that every class keeps its share.

    Shares are rounded by the method of largest remainders; a class gives at least `least` and keeps at least `leave`
    (as far as it has as many), which can move the total away from `wanted` when classes are tiny.

    Args:
        labels: `(n,) int64`, of what can be drawn.
        classes: number of classes.
        wanted: how many to draw in all.
        rng: a generator.
        least: of each class that is there.
        leave: of each class, what must stay undrawn.

    Returns:
        Sorted positions into `labels`, `int64`.
    """
    sizes = np.bincount(labels, minlength=classes)
    take = _apportioned(sizes, wanted, np.minimum(least, sizes), np.maximum(sizes - leave, 0))
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(len(labels)) - np.repeat(starts, sizes)
    return np.sort(by_class[rank < np.repeat(take, sizes)]).astype(np.int64)


def evenly_spaced(labels: Labels, count: int) -> Indices:
    """A fixed part of some images in which every class keeps its share (a rare one may get none): every k-th in the order of the classes.

    Args:
        labels: `(n,) int64`.
        count: how many; all, where there are no more.

    Returns:
        Sorted positions into `labels`, the same for the same labels.
    """
    if len(labels) <= count:
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    return np.sort(by_class[np.linspace(0, len(labels) - 1, count).astype(np.int64)])


def _apportioned(
    sizes: npt.NDArray[np.int64], wanted: int, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Divide `wanted` in proportion to sizes, within bounds per class, by largest remainders (ties: the first "
    "class)."""
    low = np.minimum(low, high)
    exact = sizes * (wanted / max(1, int(sizes.sum())))
    take = np.clip(np.floor(exact + 1e-9).astype(np.int64), low, high)
    while (missing := wanted - int(take.sum())) != 0:
        can_move = take < high if missing > 0 else take > low
        if not can_move.any():
            break
        lack = (exact - take) * np.sign(missing)
        lack[~can_move] = -np.inf
        order = np.argsort(-lack, kind="stable")[: min(abs(missing), int(can_move.sum()))]
        take[order] += np.sign(missing)
    result: npt.NDArray[np.int64] = take
    return result


def _indices(mask: npt.NDArray[np.bool_]) -> Indices:
    return np.flatnonzero(mask).astype(np.int64)


def _check_enough(images: ImageSet, part: npt.NDArray[np.int8], needed: int) -> None:
    counts = np.bincount(images.labels[part == TRAIN], minlength=len(images.class_names))
    if len(poor := np.flatnonzero(counts < needed)):
        names = _named([f"{images.class_names[index]!r} ({counts[index]})" for index in poor])
        raise DataError(
            f"Too few images in {images.source}: train needs at least {needed} of every class so that each part gets "
            f"one, but there are fewer of {names}. Add images of these classes, or take the classes out."
        )


def _check_still_there(images: ImageSet, part: npt.NDArray[np.int8], removed: Indices) -> None:
    """Refuse to go on if a class would lose its last image of a part to the removal of duplicates."""
    classes = len(images.class_names)
    stays = np.ones(len(part), dtype=np.bool_)
    stays[removed] = False
    for code, name in ((TRAIN, "train"), (VAL, "val")):
        before = np.bincount(images.labels[part == code], minlength=classes)
        after = np.bincount(images.labels[(part == code) & stays], minlength=classes)
        if len(lost := np.flatnonzero((before > 0) & (after == 0))):
            names = _named([repr(images.class_names[index]) for index in lost])
            raise DataError(
                f"In {images.source}, every {name} image of {names} is an exact copy of an image nearer to test, so "
                "none is left once duplicates are taken out. Add different images of these classes, take the classes "
                "out, or keep the duplicates (then the test accuracy is too high)."
            )


def find_duplicates(images: ImageSet, part: npt.NDArray[np.int8], *, removed: bool) -> tuple[DuplicateReport, Indices]:
    """Find groups of equal images, and those of train or val that are also in a part nearer to test.

    Args:
        images: the set.
        part: `(N,) int8`, of each image; -1 is an image that is not used, which is in no part.
        removed: whether the caller takes them out; goes into the report.

    Returns:
        The report, and the images that are also in a part nearer to test, sorted.
    """
    _, group, sizes = np.unique(images.image_hashes, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    nearest = np.full(len(sizes), -1, dtype=np.int8)  # the part nearest to test that each group reaches
    np.maximum.at(nearest, group, part)
    across = _indices((part >= 0) & (part < nearest[group]))
    lowest = np.full(len(sizes), len(images.class_names), dtype=np.int64)
    highest = np.full(len(sizes), -1, dtype=np.int64)
    np.minimum.at(lowest, group, images.labels)
    np.maximum.at(highest, group, images.labels)
    # Examples: pairs across parts first, then pairs within one; the kept image is the first of the nearest part.
    in_nearest = np.flatnonzero(part == nearest[group])
    kept = np.full(len(sizes), -1, dtype=np.int64)
    kept[group[in_nearest][::-1]] = in_nearest[::-1]
    within = np.flatnonzero((sizes[group] > 1) & (part == nearest[group]) & (kept[group] != np.arange(len(group))))
    pairs = [(int(kept[group[index]]), int(index)) for index in [*across[:_EXAMPLES], *within[:_EXAMPLES]]][:_EXAMPLES]
    report = DuplicateReport(
        groups=int((sizes > 1).sum()),
        across_splits=len(across),
        conflicting_labels=int((lowest != highest).sum()),
        removed=removed,
        examples=tuple((_place(images, first), _place(images, second)) for first, second in pairs),
    )
    return report, across


def _place(images: ImageSet, index: int) -> str:
    return images.paths[index] if images.paths else str(index)


def _named(names: Sequence[str], most: int = 8) -> str:
    """Write a list of names, cut where it would fill the screen."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
