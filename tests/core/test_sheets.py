"""Contact sheets: every image in its place, equal input equal bytes."""

import numpy as np
import pytest
import torch

from unseen_core.basics.images import png_bytes
from unseen_core.basics.sheets import pair_sheet, sheet
from unseen_core.errors import UnseenError


def test_sheet_places_every_image_and_is_deterministic() -> None:
    stack = torch.arange(5, dtype=torch.uint8).mul(50)[:, None, None, None].expand(5, 3, 8, 6)
    picture = sheet(stack, columns=3, scale=2, gap=1)
    assert picture.size == (1 + 3 * 13, 1 + 2 * 17)
    pixels = np.asarray(picture)
    for index in range(5):
        top, left = 1 + index // 3 * 17, 1 + index % 3 * 13
        assert (pixels[top : top + 16, left : left + 12] == index * 50).all()
    options = {"columns": 3, "title": "shapes", "captions": ["first", "second"]}
    data = png_bytes(sheet(stack, **options))
    assert data == png_bytes(sheet(stack, **options))
    assert sheet(stack, **options).height > sheet(stack, columns=3).height
    with pytest.raises(UnseenError, match="captions"):
        sheet(stack, columns=3, captions=["one"])
    with pytest.raises(UnseenError, match="n, 3, h, w"):
        sheet(stack[:0], columns=3)


def test_pair_sheet_puts_partners_side_by_side() -> None:
    left = torch.full((2, 3, 8, 8), 10, dtype=torch.uint8)
    right = torch.full((2, 3, 8, 8), 99, dtype=torch.uint8)
    pixels = np.asarray(pair_sheet(left, right, columns=2, scale=1, gap=2))
    assert pixels.shape == (12, 38, 3)
    assert (pixels[2:10, 2:10] == 10).all() and (pixels[2:10, 10:18] == 99).all()
    assert (pixels[2:10, 20:28] == 10).all() and (pixels[2:10, 28:36] == 99).all()
    with pytest.raises(UnseenError, match="one shape"):
        pair_sheet(left, right[:1], columns=2)
