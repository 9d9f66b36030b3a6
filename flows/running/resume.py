"""Marks of unfinished work: a stage goes on only with parts that would have the same bytes."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import torch

from flows.running.code import ROOT, code_of
from flows.settings.paths import PATHS
from unseen_core.store import Scratch, file_hash, fingerprint, folder_hash

__all__ = ["joining", "scratch"]

_JOINED = ContextVar("joined", default=False)


def scratch(
    stage: str, inputs: Sequence[Path], settings: Mapping[str, object], device: str
) -> tuple[Scratch, str]:
    """Return the scratch folder of a stage's output, and its fingerprint.

    The fingerprint covers what decides the bytes: the inputs, the settings, the code that
    dvc.yaml names for the stage, torch, the device type and the number of threads.
    """
    hashes = [_hash_of(path.resolve(), _stamps(path.resolve())) for path in inputs]
    code = [file_hash(file) for name in code_of(stage)
            for file in sorted((ROOT / name).rglob("*.py")) or [ROOT / name]]
    mark = fingerprint({
        "stage": stage,
        "inputs": hashes,
        "settings": dict(settings),
        "code": code,
        "torch": torch.__version__,
        "device": device.partition(":")[0],
        "threads": torch.get_num_threads(),
    })
    # DVC experiments share this folder: one waits for another that makes the same parts.
    return Scratch(PATHS.work, f"{stage}-{mark[:20]}", joined=_JOINED.get(),
                   wait="DVC_EXP_NAME" in os.environ), mark


@contextmanager
def joining() -> Iterator[None]:
    """Open scratch folders in this block as one of several processes that add parts to them."""
    token = _JOINED.set(True)
    try:
        yield
    finally:
        _JOINED.reset(token)


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of every file."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) or [path]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns)
                 for file in files if file.exists())


@lru_cache(maxsize=16)
def _hash_of(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Return the hash of a file or folder, once for each state of it: workers ask at every part."""
    return file_hash(path) if path.is_file() else folder_hash(path)
