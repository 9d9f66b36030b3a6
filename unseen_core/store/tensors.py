"""Latents as safetensors parts: quick to write, mapped when read."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.store.atomic import write_with
from unseen_core.store.fingerprint import file_hash
from unseen_core.store.frames import read_frame
from unseen_core.store.manifest import DType, Manifest, index_places, read_manifest
from unseen_core.types import Level

__all__ = ["TensorStore", "part_name", "read_tensors", "save_part", "save_tensors"]

_DTYPES: dict[str, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
_SEAL = "sha256"  # the only key of a file's metadata


class TensorStore:
    """A published folder of latents, opened for reading.

    The latents are the files ``L0500/part-00000.safetensors`` (one tensor ``x`` each), beside
    ``index.parquet`` and ``manifest.json``. Only manifest and index are read on opening; of every
    other file the SHA-256 is compared with the manifest's when it is first read.

    Args:
        path: Folder with ``manifest.json``, ``index.parquet`` and the parts.

    Raises:
        UnseenError: The folder is unfinished, of another format, or contradicts itself.
    """

    format: ClassVar[str] = "tensors"

    def __init__(self, path: Path) -> None:
        """Read the manifest and the index."""
        self.path = path
        self.manifest: Manifest = read_manifest(path)
        if self.manifest["format"] != self.format:
            raise UnseenError(f"{path}: unknown store format {self.manifest['format']!r}; rerun "
                              "the stage that wrote it")
        c, h, w = self.manifest["shape"]
        self.shape: tuple[int, int, int] = (c, h, w)
        self.levels: tuple[Level, ...] = tuple(sorted(self.manifest["levels"]))
        self._sound: set[str] = set()
        file = self._open_part("index.parquet")
        self._index = read_frame(file)
        places = [(p, r) for p, rows in enumerate(self.manifest["rows"]) for r in range(rows)]
        if not {"id", "part", "row"} <= {*self._index} or places != index_places(self._index):
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
        return (self._part(level, part) for part in range(len(self.manifest["rows"])))

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
            with self._stored(level, part) as stored:
                for place, row in pairs:
                    x[place] = stored[row]
        return x

    def all(self, level: Level) -> Tensor:
        """Return all samples of a level, float32 (n, c, h, w), in the order of ``ids``.

        Raises:
            UnseenError: The level is not stored, or a part is damaged.
        """
        self._check(level)
        x = torch.empty(len(self), *self.shape)
        for part, rows in enumerate(x.split(self.manifest["rows"])):
            with self._stored(level, part) as stored:
                rows.copy_(stored[:])
        return x

    def _part(self, level: Level, part: int) -> Tensor:
        """Return one part as new float32 memory."""
        with self._stored(level, part) as stored:
            return stored[:].to(torch.float32, copy=True)

    @contextmanager
    def _stored(self, level: Level, part: int) -> Iterator[Any]:
        """Open one part; what is yielded gives rows as views of the mapped file when indexed.

        Whoever keeps rows copies them: a view would change with the file.
        """
        path = self._open_part(part_name(level, part))
        try:
            with safe_open(path, framework="pt") as file:
                stored = file.get_slice("x")
                if tuple(stored.get_shape()) != (self.manifest["rows"][part], *self.shape):
                    raise UnseenError(f"{path}: shape not as the manifest says; rerun invert")
                yield stored
        except SafetensorError as error:
            raise UnseenError(f"{path}: damaged ({error}); rerun invert") from error

    def _check(self, level: Level) -> None:
        """Refuse a level that is not stored."""
        if level not in self.levels:
            known = ", ".join(map(str, self.levels))
            raise UnseenError(f"{self.path}: no level {level}; stored are {known}")

    def _open_part(self, name: str) -> Path:
        """Return the path of a file whose bytes are those of the manifest."""
        path = self.path / name
        seal = self.manifest["parts"].get(name)
        if seal is None or not path.is_file() or path.stat().st_size != seal["size"]:
            raise UnseenError(f"{path}: missing or not as the manifest says; rerun invert")
        if name not in self._sound:
            if file_hash(path) != seal["sha256"]:
                raise UnseenError(f"{path}: damaged, it has not the bytes that were written; "
                                  "rerun invert")
            self._sound.add(name)
        return path


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
    x = _checked(path, x, dtype)

    def write(temporary: Path) -> None:
        save_file({"x": x}, temporary)

    write_with(path, write)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a safetensors file with a checksum in its metadata; see `read_tensors`.

    It is not atomic: give it to ``write_with`` or ``Scratch.add``.
    """
    kept = {name: x.detach().cpu().contiguous() for name, x in tensors.items()}
    save_file(kept, path, {_SEAL: _digest(kept)})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file that `save_tensors` wrote, by name.

    Raises:
        UnseenError: The file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            seal = (file.metadata() or {}).get(_SEAL)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise UnseenError(f"{path}: no such file; run the stage that writes it") from error
    except (SafetensorError, OSError) as error:
        raise UnseenError(f"{path}: damaged ({error}); rerun its stage") from error
    if seal != _digest(tensors):
        raise UnseenError(f"{path}: damaged, it has not the values that were written; rerun its "
                          "stage")
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, x in sorted(tensors.items()):
        total.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        total.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _checked(path: Path, x: Tensor, dtype: DType) -> Tensor:
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
