"""An `.npz` file of arrays becomes an image set."""

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.data.decode import SMALLEST_SIDE, to_canvas
from headstart.data.fingerprint import image_hashes, set_fingerprint
from headstart.data.folder import choose_canvas
from headstart.data.splits import TEST, TRAIN, VAL
from headstart.errors import DataError
from headstart.records import Converted, Images, ImageSet, Labels, SizeCount

_PARTS = {"train": TRAIN, "val": VAL, "test": TEST}
_BRIGHT = 128  # chosen: values that reach the upper half of 0..255 can only be meant as 0..255


def load_npz(path: Path, *, source: str) -> ImageSet:
    """Load images and labels from an `.npz` file, without pickle.

    Args:
        path: holds `X`, `(N, H, W)` or `(N, H, W, 1 | 3 | 4)`, best as uint8; `y`, `(N,)` integers or strings; and
            optionally `class_names`, one per class, and `part`, `(N,)` of the words train, val and test.
        source: what the user asked for.

    Returns:
        The set. A fourth channel is transparency, laid on white.

    Raises:
        DataError: an array is missing or cannot be meant as images, labels or parts.
    """
    arrays = _arrays(path)
    if missing := [name for name in ("X", "y") if name not in arrays]:
        raise DataError(
            f"{path} has no array {' and no array '.join(missing)}; it has {', '.join(sorted(arrays)) or 'none'}. "
            "Expected X (images) and y (labels): numpy.savez(file, X=images, y=labels)."
        )
    rgb, converted = _rgb(path, arrays["X"])
    labels, class_names = _labels(path, arrays["y"], arrays.get("class_names"))
    if len(labels) != len(rgb):
        raise DataError(
            f"{path}: X has {len(rgb)} images and y has {len(labels)} labels. Expected one label per image."
        )
    official = _parts(path, arrays["part"], len(rgb)) if "part" in arrays else None
    height, width = rgb.shape[1:3]
    canvas = choose_canvas([(width, height)])
    images = rgb if height == width == canvas else np.stack([to_canvas(image, canvas) for image in rgb])
    if 2 * min(height, width) < max(height, width):
        converted.append(Converted("cropped", len(rgb), ()))
    return ImageSet(
        name=path.stem,
        source=source,
        images=images,
        labels=labels,
        class_names=class_names,
        official_part=official,
        fingerprint=set_fingerprint(images, labels, class_names, official),
        image_hashes=image_hashes(rgb),
        converted=tuple(converted),
        original_sizes=(SizeCount(width, height, len(rgb)),),
    )


def _arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path} cannot be read as .npz (it is no zip archive). Expected a file written by numpy.savez."
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {
                name: file[name] for name in file.files if name in ("X", "y", "class_names", "part")
            } or dict.fromkeys(file.files, np.empty(0))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        pickled = "pickle" in str(error).lower()
        advice = (
            "It holds Python objects, which are not loaded because they could run code: save X as a uint8 array and y "
            "as an array of integers or of fixed-width strings."
            if pickled
            else "Expected a file written by numpy.savez."
        )
        raise DataError(f"{path} cannot be read as .npz ({error}). {advice}") from error


