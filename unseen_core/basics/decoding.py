"""Foreign image files into pixels: judged before they are decoded, with a range that is known."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unseen_core.basics.images import resize
from unseen_core.basics.stretch import Stretch
from unseen_core.errors import UnseenError, first_line

__all__ = ["FORMATS", "check_extent", "decode", "decode_pages", "pages"]

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_SMALLEST = 8
# Tags of a TIFF, and values of theirs.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_BITS, _SAMPLES, _SIGNED = 258, 339, 2
_SUBFILE, _OF_ANOTHER = 254, 1 | 4  # a smaller version of another page, or its mask


def check_extent(extent: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise UnseenError unless width and height are within bounds."""
    width, height = extent
    if min(width, height) < _SMALLEST:
        least = f"{_SMALLEST}x{_SMALLEST}"
        raise UnseenError(f"{name}: {width}x{height} pixels is too small, at least {least} needed")
    if width * height > max_pixels:
        raise UnseenError(f"{name}: {width}x{height} pixels is more than max_pixels {max_pixels}")


def pages(data: bytes) -> int:
    """Return how many pages a TIFF file has; 1 for anything else."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
            return picture.n_frames
    except Exception:  # its decoder says what is wrong with it
        return 1


def decode(
    data: bytes, name: str, *, size: int, max_pixels: int, crop: bool = False,
    stretch: Stretch | None = None,
) -> Tensor:
    """Return a foreign image file as RGB, uint8 of shape (3, size, size).

    The header is judged before any pixel is decoded. EXIF orientation is applied, of several
    frames the first is taken, 16-bit grey is divided by 257, and transparent pixels lie on
    black, so that no white frame enters a domain.

    Args:
        data: The whole file.
        name: How messages call the file.
        size: Side of the result in pixels.
        max_pixels: Largest width times height that is decoded.
        crop: Cut the central square out first; otherwise a non-square image is stretched.
        stretch: Which values become black and white; None: those of the file's type.

    Raises:
        UnseenError: Not one of ``FORMATS``, smaller than 8×8, larger than ``max_pixels``,
            truncated, or in floating point without ``stretch``.
    """
    with _one_line(name), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        pixels = _pixels(picture, name, max_pixels, stretch)
    return _sized(pixels, size, crop)


def decode_pages(
    data: bytes, name: str, *, size: int, max_pixels: int, crop: bool = False,
    stretch: Stretch | None = None,
) -> Iterator[tuple[str, Tensor | UnseenError]]:
    """Yield name and image of every page of a TIFF file, or what is wrong with the page.

    Smaller versions of another page, and masks, are no pages of their own (NewSubfileType). The
    arguments are those of `decode`.

    Raises:
        UnseenError: The file cannot be opened.
    """
    with _one_line(name):
        picture = Image.open(io.BytesIO(data), formats=("TIFF",))
    with picture:
        for page in range(picture.n_frames):
            title = f"{name}[{page}]"
            try:
                with _one_line(title):
                    picture.seek(page)
                    if picture.tag_v2.get(_SUBFILE, 0) & _OF_ANOTHER:
                        continue
                    pixels = _pixels(picture, title, max_pixels, stretch)
            except UnseenError as error:
                yield title, error
            else:
                yield title, _sized(pixels, size, crop)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn whatever a decoder of foreign bytes raises into one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # corrupt metadata beside intact pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnseenError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnseenError(f"{name}: not an image in one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnseenError(f"{name}: too large to decode safely; make it smaller") from error
    except Exception as error:  # decoders of foreign bytes raise almost every class there is
        raise UnseenError(f"{name}: damaged or truncated ({first_line(error)})") from error


def _pixels(
    picture: Image.Image, name: str, max_pixels: int, stretch: Stretch | None
) -> np.ndarray:
    """Return an opened picture's pixels as `_rgb` does, turned as EXIF says."""
    check_extent(picture.size, name, max_pixels)
    tags = getattr(picture, "tag_v2", {})
    negative = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    signed = _SIGNED in tags.get(_SAMPLES, ()) and max(tags.get(_BITS, (8,))) == 8
    return _rgb(ImageOps.exif_transpose(picture), name, stretch, negative=negative, signed=signed)


def _sized(pixels: np.ndarray, size: int, crop: bool) -> Tensor:
    """Return pixels (h, w, 3) as an image (3, size, size)."""
    return torch.from_numpy(resize(pixels, size, crop=crop)).permute(2, 0, 1).contiguous()


def _rgb(
    picture: Image.Image, name: str, stretch: Stretch | None, *, negative: bool, signed: bool,
) -> np.ndarray:
    """Return the pixels as RGB, shape (h, w, 3), values 0..255 (float32 for 16-bit grey).

    Pillow turns the negative grey of a TIFF round where it has up to 8 bits, not where it has 16.
    """
    if stretch is not None and picture.mode[0] in "IF":
        grey = stretch(np.asarray(picture), name)
        return np.repeat((255 - grey if negative else grey)[..., None], 3, axis=2)
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.float32)
        if grey.min() < 0 or grey.max() > 65535:
            raise UnseenError(f"{name}: 32-bit grey outside 0..65535; set range of its domain, as "
                              f"[{grey.min():g}, {grey.max():g}] of this file")
        grey = 65535 - grey if negative else grey
        return np.repeat(grey[..., None] / 257, 3, axis=2)  # 65535 = 257 · 255
    if picture.mode == "F":
        raise UnseenError(f"{name}: float pixels have no range of their own; set range of its "
                          "domain, as [0, 1]")
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    pixels = np.asarray(picture.convert("RGB"))
    if signed:  # Pillow reads them as 0..255
        if stretch is None:
            raise UnseenError(f"{name}: signed 8-bit pixels have no black of their own; set range "
                              "of its domain, as [-128, 127]")
        pixels = pixels.view(np.int8)
    return pixels if stretch is None else stretch(pixels, name)
