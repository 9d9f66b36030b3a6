"""Parquet tables whose bytes depend on their content alone (for fixed library versions).

Each page has a checksum, which is compared when it is read.
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from unseen_core.errors import UnseenError, first_line
from unseen_core.store.atomic import write_bytes, write_with

__all__ = ["read_frame", "write_csv", "write_frame"]


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet, atomically; the frame's own index is dropped.

    Raises:
        UnseenError: A column mixes types that Parquet cannot hold.
    """
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise UnseenError(f"{path}: {first_line(error)}; give each column one type") from error
    # The pandas block in the metadata names library versions and adds nothing to the content.
    table = table.replace_schema_metadata(None)

    def write(temporary: Path) -> None:
        # Statistics would repeat whole pictures: the smallest and the largest value of a page.
        pq.write_table(table, temporary, compression="none", write_page_checksum=True,
                       write_statistics=False)

    write_with(path, write)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV with six digits of every number, atomically; without the index."""
    write_bytes(path, frame.to_csv(index=False, float_format="%.6g").encode())


def read_frame(path: Path) -> pd.DataFrame:
    """Read a table written by :func:`write_frame`.

    Raises:
        UnseenError: The file is missing or not Parquet.
    """
    try:
        table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
        return table.to_pandas()
    except FileNotFoundError as error:
        raise UnseenError(f"{path}: no such file; run the stage that writes it") from error
    except (pa.ArrowException, OSError) as error:
        raise UnseenError(f"{path}: damaged ({first_line(error)}); rerun its stage") from error
