"""Each kind of file gives the pixels that it means, or the reason why it is left out."""

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from headstart.data.decode import Undecodable, decode_file, decode_to_canvas, read_size, to_canvas
from tests.data.making import noise


def saved(
    path: Path, pixels: npt.NDArray[np.generic] | Image.Image, format_name: str = "PNG", **options: object
) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, format_name, **options)
    return path


def reason_of(path: Path) -> str:
    with pytest.raises(Undecodable) as caught:
        decode_file(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    return caught.value.reason


def outcome(path: Path) -> npt.NDArray[np.uint8] | str:
    """The pixels, or the reason why there are none; a size that can be read is the size of the pixels."""
    try:
        size = read_size(path)
        image = decode_file(path).image
    except Undecodable as error:
        return error.reason
    assert sorted(image.shape[:2]) == sorted(size)
    return image


@pytest.mark.parametrize(
    ("format_name", "extension"),
    [("PNG", ".png"), ("BMP", ".bmp"), ("TIFF", ".tif"), ("WebP", ".webp"), ("WebP", ".WEBP"), ("PNG", "")],
)
def test_lossless_formats_give_the_exact_pixels(tmp_path: Path, format_name: str, extension: str) -> None:
    pixels = noise(1, 9, 13)
    decoded = decode_file(saved(tmp_path / f"a{extension}", pixels, format_name, lossless=True))
    assert np.array_equal(decoded.image, pixels)
    assert decoded.image.dtype == np.uint8
    assert decoded.conversions == ()


def test_jpeg_matches_pillow(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpeg", noise(1, 20, 20), "JPEG", quality=90)
    with Image.open(path) as image:
        assert np.array_equal(decode_file(path).image, np.asarray(image.convert("RGB")))


def test_a_wrong_extension_is_used_and_recorded(tmp_path: Path) -> None:
    assert decode_file(saved(tmp_path / "a.jpg", noise(1), "PNG")).conversions == ("wrong-extension",)


def test_grayscale_becomes_three_equal_channels(tmp_path: Path) -> None:
    gray = noise(1, channels=1)
    decoded = decode_file(saved(tmp_path / "a.png", gray))
    assert np.array_equal(decoded.image, np.stack([gray] * 3, axis=2))
    assert decoded.conversions == ("grayscale",)


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = noise(1, channels=1) > 127
    decoded = decode_file(saved(tmp_path / "a.png", Image.fromarray(bits)))
    assert np.array_equal(decoded.image[..., 0], bits * 255)
    assert decoded.conversions == ("grayscale",)


@pytest.mark.parametrize(("format_name", "extension"), [("PNG", "png"), ("TIFF", "tif")])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, format_name: str, extension: str) -> None:
    wide = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    decoded = decode_file(saved(tmp_path / f"a.{extension}", wide, format_name))
    assert np.array_equal(decoded.image[..., 1], np.rint(wide / 257))
    assert decoded.image.min() == 0
    assert decoded.image.max() == 255
    assert decoded.conversions == ("grayscale", "16-bit")


@pytest.mark.parametrize(("highest", "dark"), [(1023, True), (4095, True), (16383, True), (32767, False), (0, False)])
@pytest.mark.parametrize(("format_name", "extension"), [("PNG", "png"), ("TIFF", "tif")])
def test_fewer_bits_stored_in_sixteen_are_dark_and_recorded(
    tmp_path: Path, format_name: str, extension: str, highest: int, dark: bool
) -> None:
    few = np.linspace(0, highest, 64).round().astype(np.uint16).reshape(8, 8)
    decoded = decode_file(saved(tmp_path / f"a.{extension}", few, format_name))
    assert decoded.image.max() == round(highest / 257)
    assert ("dark-16-bit" in decoded.conversions) == dark
    assert "16-bit" in decoded.conversions


def test_a_dark_image_of_eight_bits_is_only_dark(tmp_path: Path) -> None:
    assert decode_file(saved(tmp_path / "a.png", noise(1, channels=1) // 8)).conversions == ("grayscale",)


@pytest.mark.parametrize(("factor", "conversions"), [(257, ("16-bit",)), (16, ("16-bit", "dark-16-bit"))])
def test_sixteen_bit_colour_png_is_recorded(tmp_path: Path, factor: int, conversions: tuple[str, ...]) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = noise(1, 5, 6)
    rows = b"".join(b"\0" + np.ascontiguousarray(row.astype(">u2") * factor).astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    decoded = decode_file(tmp_path / "a.png")
    assert np.array_equal(decoded.image, pixels if factor == 257 else pixels // 16)
    assert decoded.conversions == conversions


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-3.0, 4000.0)])
def test_float_tiff_is_scaled_by_its_range(tmp_path: Path, low: float, high: float) -> None:
    values = np.linspace(low, high, 64, dtype=np.float32).reshape(8, 8)
    decoded = decode_file(saved(tmp_path / "a.tif", values, "TIFF"))
    assert np.array_equal(decoded.image[..., 0], np.rint(np.linspace(0, 255, 64)).reshape(8, 8))
    assert decoded.conversions == ("grayscale", "other-mode")


def test_a_tiff_with_infinities_is_unsupported(tmp_path: Path) -> None:
    assert reason_of(saved(tmp_path / "a.tif", np.full((8, 8), np.inf, np.float32), "TIFF")) == "unsupported"


def test_32_bit_integers_are_stretched(tmp_path: Path) -> None:
    values = np.linspace(-1000, 1_000_000, 64).astype(np.int32).reshape(8, 8)
    decoded = decode_file(saved(tmp_path / "a.tif", values, "TIFF"))
    assert (decoded.image.min(), decoded.image.max()) == (0, 255)
    assert decoded.conversions == ("grayscale", "other-mode")


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = noise(1, channels=4)
    decoded = decode_file(saved(tmp_path / "a.png", pixels))
    share = pixels[..., 3:] / 255
    by_hand = pixels[..., :3] * share + 255 * (1 - share)
    assert np.abs(decoded.image - by_hand).max() <= 1
    assert decoded.conversions == ("alpha",)


def test_gray_with_alpha_and_key_colours(tmp_path: Path) -> None:
    image = Image.fromarray(noise(1, channels=1)).convert("LA")
    image.putalpha(0)
    decoded = decode_file(saved(tmp_path / "a.png", image))
    assert (decoded.image == 255).all()
    assert decoded.conversions == ("grayscale", "alpha")
    red = np.zeros((8, 8, 3), np.uint8)
    red[:4] = (200, 0, 0)
    keyed = decode_file(saved(tmp_path / "b.png", red, transparency=(200, 0, 0)))
    assert (keyed.image[:4] == 255).all()
    assert (keyed.image[4:] == 0).all()
    assert keyed.conversions == ("alpha",)


def test_palettes_with_and_without_alpha(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = (10, 200, 30)
    palette = Image.fromarray(pixels).quantize(2)
    plain = decode_file(saved(tmp_path / "a.png", palette))
    assert np.array_equal(plain.image, pixels)
    assert plain.conversions == ("palette",)
    green = palette.getpixel((0, 0))
    transparent = decode_file(
        saved(tmp_path / "b.png", palette, transparency=bytes([0 if i == green else 255 for i in (0, 1)]))
    )
    assert (transparent.image[:, :4] == 255).all()
    assert (transparent.image[:, 4:] == 0).all()
    assert transparent.conversions == ("palette", "alpha")


def test_cmyk_is_converted(tmp_path: Path) -> None:
    flat = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    for extension, name in (("jpg", "JPEG"), ("tif", "TIFF")):
        decoded = decode_file(saved(tmp_path / f"a.{extension}", flat, name))
        assert np.abs(decoded.image.astype(int) - [255, 0, 0]).max() <= 8
        assert decoded.conversions == ("cmyk",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format_name", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"), ("WebP", "webp")]
)
def test_exif_orientation_is_honoured(tmp_path: Path, orientation: int, format_name: str, extension: str) -> None:
    # What each orientation means, from the EXIF standard: where row 0 and column 0 of the stored pixels are shown.
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 250
    stored[8:, 16:] = 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{extension}", stored, format_name, exif=exif, quality=95)
    decoded = decode_file(path)
    assert decoded.conversions == (() if orientation == 1 else ("exif-rotated",))
    assert decoded.image.shape == undo[orientation](stored).shape
    assert np.abs(decoded.image.astype(int) - undo[orientation](stored)).mean() < 3


def test_of_several_frames_the_first_is_used(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for extension, name in (("gif", "GIF"), ("webp", "WebP"), ("tif", "TIFF"), ("png", "PNG")):
        frames[0].save(tmp_path / f"a.{extension}", name, save_all=True, append_images=frames[1:], lossless=True)
        decoded = decode_file(tmp_path / f"a.{extension}")
        assert (decoded.image == [255, 0, 0]).all()
        assert "first-frame" in decoded.conversions


def test_more_than_half_cut_away_is_recorded(tmp_path: Path) -> None:
    assert decode_file(saved(tmp_path / "a.png", noise(1, 10, 20))).conversions == ()
    assert decode_file(saved(tmp_path / "b.png", noise(1, 10, 21))).conversions == ("cropped",)
    assert decode_file(saved(tmp_path / "c.png", noise(1, 210, 10))).conversions == ("cropped",)


def test_files_that_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    assert reason_of(tmp_path / "empty.png") == "empty"
    (tmp_path / "text.jpg").write_text("BM is how this text begins, and a bitmap too")
    assert reason_of(tmp_path / "text.jpg") == "not-an-image"
    assert reason_of(saved(tmp_path / "one.png", noise(1, 1, 1))) == "too-small"
    assert reason_of(saved(tmp_path / "long.png", noise(1, 1, 5000))) == "too-small"
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    assert reason_of(tmp_path / "link.png") == "unreadable"
    assert reason_of(saved(tmp_path / "a.ico", noise(1), "ICO")) == "unsupported"
    assert reason_of(saved(tmp_path / "a.ppm", noise(1), "PPM")) == "unsupported"
    assert reason_of(tmp_path) == "not-a-file"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reason_of(tmp_path / "pipe.png") == "not-a-file"


def test_a_file_is_decoded_the_same_whether_it_is_read_as_a_whole_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.png", noise(1))
    whole = decode_file(path)
    monkeypatch.setattr("headstart.data.decode._READ_WHOLE", 10)
    assert np.array_equal(whole.image, noise(1))
    assert np.array_equal(decode_file(path).image, whole.image)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", noise(1))

    def refuse(self: Path, mode: str = "r", buffering: int = -1) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(Undecodable) as caught:
        decode_file(path)
    assert (caught.value.reason, caught.value.detail) == ("unreadable", "Permission denied")


def test_a_decompression_bomb_is_too_large_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    assert reason_of(path) == "too-large"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert decode_file(path).image.shape == (40, 50, 3)


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WebP", "BMP", "TIFF", "GIF"])
def test_a_file_cut_anywhere_is_truncated_or_whole(tmp_path: Path, format_name: str) -> None:
    whole = saved(tmp_path / "whole", noise(1, 40, 40), format_name)
    data = whole.read_bytes()
    expected = decode_file(whole).image
    cut = tmp_path / "cut"
    for length in [*range(1, 40), *range(40, len(data) - 1, max(1, len(data) // 40))]:
        cut.write_bytes(data[:length])
        result = outcome(cut)
        if isinstance(result, str):
            assert result == "truncated" or (result == "not-an-image" and length < 40)
        else:
            assert np.array_equal(result, expected)  # what was cut off held no pixels


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WebP", "BMP", "TIFF", "GIF"])
def test_damaged_bytes_never_raise_anything_else(tmp_path: Path, format_name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(2, 24, 24)).save(buffer, format_name)
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for _ in range(60):
        data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
        places = rng.integers(0, min(len(data), 400), size=4)
        data[places] = rng.integers(0, 256, size=4)
        path.write_bytes(data.tobytes())
        result = outcome(path)
        known = ("truncated", "not-an-image", "unsupported", "too-small", "too-large")
        assert not isinstance(result, str) or result in known


def test_to_canvas_takes_the_centre_square() -> None:
    image = noise(1, 10, 21)
    assert np.array_equal(to_canvas(image, 10), image[:, 5:15])
    square = noise(2, 12, 12)
    assert np.array_equal(to_canvas(square, 12), square)


@pytest.mark.parametrize("canvas", [8, 16, 50])
def test_to_canvas_resizes_as_pillow_does(canvas: int) -> None:
    square = noise(1, 32, 32)
    by_pillow = Image.fromarray(square).resize((canvas, canvas), Image.Resampling.BILINEAR)
    assert np.array_equal(to_canvas(square, canvas), np.asarray(by_pillow))


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(to_canvas(stripes, 8).astype(int) - 127.5).max() < 8


def test_decode_to_canvas(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise(1, 20, 30))
    assert np.array_equal(decode_to_canvas(path, 8), to_canvas(decode_file(path).image, 8))
    assert read_size(path) == (30, 20)
