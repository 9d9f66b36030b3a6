"""What the stores of latents have in common: manifest, index and look-up by id."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, cast

import pandas as pd
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.store.frames import read_frame, write_frame
from unseen_core.store.protocol import DType, Manifest
from unseen_core.types import Level

__all__ = ["BaseStore", "check_latents", "latent_manifest", "read_manifest", "write_index"]

_VERSION = 1
_DTYPES: dict[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}


class BaseStore(ABC):
    """A published folder of latents, opened for reading (the protocol ``LatentStore``).

    Only the manifest and the index are read on opening.

    Args:
        path: Folder with ``manifest.json``, ``index.parquet`` and the parts.

    Raises:
        UnseenError: The folder is unfinished, of another format, or contradicts itself.
    """

    format: ClassVar[str]

    def __init__(self, path: Path) -> None:
        """Read the manifest and the index."""
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        if self.manifest["format"] != self.format:
            raise UnseenError(f"{path}: format {self.manifest['format']!r}; open with open_store")
        c, h, w = self.manifest["shape"]
        self.shape: tuple[int, int, int] = (c, h, w)
        self.levels: tuple[Level, ...] = tuple(sorted(self.manifest["levels"]))
        file = self._open_part("index.parquet")
        self._index = read_frame(file)
        places = [(p, r) for p, rows in enumerate(self.manifest["rows"]) for r in range(rows)]
        if not {"id", "part", "row"} <= {*self._index} or places != _places(self._index):
            raise UnseenError(f"{file}: does not fit manifest.json; rerun invert")
        self.ids: tuple[str, ...] = tuple(self._index["id"])
        self._places = dict(zip(self.ids, places, strict=True))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    def index(self) -> pd.DataFrame:
        """Return a copy of the index: id, part, row and the per-sample columns."""
        return self._index.copy()

    def parts(self, level: Level) -> Iterator[Tensor]:
        """Return an iterator over the parts of a level, float32 (rows, c, h, w), in order.

        Raises:
            UnseenError: The level is not stored; while iterating: a part is damaged.
        """
        self._check(level)
        return (self._read(level, part, None) for part in range(len(self.manifest["rows"])))

    def rows(self, level: Level, ids: Sequence[str]) -> Tensor:
        """Return the named samples, float32 (len(ids), c, h, w); nothing else is read.

        Args:
            level: A stored level.
            ids: Sample ids in any order; repetition is allowed.

        Raises:
            UnseenError: A level or id is not stored, or a part is damaged.
        """
        self._check(level)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place, name in enumerate(ids):
            if name not in self._places:
                raise UnseenError(f"{self.path}: no sample {name!r}; see the ids in index.parquet")
            part, row = self._places[name]
            wanted.setdefault(part, []).append((place, row))
        x = torch.empty(len(ids), *self.shape)
        for part, pairs in wanted.items():
            x[[place for place, _ in pairs]] = self._read(level, part, [row for _, row in pairs])
        return x

    def all(self, level: Level) -> Tensor:
        """Return all samples of a level, float32 (n, c, h, w), in the order of ``ids``.

        Raises:
            UnseenError: The level is not stored, or a part is damaged.
        """
        self._check(level)
        x = torch.empty(len(self), *self.shape)
        start = 0
        for part in self.parts(level):
            x[start : start + len(part)] = part
            start += len(part)
        return x

    @abstractmethod
    def _read(self, level: Level, part: int, rows: Sequence[int] | None) -> Tensor:
        """Return rows of one part (all when None) as new float32 memory."""

    def _check(self, level: Level) -> None:
        """Refuse a level that is not stored."""
        if level not in self.levels:
            known = ", ".join(map(str, self.levels))
            raise UnseenError(f"{self.path}: no level {level}; stored are {known}")

    def _open_part(self, name: str) -> Path:
        """Return the path of a file whose size is the manifest's."""
        path = self.path / name
        seal = self.manifest["parts"].get(name)
        if seal is None or not path.is_file() or path.stat().st_size != seal["size"]:
            raise UnseenError(f"{path}: missing or not as the manifest says; rerun invert")
        return path


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
        kind: ``TensorStore.format`` or ``TableStore.format``.
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
    places = _places(frame)
    if places != sorted(set(places)):
        raise UnseenError(f"{path}: rows are out of order; sort the index by part and row")
    write_frame(path, frame)


def _places(frame: pd.DataFrame) -> list[tuple[int, int]]:
    """Return (part, row) of each sample."""
    return list(zip(frame["part"].tolist(), frame["row"].tolist(), strict=True))


def check_latents(path: Path, x: Tensor, dtype: DType) -> Tensor:
    """Return ``x`` in the number format of the disk, contiguous on the CPU.

    Raises:
        UnseenError: Not (rows, c, h, w), empty, or not finite in ``dtype`` (named after ``path``).
    """
    if dtype not in _DTYPES:
        raise UnseenError(f"{path}: dtype {dtype!r}; use {' or '.join(_DTYPES)}")
    if x.ndim != 4 or x.numel() == 0:
        raise UnseenError(f"{path}: latents of shape {tuple(x.shape)}; give (rows, c, h, w)")
    x = x.detach().to("cpu", _DTYPES[dtype]).contiguous()
    if not x.isfinite().all():
        raise UnseenError(f"{path}: latents not finite in {dtype}; check the model or use float32")
    return x
