"""Latents as safetensors parts: quick to write, mapped when read."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.store.atomic import write_with
from unseen_core.store.base import BaseStore, check_latents
from unseen_core.store.protocol import DType
from unseen_core.types import Level

__all__ = ["TensorStore", "part_name", "read_tensors", "save_part"]


class TensorStore(BaseStore):
    """The files ``L0500/part-00000.safetensors`` (one tensor ``x``), index and manifest."""

    format: ClassVar[str] = "tensors"

    def _read(self, level: Level, part: int, rows: Sequence[int] | None) -> Tensor:
        """Return rows of one part (all when None) as new float32 memory."""
        path = self._open_part(part_name(level, part))
        try:
            with safe_open(path, framework="pt") as file:
                stored = file.get_slice("x")
                if tuple(stored.get_shape()) != (self.manifest["rows"][part], *self.shape):
                    raise UnseenError(f"{path}: shape not as the manifest says; rerun invert")
                x = stored[:] if rows is None else torch.stack([stored[row] for row in rows])
                # A copy, since a view of the mapped file would change with the file.
                return x.to(torch.float32, copy=True)
        except SafetensorError as error:
            raise UnseenError(f"{path}: damaged ({error}); rerun invert") from error


def part_name(level: Level, number: int) -> str:
    """Return the name of a part inside its store, ``L0500/part-00000.safetensors``."""
    return f"L{level:04d}/part-{number:05d}.safetensors"


def save_part(path: Path, x: Tensor, dtype: DType) -> None:
    """Write latents (rows, c, h, w) as one safetensors file, atomically.

    There is no metadata: with several keys safetensors writes them in random order, and equal
    content would get unequal bytes.

    Raises:
        UnseenError: ``x`` has another shape, is empty or is not finite in ``dtype``.
    """
    x = check_latents(path, x, dtype)

    def write(temporary: Path) -> None:
        save_file({"x": x}, temporary)

    write_with(path, write)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a safetensors file, by name.

    Raises:
        UnseenError: The file is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UnseenError(f"{path}: no such file; run the stage that writes it") from error
    except SafetensorError as error:
        raise UnseenError(f"{path}: damaged ({error}); rerun its stage") from error