def _rgb(path: Path, values: npt.NDArray[np.generic]) -> tuple[Images, list[Converted]]:
    """Bring X to `(N, H, W, 3) uint8`."""
    if values.ndim not in (3, 4) or (values.ndim == 4 and values.shape[3] not in (1, 3, 4)):
        channels_first = values.ndim == 4 and values.shape[1] in (1, 3, 4)
        hint = " It looks like channels first: numpy.moveaxis(X, 1, -1) repairs it." if channels_first else ""
        raise DataError(
            f"{path}: X has shape {values.shape}. Expected (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels.{hint}"
        )
    if len(values) == 0:
        raise DataError(f"{path}: X has no images.")
    if min(values.shape[1:3]) < SMALLEST_SIDE:
        height, width = values.shape[1:3]
        raise DataError(
            f"{path}: images are {width} x {height} pixels. Expected at least {SMALLEST_SIDE} on each side."
        )
    pixels = _as_bytes(path, values)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.shape[3] == 1:
        return np.repeat(pixels, 3, axis=3), [Converted("grayscale", len(pixels), ())]
    if pixels.shape[3] == 4:
        alpha = pixels[..., 3:].astype(np.uint32)
        on_white = (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
        return on_white.astype(np.uint8), [Converted("alpha", len(pixels), ())]
    return np.ascontiguousarray(pixels), []


def _as_bytes(path: Path, values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Take pixel values as 0..255 if only one meaning is possible."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    kind = values.dtype.kind
    if kind not in "iuf":
        raise DataError(f"{path}: X is of type {values.dtype}. Expected numbers, best uint8 from 0 to 255.")
    numbers = values.astype(np.float64) if kind == "f" else values
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and _BRIGHT <= high <= 255:
        return np.rint(values.astype(np.float64)).astype(np.uint8)
    if kind == "f" and low >= 0 and 0 < high <= 1:
        return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
    raise DataError(
        f"{path}: X is of type {values.dtype} with values from {low:g} to {high:g}, which could mean more than one "
        "thing. Expected uint8, or values that clearly go from 0 to 255, or floats that go from 0 to 1. Scale X to "
        "0..255 and save it with X.astype('uint8')."
    )


def _parts(path: Path, values: npt.NDArray[np.generic], count: int) -> npt.NDArray[np.int8]:
    """Bring the words of `part` to the numbers of `ImageSet.official_part`."""
    words = [str(value) for value in values] if values.ndim == 1 and values.dtype.kind == "U" else []
    if unknown := sorted({word for word in words if word not in _PARTS}):
        raise DataError(
            f"{path}: part has {', '.join(map(repr, unknown))}. Expected train, val or test for each image."
        )
    if len(words) != count:
        raise DataError(
            f"{path}: part is of type {values.dtype} and shape {values.shape}. Expected one of the words train, val and "
            f"test for each of the {count} images."
        )
    return np.array([_PARTS[word] for word in words], np.int8)


def _labels(
    path: Path, values: npt.NDArray[np.generic], names: npt.NDArray[np.generic] | None
) -> tuple[Labels, tuple[str, ...]]:
    """Bring y to indices into class names."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuUSb":
        raise DataError(
            f"{path}: y has shape {values.shape} and type {values.dtype}. Expected (N,) integers or strings, one per "
            "image."
        )
    given = None if names is None else tuple(_text(path, names))
    if given is not None and len(set(given)) != len(given):
        raise DataError(f"{path}: class_names names a class twice. Expected every name once.")
    if values.dtype.kind in "US":
        texts = np.array(_text(path, values))
        present, labels = np.unique(texts, return_inverse=True)
        class_names = tuple(str(name) for name in present)
        if given is not None:
            if unknown := [name for name in class_names if name not in given]:
                raise DataError(f"{path}: y has {unknown[0]!r}, which is not in class_names ({', '.join(given[:10])}).")
            labels = np.array([given.index(name) for name in class_names])[labels]
            class_names = given
    elif given is not None:
        labels, class_names = values.astype(np.int64), given
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(given)):
            raise DataError(
                f"{path}: y goes from {labels.min()} to {labels.max()}, but class_names has {len(given)} names. "
                f"Expected labels from 0 to {len(given) - 1}."
            )
    else:
        numbers, labels = np.unique(values.astype(np.int64), return_inverse=True)
        class_names = tuple(str(number) for number in numbers)
    labels = labels.reshape(-1).astype(np.int64)
    if len(class_names) < 2:
        raise DataError(f"{path}: y has only one class, {', '.join(class_names)}. Expected at least two.")
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        raise DataError(
            f"{path}: class {class_names[int(np.argmin(counts))]!r} of class_names has no image. Take it out."
        )
    return labels, class_names


def _text(path: Path, values: npt.NDArray[np.generic]) -> list[str]:
    try:
        return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a class name is not UTF-8 ({error}). Save names as strings.") from error
