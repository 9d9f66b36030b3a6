"""Contact sheets: many images in one picture, with captions."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError

__all__ = ["pair_sheet", "sheet"]

_PAPER, _INK, _STRIP = (24, 24, 24), (235, 235, 235), 14


def sheet(
    images: Tensor,
    *,
    columns: int,
    scale: int = 2,
    gap: int = 2,
    title: str = "",
    captions: Sequence[str] = (),
) -> Image.Image:
    """Return a contact sheet, filled row by row.

    Args:
        images: uint8, shape (n, 3, h, w), or (n, 1, h, w) for grey, n >= 1.
        columns: Images in a row, >= 1.
        scale: Whole factor by which each pixel is enlarged.
        gap: Pixels between images and around them.
        title: One line above the sheet.
        captions: One line above each row; as many as there are rows, or none.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) \
            or not len(images):
        found = f"{images.dtype} {tuple(images.shape)}"
        raise UnseenError(f"a sheet is made from uint8 of shape (n, 3, h, w), not {found}")
    if columns < 1 or scale < 1 or gap < 0:
        raise UnseenError(f"a sheet needs columns, scale >= 1, gap >= 0: {columns}, {scale}, {gap}")
    rows = -(-len(images) // columns)
    if captions and len(captions) != rows:
        raise UnseenError(f"a sheet of {rows} rows needs as many captions, not {len(captions)}")
    columns = min(columns, len(images))
    height, width = (scale * side for side in images.shape[2:])
    strip = _STRIP if captions else 0
    top = gap + (_STRIP if title else 0)
    extent = (gap + columns * (width + gap), top + rows * (strip + height + gap))
    picture = Image.new("RGB", extent, _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(10)
    draw.text((gap + 1, 1), title, _INK, font)
    for row, caption in enumerate(captions):
        draw.text((gap + 1, top + row * (strip + height + gap)), caption, _INK, font)
    pixels = with_channels(images, 3).cpu().permute(0, 2, 3, 1).numpy()
    large = pixels.repeat(scale, 1).repeat(scale, 2)
    for index, tile in enumerate(large):
        row, column = divmod(index, columns)
        corner = (gap + column * (width + gap), top + strip + row * (strip + height + gap))
        picture.paste(Image.fromarray(tile), corner)
    return picture


def pair_sheet(
    left: Tensor,
    right: Tensor,
    *,
    columns: int,
    scale: int = 2,
    gap: int = 2,
    title: str = "",
    captions: Sequence[str] = (),
) -> Image.Image:
    """Return a sheet in which each image of ``left`` touches its partner from ``right``.

    The arguments are those of ``sheet``; both stacks have one shape and ``columns``
    counts pairs. Made for samples beside their nearest fit images.
    """
    if left.shape != right.shape:
        found = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise UnseenError(f"a pair sheet needs two stacks of one shape, not {found}")
    pairs = torch.cat([left, right], dim=3)
    return sheet(pairs, columns=columns, scale=scale, gap=gap, title=title, captions=captions)
