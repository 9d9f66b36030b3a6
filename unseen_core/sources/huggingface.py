"""Images of Hugging Face data sets, streamed from the hub or read from a folder."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from unseen_core.errors import UnseenError, first_line
from unseen_core.sources.base import SourceConfig, SourceImages, printable, source
from unseen_core.sources.gather import Found, collect
from unseen_core.sources.reading import LICENCE
from unseen_core.sources.tables import cell, choose_column, choose_label

if TYPE_CHECKING:
    import datasets

    Rows = datasets.Dataset | datasets.IterableDataset

__all__ = ["load_datasets"]

# Builders whose rows carry the bytes of their images; none of them runs code of the data set.
_BUILDERS = ("parquet", "arrow", "webdataset")


@source("datasets", "column", "label", "split", "hub", "range", "pages")
def load_datasets(config: SourceConfig) -> SourceImages:
    """Return the first ``limit`` images of a data set, row by row.

    ``hub`` names a data set that is streamed: no more of its files are opened than are used.
    Otherwise ``path`` is a folder that ``save_to_disk`` wrote, or one of Parquet, Arrow or
    WebDataset files. Columns are chosen as in ``load_parquet``. Loading scripts are never run.

    Raises:
        UnseenError: ``limit`` is missing, the data set or its split cannot be found or read, its
            rows carry no image bytes; otherwise as ``load_folder``.
    """
    where = f"domain {config.domain}"
    if config.limit is None:
        raise UnseenError(f"{where}: source 'datasets' needs a limit; say how many images to read")
    title = printable(config.hub or config.existing_path().name)
    with tempfile.TemporaryDirectory() as scratch:
        found = _rows(config, f"{where}: {title}", scratch)
        return collect(config, found, licence=LICENCE, origin=f"dataset {title}")


def _rows(config: SourceConfig, where: str, scratch: str) -> Iterator[Found]:
    """Yield the rows of the chosen split."""
    row = 0
    try:
        chosen = _split(config, _open(config, scratch, where), where)
        rows, image, label = _columns(config, chosen, where)
        for values in rows:
            known = None if label is None else values[label]
            yield from cell(config, f"row {row}", values[image], known)
            row += 1
    except UnseenError:
        raise
    except Exception as error:  # of the hub, its cache, the network, file systems and formats
        reason = first_line(error)
        raise UnseenError(f"{where}: cannot be read from row {row} on ({reason})") from error


def _open(config: SourceConfig, scratch: str, where: str) -> Mapping[str, "Rows"]:
    """Return the splits of a data set; nothing but its description is read yet."""
    import datasets  # takes seconds, and only this kind of source needs it

    if config.hub:
        name, _, revision = config.hub.partition("@")
        owner, title, *subset = name.split("/")
        path, part = f"{owner}/{title}", subset[0] if subset else None
        if Path(path).exists():
            raise UnseenError(f"{where}: {path} is also a folder here, which would be read in its "
                              "place; rename it, or give it as path")
        _check_endpoint(datasets.config.HF_ENDPOINT, where)
    else:
        folder = config.existing_path().resolve()
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            saved = datasets.load_from_disk(str(folder))
            return saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
        path, part, revision = str(folder), None, None
    builder = datasets.load_dataset_builder(path, part, revision=revision, cache_dir=scratch)
    kind = type(builder).__module__.split(".")
    if kind[:2] != ["datasets", "packaged_modules"] or kind[2] not in _BUILDERS:
        fix = "fetch its files and read them with another source, such as folder"
        raise UnseenError(f"{where}: its rows carry no image bytes ({kind[-1]}); {fix}")
    return builder.as_streaming_dataset()


def _check_endpoint(address: str, where: str) -> None:
    """Refuse a hub that is not https: a token would be sent to it in the clear."""
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise UnseenError(f"{where}: HF_ENDPOINT {address!r} is refused; only https is allowed, "
                          "and http to this machine itself")


def _split(config: SourceConfig, splits: Mapping[str, "Rows"], where: str) -> "Rows":
    """Return the split that is named, else ``train``, else the only one."""
    only = next(iter(splits)) if len(splits) == 1 else "train"
    name = config.split or ("train" if "train" in splits else only)
    if name not in splits:
        known = ", ".join(printable(str(split)) for split in splits)
        raise UnseenError(f"{where}: no split {name!r}; it has {known}; name one as split")
    return splits[name]


def _columns(config: SourceConfig, rows: "Rows", where: str) -> tuple["Rows", str, str | None]:
    """Return the rows reduced to images, still encoded, and labels; and the names of both."""
    import datasets

    kinds = dict(rows.features or {})
    usable = {
        name: isinstance(kind, datasets.Image) or "binary" in _type(kind)
        for name, kind in kinds.items()
    }
    integer = {name: "int" in _type(kind) for name, kind in kinds.items()}
    image = choose_column(config, usable, where)
    label = choose_label(config, integer, where)
    rows = rows.select_columns([image] if label is None else [image, label])
    if isinstance(kinds[image], datasets.Image):
        rows = rows.cast_column(image, datasets.Image(decode=False))
    return rows, image, label


def _type(kind: object) -> str:
    """Return the type of a column's values, of its bytes where it is a struct."""
    inner = kind.get("bytes") if isinstance(kind, Mapping) else kind
    return str(getattr(inner, "dtype", ""))
