"""Images in the column of a Parquet table, read in small batches."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from unseen_core.errors import UnseenError
from unseen_core.sources import reading
from unseen_core.sources.base import SourceConfig, SourceImages, printable, source
from unseen_core.sources.gather import Found, collect, decoded
from unseen_core.sources.reading import LICENCE, shards

__all__ = ["cell", "choose_column", "choose_label", "load_parquet"]

_NAMES = ("image", "png", "jpg", "jpeg", "webp", "bytes", "img")
_LABEL = "label"
_BATCH = 16
_BUFFER = 2**20
_MOST_CHUNK = 4 * 2**30


@source("parquet", "column", "label", "range", "pages")
def load_parquet(config: SourceConfig) -> SourceImages:
    """Return the images of a Parquet file, or of those in a folder, row by row.

    A cell holds an encoded image: bytes, or the struct {bytes, path} of Hugging Face data sets
    (a path alone is not followed). The column is ``column``, else the first of image, png, jpg,
    jpeg, webp, bytes, img. Labels are the integers of ``label``.

    Raises:
        UnseenError: Not Parquet, no such column, a chunk of more than 4 GiB; otherwise as
            ``load_folder``.
    """
    files = shards(config, (".parquet",))
    found = (entry for title, path in files for entry in _table(config, title, path))
    origin = f"parquet {printable(Path(str(config.path)).name)}"
    return collect(config, found, licence=LICENCE, origin=origin)


def choose_column(config: SourceConfig, usable: Mapping[str, bool], where: str) -> str:
    """Return the column of the images.

    Args:
        config: Gives ``column``, or None.
        usable: Whether a column can hold encoded images, for each.
        where: How messages call the table.

    Raises:
        UnseenError: No column is named like an image, or the one named holds no bytes.
    """
    names = [config.column] if config.column else [name for name in _NAMES if usable.get(name)]
    if not names or names[0] not in usable:
        known = ", ".join(printable(name) for name in list(usable)[:12]) or "no column"
        wanted = repr(config.column) if config.column else "of encoded images"
        raise UnseenError(f"{where}: no column {wanted}; it has {known}; name one as column")
    if not usable[names[0]]:
        need = "encoded images: bytes, or a struct with bytes"
        raise UnseenError(f"{where}: column {names[0]!r} must hold {need}; name another as column")
    return names[0]


def choose_label(config: SourceConfig, integer: Mapping[str, bool], where: str) -> str | None:
    """Return the column of the labels, or None where there is none.

    Args:
        config: Gives ``label``, or None.
        integer: Whether a column holds integers, for each.
        where: How messages call the table.

    Raises:
        UnseenError: The column that ``label`` names is absent or holds no integers.
    """
    if config.label and not integer.get(config.label):
        raise UnseenError(f"{where}: no column {config.label!r} of integers; fix label")
    return config.label or (_LABEL if integer.get(_LABEL) else None)


def cell(config: SourceConfig, name: str, value: object, label: object) -> Iterator[Found]:
    """Yield one cell of an image column as an entry.

    Args:
        config: How it is decoded.
        name: How messages call it.
        value: bytes, or a mapping with bytes.
        label: Its class; None where it is unknown.
    """
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(data, bytes):
        only = "only a path, which is not followed" if value else "empty"
        yield Found(name, UnseenError(f"{name}: {only}; store the image's bytes"))
        return
    try:
        reading.check_length(len(data), name)
    except UnseenError as error:
        yield Found(name, error)
        return
    yield from decoded(config, name, data, label if isinstance(label, int) else None)


def _table(config: SourceConfig, title: str, path: Path) -> Iterator[Found]:
    """Yield the rows of one file."""
    row = 0
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            where = f"domain {config.domain}: {title}"
            schema = file.schema_arrow
            image = choose_column(config, {f.name: _is_bytes(f.type) for f in schema}, where)
            integer = {f.name: pa.types.is_integer(f.type) for f in schema}
            label = choose_label(config, integer, where)
            _check_chunks(file.metadata, image, where)
            columns = [image] if label is None else [image, label]
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                labels = None if label is None else batch.column(label)
                for value in batch.column(image):
                    known = None if labels is None else labels[row % _BATCH].as_py()
                    yield from cell(config, f"{title} row {row}", value.as_py(), known)
                    row += 1
    except (pa.ArrowException, OSError) as error:
        message = f"domain {config.domain}: {title} is not readable Parquet from row {row} on"
        raise UnseenError(message) from error


def _is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column can hold encoded images."""
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def _check_chunks(metadata: pq.FileMetaData, image: str, where: str) -> None:
    """Raise UnseenError if a row group holds more of the images than belongs into memory."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = map(group.column, range(group.num_columns))
        size = _size([chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == image])
        if size > _MOST_CHUNK:
            most = f"{_MOST_CHUNK // 2**20} MiB"
            fix = "write it again with a smaller row_group_size"
            raise UnseenError(f"{where}: a row group has more than {most} of images; {fix}")


def _size(chunks: Sequence[pq.ColumnChunkMetaData]) -> int:
    """Return the bytes that column chunks unpack to."""
    return sum(chunk.total_uncompressed_size for chunk in chunks)
