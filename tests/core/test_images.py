"""Decoding of foreign bytes, resizing, and the two conversions of the pixel range."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer, make_resizer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unseen_core.basics import decoding, images
from unseen_core.basics.stretch import Stretch
from unseen_core.errors import UnseenError


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture in the given file format."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def read(data: bytes, **options: object) -> np.ndarray:
    """Decode at 16×16 and return channels last."""
    settled = {"size": 16, "max_pixels": 10_000} | options
    return decoding.decode(data, "x.png", **settled).permute(1, 2, 0).numpy()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return uint8 noise, shape (height, width, channels)."""
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def chunk(name: bytes, body: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    sealed = name + body
    return struct.pack(">I", len(body)) + sealed + struct.pack(">I", zlib.crc32(sealed))


# 400 million pixels, of which only the header exists.
BOMB = [(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)), (b"IDAT", b"")]


def test_every_grey_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = images.to_float(levels)
    assert floats.dtype == torch.float32
    assert floats[0] == -1 and floats[-1] == 1
    assert torch.equal(images.to_uint8(floats), levels)
    assert torch.equal(images.to_uint8(floats.double()), levels)


def test_to_uint8_clamps_and_rounds_to_nearest() -> None:
    step = 2 / 255
    x = torch.tensor([-7.0, -1.0, -1 + 0.49 * step, -1 + 0.51 * step, 1.0, 9.0])
    assert images.to_uint8(x).tolist() == [0, 0, 0, 1, 255, 255]


