"""Pictures with their provenance, as Parquet tables of PNG bytes."""

from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from unseen_core.basics.images import decode_png, encode_png
from unseen_core.errors import UnseenError
from unseen_core.store.frames import read_frame, write_frame

__all__ = ["read_pictures", "write_pictures"]


def write_pictures(path: Path, images: Tensor, frame: pd.DataFrame) -> None:
    """Write images and their provenance, atomically; equal content gives equal bytes.

    Args:
        path: The Parquet file.
        images: uint8 (n, 3, h, w), or (n, 1, h, w) for grey.
        frame: n rows; a column id (str, unique) and any provenance columns but ``png``.

    Raises:
        UnseenError: Shapes do not fit, ids are missing or repeat, or ``png`` is taken.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UnseenError(f"{path}: images {images.dtype} {tuple(images.shape)}; give uint8 n3hw "
                          "or n1hw")
    if len(frame) != len(images) or "id" not in frame or "png" in frame:
        raise UnseenError(f"{path}: give one row with an id, and no column png, for each image")
    if not frame["id"].is_unique:
        double = frame["id"][frame["id"].duplicated()].iloc[0]
        raise UnseenError(f"{path}: picture id {double!r} appears twice; give each its own")
    table = frame.reset_index(drop=True)
    table.insert(1, "png", pd.Series([encode_png(image) for image in images], dtype=object))
    write_frame(path, table)


def read_pictures(path: Path, limit: int | None = None) -> tuple[Tensor, pd.DataFrame]:
    """Return the images, uint8 (n, c, h, w), c 1 or 3, and their provenance without the PNG bytes.

    Args:
        path: The Parquet file.
        limit: Read no more than the first so many; None: all.

    Raises:
        UnseenError: The file is missing, damaged, empty or not a table of pictures.
    """
    frame = read_frame(path)
    frame = frame if limit is None else frame.head(limit).copy()
    if "png" not in frame or "id" not in frame:
        raise UnseenError(f"{path}: no columns id and png; give a table of pictures")
    if frame.empty:
        raise UnseenError(f"{path}: holds no picture; rerun the stage that writes it")
    try:
        images = [decode_png(data) for data in frame.pop("png")]
    except UnseenError as error:
        raise UnseenError(f"{path}: {error}; rerun the stage that writes it") from error
    if any(image.shape != images[0].shape for image in images):
        raise UnseenError(f"{path}: pictures differ in size; rerun the stage that writes it")
    return torch.stack(images), frame
