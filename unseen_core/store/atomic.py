"""Files that are whole or absent, whatever interrupts the writer; a full disk is one line."""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from unseen_core.errors import UnseenError, refusals_told

__all__ = ["read_json", "write_bytes", "write_json", "write_with"]


def write_with(path: Path, writer: Callable[[Path], None]) -> None:
    """Let ``writer`` fill a temporary file and put it in the place of ``path``.

    Temporary file in the same folder, write, fsync, ``os.replace``, fsync of the folder: a
    reader sees the old file or the new one, never part of it. Temporary files that killed
    writers of the same ``path`` left behind are removed first. One writer per path and process.

    Args:
        path: The file to be written; its folder is made when it is missing.
        writer: Called once with the temporary path; it has to create that file.

    Raises:
        UnseenError: The disk is full, or the folder may not be written.
        OSError: The file system failed otherwise. Then, too, ``path`` is as it was before.
    """
    folder = path.parent
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    with refusals_told(path):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        try:
            writer(temporary)
            _sync(temporary)
            os.replace(temporary, path)
        except SafetensorError as error:  # which knows the system's errors by their numbers alone
            if number := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)
        _sync(folder)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write ``data`` to ``path`` atomically (see :func:`write_with`)."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_with(path, write)


def write_json(path: Path, obj: object) -> None:
    """Write ``obj`` as JSON with equal bytes for equal content, atomically.

    Sorted keys, indent 2, shortest float notation that reads back exactly, newline at the end.
    NaN and infinities become null, since JSON has no word for them.

    Args:
        path: The file to be written.
        obj: Mappings, sequences, strings, numbers (also numpy scalars), booleans and None.

    Raises:
        TypeError: ``obj`` holds something that JSON cannot say.
    """
    text = json.dumps(_plain(obj), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> dict:
    """Return the JSON object that :func:`write_json` wrote to ``path``.

    Raises:
        UnseenError: The file is missing, or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UnseenError(f"{path}: no such file; run the stage that writes it") from error
    except ValueError as error:
        raise UnseenError(f"{path}: damaged ({error}); rerun its stage") from error
    if not isinstance(content, dict):
        raise UnseenError(f"{path}: no JSON object; rerun its stage")
    return content


def _plain(obj: object) -> object:
    """Return ``obj`` in JSON's own types."""
    if isinstance(obj, np.generic):
        obj = obj.item()
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    return obj


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove temporary files of ``path`` whose writer is dead."""
    prefix, suffix = f".{path.name}.", ".tmp"
    for name in os.listdir(path.parent):
        pid = name[len(prefix) : -len(suffix)]
        # The own process id counts as dead: in a container every run may get the same one.
        if name == f"{prefix}{pid}{suffix}" and pid.isdecimal() and not _other_lives(int(pid)):
            (path.parent / name).unlink(missing_ok=True)


def _other_lives(pid: int) -> bool:
    """Say whether ``pid`` is a running process other than this one."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