def test_conversions_refuse_wrong_input() -> None:
    with pytest.raises(UnseenError, match="NaN"):
        images.to_uint8(torch.tensor([float("nan")]))
    with pytest.raises(UnseenError, match="floating"):
        images.to_uint8(torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(UnseenError, match="uint8"):
        images.to_float(torch.zeros(3))


def test_png_round_trip_and_refusal() -> None:
    image = torch.from_numpy(noise(9, 13)).permute(2, 0, 1)
    data = images.encode_png(image)
    assert torch.equal(images.decode_png(data), image)
    assert data == images.encode_png(image.clone())
    grey = image[:1]
    with Image.open(io.BytesIO(images.encode_png(grey))) as picture:
        assert picture.mode == "L"
    assert torch.equal(images.decode_png(images.encode_png(grey)), grey)
    for bad in (b"", data[:-30], encoded(Image.new("RGBA", (9, 9)), "PNG")):
        with pytest.raises(UnseenError):
            images.decode_png(bad)
    with pytest.raises(UnseenError, match="3, h, w"):
        images.encode_png(image.permute(1, 2, 0))


@pytest.mark.parametrize("shape", [(25, 25), (64, 48), (8, 8), (300, 31)])
def test_resize_agrees_with_clean_fid(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    theirs = build_resizer("clean")(pixels)
    assert (images.resize(pixels, 299) == theirs.round()).all()
    for size in (16, 32, 256):
        theirs = make_resizer("PIL", False, "bicubic", (size, size))(pixels)
        assert (images.resize(pixels, size) == theirs.round()).all()
    # Decoding adds nothing to it, and a crop comes first.
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = pixels[top : top + side, left : left + side]
    theirs = make_resizer("PIL", False, "bicubic", (16, 16))(square)
    data = encoded(Image.fromarray(pixels), "PNG")
    assert (read(data, crop=True, max_pixels=10**6) == theirs.round()).all()


def test_resize_antialiases_and_crops() -> None:
    board = np.indices((64, 64)).sum(0)[..., None] % 2 * np.uint8(255)
    assert np.abs(images.resize(board, 16).astype(int) - 128).max() <= 4
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    assert (images.resize(wide, 16, crop=True) == 200).all()
    assert (images.resize(wide, 16)[:, :3] == 0).all()
    with pytest.raises(UnseenError, match="shape"):
        images.resize(wide[:0], 16)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    for kind in ("PNG", "TIFF"):
        for value, expected in ((0, 0), (257, 1), (32896, 128), (65535, 255)):
            grey = Image.fromarray(np.full((16, 16), value, np.uint16))
            assert grey.mode == "I;16"
            assert (read(encoded(grey, kind)) == expected).all()


def deep_png(colour: int, levels: list[int]) -> bytes:
    """Return a 16×16 PNG of one colour with 16 bits per channel."""
    row = b"\0" + struct.pack(f">{len(levels)}H", *levels) * 16
    head = struct.pack(">IIBBBBB", 16, 16, 16, colour, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(row * 16)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("colour", "levels", "expected"),
    [
        (0, [32896], [128, 128, 128]),
        (2, [32896, 16448, 65535], [128, 64, 255]),
        (4, [65535, 32896], [128, 128, 128]),
        (6, [65535, 32896, 0, 32896], [128, 64, 0]),
    ],
)
def test_sixteen_bit_pngs_of_every_kind(
    colour: int, levels: list[int], expected: list[int]
) -> None:
    assert (abs(read(deep_png(colour, levels)).astype(int) - expected) <= 1).all()


def deep_tiff(order: str, photometric: int, level: int) -> bytes:
    """Return a 16×16 TIFF of one 16-bit grey in the byte order < or >."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]
    tags = [(256, 16), (257, 16), (258, 16), (259, 1), (262, photometric), (273, 8), (277, 1),
            (278, 16), (279, 512)]
    fields = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack(f"{order}H", len(tags)) + fields + bytes(4)
    pixels = struct.pack(f"{order}H", level) * 256
    return head + struct.pack(f"{order}I", 8 + len(pixels)) + pixels + directory


@pytest.mark.parametrize(
    ("order", "photometric", "mode", "expected"),
    [("<", 1, "I;16", 64), ("<", 0, "I;16", 191), (">", 1, "I;16B", 64)],
)
def test_sixteen_bit_tiffs_of_both_byte_orders_and_as_negatives(
    order: str, photometric: int, mode: str, expected: int
) -> None:
    data = deep_tiff(order, photometric, 64 * 257)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == mode
    assert (read(data) == expected).all()


def test_thirty_two_bit_pixels() -> None:
    long = np.full((16, 16), 65535, np.int32)
    assert (read(encoded(Image.fromarray(long), "TIFF")) == 255).all()
    for pixels in (long + 1, -long, long.astype(np.float32)):
        with pytest.raises(UnseenError, match=r"^x\.png: .* set range of its domain, as \["):
            read(encoded(Image.fromarray(pixels), "TIFF"))


@pytest.mark.parametrize(("pixels", "span", "expected"), [
    (np.full((16, 16), 1023, np.uint16), (0, 4095), 64),
    (np.full((16, 16), 70_000, np.int32), (0, 140_000), 128),
    (np.full((16, 16), -500, np.int32), (-1000, 1000), 64),
    (np.full((16, 16), 0.25, np.float32), (-1, 1), 159),
    (np.full((16, 16), 1, np.uint8), (0, 2), 128),
    (np.full((16, 16, 3), 9, np.uint8), (0, 9), 255),
])
def test_a_range_says_what_is_black_and_white(
    pixels: np.ndarray, span: tuple[float, float], expected: int
) -> None:
    found = read(encoded(Image.fromarray(pixels), "TIFF"), stretch=Stretch(span))
    assert (found == expected).all()


def test_a_range_of_negatives_and_signed_bytes() -> None:
    assert (read(deep_tiff("<", 0, 1023), stretch=Stretch((0, 4095))) == 191).all()
    signed = encoded(Image.fromarray(np.full((16, 16), -64, np.int8).view(np.uint8)), "TIFF",
                     tiffinfo={339: 2})
    with pytest.raises(UnseenError, match=r"signed 8-bit pixels .* as \[-128, 127\]"):
        read(signed)
    assert (read(signed, stretch=Stretch((-128, 127))) == 64).all()


def test_pages_are_counted() -> None:
    frames = [Image.fromarray(noise(16, 16) + np.uint8(i)) for i in range(3)]
    stack = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert decoding.pages(stack) == 3
    for kind in ("TIFF", "PNG"):
        assert decoding.pages(encoded(frames[0], kind)) == 1
    assert decoding.pages(stack[:9]) == 1


def test_transparency_lies_on_black() -> None:
    clear = Image.new("RGBA", (16, 16), (250, 100, 50, 0))
    half = Image.new("LA", (16, 16), (200, 128))
    assert (read(encoded(clear, "PNG")) == 0).all()
    assert (abs(read(encoded(half, "PNG")).astype(int) - 100) <= 1).all()
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 255, 10, 20])
    assert (read(encoded(Image.new("1", (16, 16), 1), "PNG")) == 255).all()
    assert (read(encoded(palette, "PNG", transparency=1)) == 0).all()
    assert (read(encoded(palette, "PNG")) == [255, 10, 20]).all()
    assert (read(encoded(palette, "GIF", transparency=1)) == 0).all()


def test_cmyk_orientation_and_first_frame() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    jpeg = encoded(red, "JPEG")
    assert b"Adobe" in jpeg  # its CMYK is stored inverted
    for data in (jpeg, encoded(red, "TIFF")):
        assert np.abs(read(data).astype(int) - [255, 0, 0]).max() <= 4
    halves = np.zeros((16, 16, 3), np.uint8)
    halves[:8] = 255  # white above; orientation 3 turns by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = read(encoded(Image.fromarray(halves), "PNG", exif=exif.tobytes()))
    assert (turned[8:] == 255).all() and (turned[:8] == 0).all()
    frames = [Image.new("L", (16, 16), grey) for grey in (40, 200)]
    movie = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (read(movie) == 40).all()


def test_bounds_are_judged_from_the_header() -> None:
    with pytest.raises(UnseenError, match=r"^x\.png: 1x1 pixels is too small"):
        read(encoded(Image.new("RGB", (1, 1)), "PNG"))
    large = encoded(Image.new("1", (200, 100)), "PNG")
    with pytest.raises(UnseenError, match=r"^x\.png: 200x100 .* max_pixels 10000$"):
        read(large[:60])  # the pixels are cut off: the header alone must be enough
    assert read(large, max_pixels=20_000).shape == (16, 16, 3)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in BOMB)
    with pytest.raises(UnseenError, match=r"^x\.png: too large"):
        read(bomb, max_pixels=10**12)


def test_other_formats_and_truncation_are_named() -> None:
    picture = Image.fromarray(noise(64, 64))
    for kind in decoding.FORMATS:
        assert read(encoded(picture, kind)).shape == (16, 16, 3)
    for data in (encoded(picture, "TGA"), encoded(picture, "PPM"), b"just text", b""):
        with pytest.raises(UnseenError, match=r"^x\.png: not an image in one of PNG"):
            read(data)
    for kind in ("JPEG", "PNG", "TIFF", "BMP"):
        data = encoded(picture, kind)
        with pytest.raises(UnseenError, match=r"^x\.png: "):
            read(data[: len(data) // 2])


HEADS = [encoded(Image.fromarray(noise(12, 12)), kind) for kind in decoding.FORMATS]


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.sampled_from([b"", *HEADS]), st.binary(max_size=40), st.integers(0, 400))
def test_any_bytes_decode_or_raise_one_error(head: bytes, patch: bytes, place: int) -> None:
    data = head[:place] + patch + head[place + len(patch) :]
    try:
        image = decoding.decode(data, "x.png", size=8, max_pixels=4096)
    except UnseenError as error:
        assert str(error).startswith("x.png: ") and "\n" not in str(error)
    else:
        assert image.shape == (3, 8, 8) and image.dtype == torch.uint8
