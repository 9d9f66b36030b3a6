"""Pictures in and out: safe decoding, resizing, uint8 ↔ [-1, 1]."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = [
    "FORMATS",
    "LUMINANCE",
    "decode",
    "decode_png",
    "encode_png",
    "pages",
    "png_bytes",
    "resize",
    "scaled",
    "to_float",
    "to_uint8",
    "with_channels",
]

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_SMALLEST = 8
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a TIFF's tag and its value
_BITS, _SAMPLES, _SIGNED = 258, 339, 2


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images of any shape as float32 in [-1, 1]: x / 127.5 - 1."""
    if images.dtype != torch.uint8:
        raise UnseenError(f"images must be uint8, not {images.dtype}")
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Return floating images in [-1, 1] as uint8, rounded to the nearest grey level.

    This is the one place of the project that clamps: values outside [-1, 1] become 0 or 255.

    Raises:
        UnseenError: The images are not floating point or contain NaN.
    """
    if not images.is_floating_point():
        raise UnseenError(f"images must be floating point in [-1, 1], not {images.dtype}")
    if images.isnan().any():
        raise UnseenError("images contain NaN: check the network's weights and precision")
    if images.dtype.itemsize < 4:  # bfloat16 cannot hold all of 0..255 and a half
        images = images.float()
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def with_channels(images: Tensor, channels: int) -> Tensor:
    """Return images with as many channels as a network or a judge takes.

    Grey is repeated to three channels; of three the luminance is taken (ITU-R BT.601), rounded
    to the nearest grey level, so that grey stored as RGB comes back as it was. Images that have
    the channels already are returned as they are.

    Args:
        images: uint8 (n, c, h, w), c 1 or 3.
        channels: 1 or 3.

    Raises:
        UnseenError: If the images are of another type or shape, or channels are not 1 or 3.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UnseenError(f"images of {images.dtype} and shape {tuple(images.shape)}; give uint8 "
                          "of shape (n, 3, h, w), or (n, 1, h, w) for grey")
    if channels not in (1, 3):
        raise UnseenError(f"images have 1 or 3 channels, not {channels}")
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor(LUMINANCE, dtype=torch.float64, device=images.device)
    return torch.cat([torch.einsum("nchw,c->nhw", part.double(), weights)[:, None].round().byte()
                      for part in images.split(64)])


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as PNG bytes, without date or other metadata: equal pixels, equal bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_png(image: Tensor) -> bytes:
    """Return one image, uint8 of shape (3, h, w), or (1, h, w) for grey, as PNG bytes."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        found = f"{image.dtype} {tuple(image.shape)}"
        raise UnseenError(f"a PNG is written from uint8 of shape (3, h, w) or (1, h, w), not "
                          f"{found}")
    pixels = image.cpu().permute(1, 2, 0).contiguous().numpy()
    return png_bytes(Image.fromarray(pixels if len(image) == 3 else pixels[..., 0]))


def decode_png(data: bytes) -> Tensor:
    """Return the image written by ``encode_png``, uint8 of shape (3, h, w), or (1, h, w) if grey.

    For pictures of the project's own tables; foreign files go through ``decode``.

    Raises:
        UnseenError: The bytes are not an RGB or grey PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            mode, pixels = picture.mode, np.array(picture)
    except Exception as error:
        raise UnseenError(f"a stored picture is not a readable PNG ({_first(error)})") from error
    if mode not in ("RGB", "L"):
        raise UnseenError(f"a stored picture has PNG mode {mode}, not RGB or L")
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()


def scaled(values: np.ndarray, span: tuple[float, float], name: str) -> np.ndarray:
    """Return numbers as float32 0..255: ``span`` goes there linearly, what lies outside is clipped.

    Raises:
        UnseenError: Some are not finite; ``name`` is what the message calls them.
    """
    low, high = span
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise UnseenError(f"{name}: pixels that are not finite; give them a value")
    return (255 * (values - low) / (high - low)).clip(0, 255).astype(np.float32)


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
    span: tuple[float, float] | None = None,
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
        span: Values that become black and white; None: those of the file's type.

    Raises:
        UnseenError: Not one of ``FORMATS``, smaller than 8×8, larger than ``max_pixels``,
            truncated, or in floating point without ``span``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # corrupt metadata beside intact pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check_header(picture.size, name, max_pixels)
                tags = getattr(picture, "tag_v2", {})
                negative = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
                signed = _SIGNED in tags.get(_SAMPLES, ()) and max(tags.get(_BITS, (8,))) == 8
                pixels = _rgb(ImageOps.exif_transpose(picture), name, span, negative=negative,
                              signed=signed)
    except UnseenError:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnseenError(f"{name}: not an image in one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnseenError(f"{name}: too large to decode safely; make it smaller") from error
    except Exception as error:  # decoders of foreign bytes raise almost every class there is
        raise UnseenError(f"{name}: damaged or truncated ({_first(error)})") from error
    return torch.from_numpy(resize(pixels, size, crop=crop)).permute(2, 0, 1).contiguous()


def _first(error: Exception) -> str:
    """Return the first line of an error's text, or its class where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_header(extent: tuple[int, int], name: str, max_pixels: int) -> None:
    """Raise UnseenError unless width and height are within bounds."""
    width, height = extent
    if min(width, height) < _SMALLEST:
        least = f"{_SMALLEST}x{_SMALLEST}"
        raise UnseenError(f"{name}: {width}x{height} pixels is too small, at least {least} needed")
    if width * height > max_pixels:
        raise UnseenError(f"{name}: {width}x{height} pixels is more than max_pixels {max_pixels}")


def _rgb(
    picture: Image.Image, name: str, span: tuple[float, float] | None, *, negative: bool,
    signed: bool,
) -> np.ndarray:
    """Return the pixels as RGB, shape (h, w, 3), values 0..255 (float32 for 16-bit grey).

    Pillow turns the negative grey of a TIFF round where it has up to 8 bits, not where it has 16.
    """
    if span is not None and picture.mode[0] in "IF":
        grey = scaled(np.asarray(picture), span, name)
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
        if span is None:
            raise UnseenError(f"{name}: signed 8-bit pixels have no black of their own; set range "
                              "of its domain, as [-128, 127]")
        pixels = pixels.view(np.int8)
    return pixels if span is None else scaled(pixels, span, name)


def resize(pixels: np.ndarray, size: int, *, crop: bool = False) -> np.ndarray:
    """Return pixels resized by antialiased bicubic interpolation, channel by channel in float32.

    This is the resizing that clean-fid prescribes (Parmar et al. 2022, arXiv 2104.11222), its
    result rounded to the nearest grey level at the very end.

    Args:
        pixels: Shape (h, w, c), uint8 or float, values 0..255.
        size: Side of the result in pixels, >= 1.
        crop: Cut the central square out first; otherwise a non-square image is stretched.

    Returns:
        uint8 array, shape (size, size, c).
    """
    if pixels.ndim != 3 or 0 in pixels.shape or size < 1:
        raise UnseenError(f"cannot resize an array of shape {pixels.shape} to size {size}")
    if crop:
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    channels = [
        Image.fromarray(np.ascontiguousarray(plane, np.float32)).resize((size, size), Image.BICUBIC)
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack([np.asarray(c) for c in channels], axis=2).clip(0, 255).round().astype(np.uint8)
