"""Pictures in and out: uint8 ↔ [-1, 1], channels, the project's own PNGs, resizing."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unseen_core.errors import UnseenError, first_line

__all__ = [
    "LUMINANCE",
    "decode_png",
    "encode_png",
    "png_bytes",
    "resize",
    "to_float",
    "to_uint8",
    "with_channels",
]

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


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

    For pictures of the project's own tables; foreign files go through ``decoding.decode``.

    Raises:
        UnseenError: The bytes are not an RGB or grey PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            mode, pixels = picture.mode, np.array(picture)
    except Exception as error:
        said = first_line(error)
        raise UnseenError(f"a stored picture is not a readable PNG ({said})") from error
    if mode not in ("RGB", "L"):
        raise UnseenError(f"a stored picture has PNG mode {mode}, not RGB or L")
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()


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
