"""What is written beside latents: the manifest of their store, and the index of its samples."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict, cast

import pandas as pd

from unseen_core.errors import UnseenError
from unseen_core.store.frames import write_frame
from unseen_core.types import Level

__all__ = ["DType", "Manifest", "PartSeal", "index_places", "latent_manifest", "read_manifest",
           "write_index"]

_VERSION = 1
DType = Literal["float16", "float32"]


class PartSeal(TypedDict):
    """Hash and size in bytes of one file."""

    sha256: str
    size: int


class Manifest(TypedDict):
    """What ``manifest.json`` says of a store.

    ``shape`` is (c, h, w); ``rows`` counts the samples of each part, equal at every level;
    ``fingerprint`` names everything the bytes depend on; ``parts`` seals every file.
    """

    format: str
    version: int
    shape: list[int]
    dtype: str
    levels: list[int]
    rows: list[int]
    fingerprint: str
    parts: dict[str, PartSeal]


def latent_manifest(
    kind: str,
    shape: Sequence[int],
    dtype: DType,
    levels: Sequence[Level],
    rows: Sequence[int],
    fingerprint: str,
) -> dict[str, object]:
    """Return the mapping that ``Scratch.publish`` completes to a store's manifest.

    Args:
        kind: ``TensorStore.format``.
        shape: (c, h, w) of one sample.
        dtype: Number format on disk.
        levels: Stored levels.
        rows: Samples in each part, equal at every level.
        fingerprint: Hash of everything the bytes depend on.
    """
    return {
        "format": kind,
        "version": _VERSION,
        "shape": list(shape),
        "dtype": dtype,
        "levels": sorted(levels),
        "rows": list(rows),
        "fingerprint": fingerprint,
    }


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the store in folder ``path``.

    Raises:
        UnseenError: There is none, it is damaged, or another version wrote it.
    """
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnseenError(f"{file}: missing, the store is unfinished; rerun its stage") from error
    except ValueError as error:
        raise UnseenError(f"{file}: not JSON; rerun its stage") from error
    missing = sorted({*Manifest.__required_keys__} - {*manifest})
    if missing or manifest["version"] != _VERSION:
        why = f"lacks {', '.join(missing)}" if missing else f"version {manifest['version']}"
        raise UnseenError(f"{file}: {why}, expected version {_VERSION}; rerun its stage")
    return cast("Manifest", manifest)


def write_index(path: Path, frame: pd.DataFrame) -> None:
    """Write ``index.parquet``: one row per sample, in stored order.

    Args:
        path: The file to be written, atomically.
        frame: Columns id (str, unique), part, row (counted from 0 within the part) and any
            per-sample columns; sorted by part and row.

    Raises:
        UnseenError: A column is missing, ids repeat or rows are out of order.
    """
    missing = [name for name in ("id", "part", "row") if name not in frame]
    if missing:
        raise UnseenError(f"{path}: index lacks column {', '.join(missing)}; add it")
    if not frame["id"].is_unique:
        double = frame["id"][frame["id"].duplicated()].iloc[0]
        raise UnseenError(f"{path}: sample id {double!r} appears twice; give each its own")
    places = index_places(frame)
    if places != sorted(set(places)):
        raise UnseenError(f"{path}: rows are out of order; sort the index by part and row")
    write_frame(path, frame)


def index_places(frame: pd.DataFrame) -> list[tuple[int, int]]:
    """Return (part, row) of each sample of an index, in its order."""
    return list(zip(frame["part"].tolist(), frame["row"].tolist(), strict=True))
