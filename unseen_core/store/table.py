"""Latents in Parquet alone, for small sets and for readers without safetensors."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.store.atomic import write_with
from unseen_core.store.base import BaseStore, check_latents, read_manifest
from unseen_core.store.protocol import DType, LatentStore
from unseen_core.store.tensors import TensorStore
from unseen_core.types import Level

__all__ = ["TableStore", "open_store", "save_table", "table_name"]


class TableStore(BaseStore):
    """The files ``L0500.parquet`` (a tensor column ``x``, one row group per part), index, manifest.

    Rows are read by row group: choose parts of about 64 MB.
    """

    format: ClassVar[str] = "table"

    def _read(self, level: Level, part: int, rows: Sequence[int] | None) -> Tensor:
        """Return rows of one part (all when None) as new float32 memory."""
        path = self._open_part(table_name(level))
        try:
            with pq.ParquetFile(path) as file:
                column = file.read_row_group(part, columns=["x"]).column("x").combine_chunks()
        except (pa.ArrowException, OSError, IndexError, KeyError) as error:
            raise UnseenError(f"{path}: damaged; rerun invert") from error
        stored = column.to_numpy_ndarray()
        if stored.shape != (self.manifest["rows"][part], *self.shape):
            raise UnseenError(f"{path}: shape not as the manifest says; rerun invert")
        chosen = stored if rows is None else stored[list(rows)]
        return torch.from_numpy(chosen.astype(np.float32))


def table_name(level: Level) -> str:
    """Return the name of a level's file inside its store, ``L0500.parquet``."""
    return f"L{level:04d}.parquet"


def save_table(path: Path, parts: Iterable[Tensor], dtype: DType) -> None:
    """Write the parts of one level, each (rows, c, h, w), as row groups of one file, atomically.

    No compression, dictionary or statistics: latents do not compress.

    Raises:
        UnseenError: There is no part, or one has another shape or is not finite in ``dtype``.
    """

    def write(temporary: Path) -> None:
        writer: pq.ParquetWriter | None = None
        try:
            for part in parts:
                x = check_latents(path, part, dtype).numpy()
                table = pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(x)})
                if writer is None:
                    writer = pq.ParquetWriter(
                        temporary,
                        table.schema,
                        compression="none",
                        use_dictionary=False,
                        write_statistics=False,
                    )
                elif table.schema != writer.schema:
                    raise UnseenError(f"{path}: parts differ in shape; give all (rows, c, h, w)")
                writer.write_table(table, row_group_size=len(x))
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise UnseenError(f"{path}: no latents to write; give at least one part")

    write_with(path, write)


def open_store(path: Path) -> LatentStore:
    """Open a published store of latents, whichever its format.

    Raises:
        UnseenError: The folder is unfinished, damaged or of an unknown format.
    """
    kind = read_manifest(path)["format"]
    if kind == TensorStore.format:
        return TensorStore(path)
    if kind == TableStore.format:
        return TableStore(path)
    raise UnseenError(f"{path}: unknown store format {kind!r}; rerun the stage that wrote it")
