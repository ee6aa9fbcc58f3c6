"""One image file in; RGB pixels out, or the reason why not.

Files are judged by their first bytes, never by their name, and only the six decoders named here ever see them. What a
file said beyond its pixels (colour profile, later frames) is not used. Nothing here writes.
"""

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from headstart.errors import DataError
from headstart.records import Images

DECODER_VERSION = 2
"""Rises when the same file would give other pixels or conversions, so that caches made before are not used."""

SMALLEST_SIDE = 4  # chosen: below this an image has fewer pixels than most data sets have classes
_READ_WHOLE = 1 << 20  # chosen: photographs from a telephone are larger, and take far longer to decode than to read
_PREFIX_BYTES = 32  # the longest signature below ends at byte 18
_DARK = 64
"""Of 255: the brightest pixel of a file that uses at most 14 of its 16 bits (16,383 / 257), as 10- and 12-bit cameras write them."""
_ORIENTATION_TAG = 0x0112
_ORIENTATIONS = {  # EXIF 2.32, tag 274: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow raises on damaged files, by reading its plugins and by tests/data/test_decode.py's damaged files.
# `Warning` is there for programs that turn warnings into errors.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)


class Undecodable(DataError):
    """A file that cannot be used as an image.

    Attributes:
        path: the file.
        reason: `empty`, `not-an-image`, `truncated`, `too-small`, `too-large`, `unreadable`, `not-a-file` or
            `unsupported`.
        detail: what the operating system or the decoder said.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, detail: str = "") -> None:
        self.path = os.fspath(path)
        self.reason = reason
        self.detail = detail
        because = f"{reason}: {detail}" if detail else reason
        super().__init__(
            f"{self.path} cannot be used as an image ({because}). Expected a PNG, JPEG, WebP, BMP, TIFF or GIF file."
        )


@dataclass(frozen=True)
class Decoded:
    """A decoded file.

    Attributes:
        image: `(H, W, 3) uint8` RGB, upright.
        conversions: what had to be done, in the words of `results.json`: `grayscale`, `palette`, `alpha`, `cmyk`,
            `16-bit`, `dark-16-bit` (beside it: the file uses at most a quarter of that range, and has become dark),
            `exif-rotated`, `first-frame`, `wrong-extension`, `other-mode`, `cropped`.
    """

    image: Images
    conversions: tuple[str, ...]


@dataclass(frozen=True)
class _Format:
    name: str
    matches: Callable[[bytes], bool]
    reader: Callable[[BinaryIO], ImageFile.ImageFile]
    extensions: frozenset[str]


def _is_bmp(head: bytes) -> bool:
    # Two letters are not enough ("BMW.txt"): the length of the second header is one of those in use.
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)


_FORMATS = (
    _Format(
        "PNG",
        lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
        PngImagePlugin.PngImageFile,
        frozenset({".png", ".apng"}),
    ),
    _Format(
        "JPEG",
        lambda head: head.startswith(b"\xff\xd8\xff"),
        JpegImagePlugin.JpegImageFile,
        frozenset({".jpg", ".jpeg", ".jpe", ".jfif"}),
    ),
    _Format(
        "WebP",
        lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
        WebPImagePlugin.WebPImageFile,
        frozenset({".webp"}),
    ),
    _Format("BMP", _is_bmp, BmpImagePlugin.BmpImageFile, frozenset({".bmp", ".dib"})),
    _Format(
        "TIFF",
        lambda head: head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        TiffImagePlugin.TiffImageFile,
        frozenset({".tif", ".tiff"}),
    ),
    _Format("GIF", lambda head: head[:6] in (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile, frozenset({".gif"})),
)

_OTHER_SIGNATURES = (  # images, but not of a format read here: the reason says so instead of `not-an-image`
    (0, b"\0\0\1\0", "ICO"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "PSD"),
    (0, b"DDS ", "DDS"),
    (0, b"<svg", "SVG"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"qoif", "QOI"),
    *((0, b"P%d%c" % (kind, space), "PNM") for kind in range(1, 7) for space in b" \n\t\r"),
)


class DecoderSettings(NamedTuple):
    """Pillow's settings of a process that change what is decoded; `most_pixels` of an image, `None` means any number."""

    most_pixels: int | None
    takes_truncated: bool


def decoder_settings() -> DecoderSettings:
    """Those of this process, which its user may have changed."""
    return DecoderSettings(Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def use_decoder_settings(settings: DecoderSettings) -> None:
    """Decode as another process does."""
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = settings


def decode_file(path: str | os.PathLike[str]) -> Decoded:
    """Decode an image file to upright RGB pixels.

    Args:
        path: a PNG, JPEG, WebP, BMP, TIFF or GIF file; its extension does not matter.

    Returns:
        The pixels at their original size, and the conversions that were needed. Transparency is laid on white; 16-bit
        and float values are scaled to 8 bits, not clipped; of several frames the first is used.

    Raises:
        Undecodable: with the reason.
    """
    path = Path(path)
    try:
        with _open_regular(path) as stream:
            found, image = _opened(path, stream)
            orientation = _tiff_orientation(image)
            sixteen_bit = _stores_16_bits(image)
            image.load()
            pixels, conversions = _to_rgb(path, image)
            orientation = orientation or _orientation(image)
            if orientation in _ORIENTATIONS:
                conversions.append("exif-rotated")
                if not isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow has already turned a TIFF upright
                    upright = Image.fromarray(pixels).transpose(_ORIENTATIONS[orientation])
                    pixels = np.asarray(upright)
            if sixteen_bit and "16-bit" not in conversions:
                conversions.append("16-bit")
            if "16-bit" in conversions and 0 < pixels.max() <= _DARK:
                # Not brightened here: one file does not tell what range the others have, nor those to be predicted.
                conversions.append("dark-16-bit")
            if getattr(image, "is_animated", False):
                conversions.append("first-frame")
    except Undecodable:
        raise
    except MemoryError as error:
        raise Undecodable(path, "too-large", "not enough memory to decode it") from error
    except _DECODER_ERRORS as error:
        raise _explained(path, error) from error
    if path.suffix and path.suffix.lower() not in found.extensions:
        conversions.append("wrong-extension")
    height, width = pixels.shape[:2]
    if 2 * min(height, width) < max(height, width):  # the centre square holds less than half of the image
        conversions.append("cropped")
    return Decoded(np.ascontiguousarray(pixels), tuple(conversions))


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read an image file's width and height from its header, before any rotation.

    Raises:
        Undecodable: the file is no image, or none that could be used whatever its pixels are.
    """
    path = Path(path)
    try:
        with _open_regular(path) as stream:
            return _opened(path, stream)[1].size
    except Undecodable:
        raise
    except _DECODER_ERRORS as error:
        raise _explained(path, error) from error


def to_canvas(image: npt.NDArray[np.uint8], canvas: int) -> Images:
    """Cut the centre square out of an image and resize it; the same at training and at prediction time.

    Args:
        image: `(H, W, 3) uint8`.
        canvas: side of the result, in pixels.

    Returns:
        `(canvas, canvas, 3) uint8`: antialiased bilinear resampling; the same pixels if the size is already right.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    if side == canvas:
        return square
    return np.asarray(Image.fromarray(square).resize((canvas, canvas), Image.Resampling.BILINEAR))


def decode_to_canvas(path: str | os.PathLike[str], canvas: int) -> Images:
    """Decode an image file and put it on the canvas.

    Args:
        path: an image file.
        canvas: side of the result, in pixels.

    Returns:
        `(canvas, canvas, 3) uint8` RGB.

    Raises:
        Undecodable: with the reason.
    """
    return to_canvas(decode_file(path).image, canvas)


def _open_regular(path: Path) -> BinaryIO:
    """Open a regular file; a pipe is refused before opening, because opening it would wait for ever.

    A small file is read as a whole at once: a decoder's many short reads and seeks took longer than the decoding of 32 x 32 pixels.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Undecodable(path, "not-a-file", "not a regular file")
        if status.st_size == 0:
            raise Undecodable(path, "empty", "zero bytes")
        if status.st_size > _READ_WHOLE:
            return path.open("rb")
        with path.open("rb", buffering=0) as file:
            return io.BytesIO(file.read(status.st_size))
    except (OSError, ValueError) as error:
        raise Undecodable(path, "unreadable", getattr(error, "strerror", None) or str(error)) from error


def _opened(path: Path, stream: BinaryIO) -> tuple[_Format, ImageFile.ImageFile]:
    """Read a header with the one decoder that its first bytes name, and check the size before any pixel is decoded.

    `Image.open` is not used: it would try every plugin, and warn about large images through global state.
    """
    head = stream.read(_PREFIX_BYTES)
    stream.seek(0)
    found = next((candidate for candidate in _FORMATS if candidate.matches(head)), None)
    if found is None:
        for offset, signature, name in _OTHER_SIGNATURES:
            if head[offset:].startswith(signature):
                raise Undecodable(path, "unsupported", f"{name} file")
        raise Undecodable(path, "not-an-image", "its first bytes are of no image format")
    image = found.reader(stream)
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise Undecodable(path, "too-large", f"{width} x {height} pixels; at most {limit} pixels are decoded")
    if min(width, height) < SMALLEST_SIDE:
        raise Undecodable(path, "too-small", f"{width} x {height} pixels; the shorter side must have {SMALLEST_SIDE}")
    return found, image


def _explained(path: Path, error: BaseException) -> Undecodable:
    """Tell a file that the system could not read from one that the decoder could not finish."""
    if isinstance(error, OSError) and error.errno is not None:
        return Undecodable(path, "unreadable", error.strerror or str(error))
    said = str(error) or type(error).__name__
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return Undecodable(path, "too-large", said)
    unsupported = ("unsupported", "unknown pixel mode", "not available", "unknown compression")
    if isinstance(error, NotImplementedError) or any(words in said.lower() for words in unsupported):
        return Undecodable(path, "unsupported", said)
    return Undecodable(path, "truncated", said)


def _tiff_orientation(image: ImageFile.ImageFile) -> int:
    """Read a TIFF's orientation before Pillow applies and forgets it while decoding; 0 for other formats."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(image.tag_v2.get(_ORIENTATION_TAG, 1))
    return 0


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _DECODER_ERRORS:
        return 1  # the pixels are whole; a damaged EXIF block says nothing about which way is up


def _stores_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether the file holds 16 bits per channel; Pillow keeps them for grayscale and reduces colour to 8 on "
    "loading."""
    arguments = image.tile[0].args if image.tile else ()
    raw_mode = arguments if isinstance(arguments, str) else next(iter(arguments or ()), "")
    return isinstance(raw_mode, str) and ";16" in raw_mode


def _to_rgb(path: Path, image: Image.Image) -> tuple[Images, list[str]]:
    """Convert a loaded image to `(H, W, 3) uint8` and name the conversions."""
    mode = image.mode
    transparent = "transparency" in image.info
    if mode == "RGB" and not transparent:
        return np.asarray(image), []
    if mode.startswith("I;16") or mode in ("I", "F"):
        gray, conversion = _scaled_to_8_bits(path, np.asarray(image))
        return np.repeat(gray[:, :, None], 3, axis=2), ["grayscale", conversion]
    if mode in ("1", "L"):
        conversions = ["grayscale"]
    elif mode in ("LA", "La"):
        conversions, transparent = ["grayscale"], True
    elif mode in ("P", "PA"):
        conversions, transparent = ["palette"], transparent or mode == "PA"
    elif mode in ("RGB", "RGBA", "RGBa"):
        conversions, transparent = [], transparent or mode != "RGB"
    elif mode == "CMYK":
        conversions = ["cmyk"]
    else:
        conversions = ["other-mode"]
    if not transparent:
        return np.asarray(image.convert("RGB")), conversions
    if mode == "La":
        image = image.convert("LA")
    with_alpha = image.convert("RGBA")
    on_white = Image.new("RGBA", with_alpha.size, (255, 255, 255, 255))
    on_white.alpha_composite(with_alpha)
    return np.asarray(on_white.convert("RGB")), [*conversions, "alpha"]


def _scaled_to_8_bits(path: Path, values: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.uint8], str]:
    """Scale wide grayscale values to 0..255: by the range of the type where it is known, else by the values' own range.

    16-bit integers are divided by 257, which maps 65535 to 255. Floats in 0..1 are multiplied by 255; floats in 0..255
    stay. Anything else (signed, 32-bit, elevation models) is stretched from its smallest to its largest value.
    """
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise Undecodable(path, "unsupported", "it holds values that are not finite")
    low, high = float(wide.min()), float(wide.max())
    is_float = values.dtype.kind == "f"
    conversion = "other-mode" if is_float else "16-bit"
    if not is_float and low >= 0 and high <= 65535:
        wide = wide / 257
    elif is_float and low >= 0 and high <= 1:
        wide = wide * 255
    elif not (is_float and low >= 0 and high <= 255):
        conversion = "other-mode"
        wide = (wide - low) * (255 / max(high - low, np.finfo(np.float64).tiny))
    return np.rint(wide).astype(np.uint8), conversion
