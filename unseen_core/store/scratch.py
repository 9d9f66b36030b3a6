"""Parts of one unfinished output, kept outside it until every part is there."""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from unseen_core.errors import UnseenError
from unseen_core.store.atomic import write_bytes, write_json, write_with
from unseen_core.store.fingerprint import file_hash

__all__ = ["Scratch"]

_WORD = "[A-Za-z0-9][A-Za-z0-9_.-]*"
_MANIFEST = "manifest.json"


class Scratch:
    """Folder ``root/mark`` in which parts survive a kill, for use in a ``with`` statement.

    Each part has a sidecar ``<name>.sha256`` with its hash and size, written after it; what has
    no matching sidecar is not a part. ``root/mark.lock`` is locked (``flock``) and holds the
    process id, so that a dead process never blocks the next one, even with a reused id.

    Args:
        root: Folder of all unfinished outputs, outside every output.
        mark: Name of this one, normally the fingerprint of what it depends on.
        joined: Add parts to what another process holds the lock of, and neither lock, sweep nor
            publish; each part must come from one process at a time.
        wait: Wait for another process that works on the same mark, in place of raising.

    Raises:
        UnseenError: Another live process works on the same mark (on entering).
    """

    def __init__(
        self, root: Path, mark: str, *, joined: bool = False, wait: bool = False
    ) -> None:
        """Name the folder; nothing is made before the ``with`` block begins."""
        if not re.fullmatch(_WORD, mark):
            raise UnseenError(f"scratch mark {mark!r}: use letters, digits, '_', '.', '-'")
        self.folder = root / mark
        self._lock = root / f"{mark}.lock"
        self._handle: IO[str] | None = None
        self._joined = joined
        self._flags = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB

    def __enter__(self) -> "Scratch":
        """Take the lock and sweep away what killed writers left half-written."""
        if self._joined:
            return self
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self._take_lock()
        self.folder.mkdir(exist_ok=True)
        for file in self.folder.rglob(".*.tmp"):
            file.unlink()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock; the parts stay for the next run unless they were published."""
        if self._handle is not None:
            self._lock.unlink(missing_ok=True)
            self._handle.close()
            self._handle = None

    def path(self, name: str) -> Path:
        """Return where part ``name`` lies.

        Raises:
            UnseenError: The name is absolute, holds ``..`` or more than one folder, or is kept
                for a sidecar or the manifest.
        """
        reserved = name == _MANIFEST or name.endswith(".sha256")
        if reserved or not re.fullmatch(f"{_WORD}(/{_WORD})?", name):
            raise UnseenError(f"part name {name!r}: use 'file' or 'folder/file', relative, plain")
        return self.folder / name

    def has(self, name: str) -> bool:
        """Say whether part ``name`` is whole; a part that is not is deleted.

        Raises:
            UnseenError: The name is not allowed (see :meth:`path`).
        """
        path = self.path(name)
        if self._seal(path) is not None:
            return True
        path.unlink(missing_ok=True)
        _sidecar(path).unlink(missing_ok=True)
        return False

    def add(self, name: str, writer: Callable[[Path], None]) -> None:
        """Write part ``name`` atomically, then its sidecar; threads may add different names.

        Args:
            name: ``file`` or ``folder/file``.
            writer: Called with a temporary path; it has to create that file.

        Raises:
            UnseenError: The name is not allowed, or the ``with`` block has not begun.
        """
        path = self.path(name)
        if self._handle is None and not self._joined:
            raise UnseenError(f"{self.folder}: not locked; open the scratch folder with 'with'")
        # Without this a kill between the two writes would leave an old sidecar on a new part.
        _sidecar(path).unlink(missing_ok=True)
        write_with(path, writer)
        write_bytes(_sidecar(path), f"{file_hash(path)} {path.stat().st_size}\n".encode())

    def publish(self, out: Path, names: Sequence[str], manifest: Mapping[str, object]) -> None:
        """Move all parts into ``out``, write ``out/manifest.json`` last, delete the scratch.

        Everything is verified before ``out`` is touched. The old manifest goes first and the
        parts are linked before the scratch goes, so a kill at any moment leaves either a whole
        output or one without a manifest whose parts are still here.

        Args:
            out: Folder of the output; other files in it are removed.
            names: Every part of the output.
            manifest: JSON-able description, without times and absolute paths; ``parts`` is
                added to it: sha256 and size by name.

        Raises:
            UnseenError: A part is missing or was altered (it is named), or the ``with`` block
                has not begun.
        """
        if self._handle is None:
            raise UnseenError(f"{self.folder}: not locked; open the scratch folder with 'with'")
        parts: dict[str, object] = {}
        for name in names:
            seal = self._seal(self.path(name))
            if seal is None:
                raise UnseenError(f"{self.path(name)}: part missing or altered; rerun the stage")
            parts[name] = {"sha256": seal[0], "size": seal[1]}
        out.mkdir(parents=True, exist_ok=True)
        (out / _MANIFEST).unlink(missing_ok=True)
        _remove_others(out, {out / name for name in names})
        for name in names:
            _link(self.path(name), out / name)
        write_json(out / _MANIFEST, {**manifest, "parts": parts})
        shutil.rmtree(self.folder)

    def _seal(self, path: Path) -> tuple[str, int] | None:
        """Return (sha256, size) of a part that agrees with its sidecar, else None."""
        try:
            digest, size = _sidecar(path).read_text("ascii").split()
            if path.stat().st_size == int(size) and file_hash(path) == digest:
                return digest, int(size)
        except (FileNotFoundError, ValueError):
            return None
        return None

    def _take_lock(self) -> IO[str]:
        """Return the locked lock file, holding the own process id."""
        while True:
            handle = self._lock.open("a+", encoding="ascii")
            try:
                fcntl.flock(handle, self._flags)
            except BlockingIOError as error:
                handle.seek(0)
                pid = handle.read().strip()
                handle.close()
                raise UnseenError(
                    f"{self._lock}: process {pid or 'unknown'} is at work on this output; "
                    "wait for it or end it"
                ) from error
            # The last holder may have removed the file between our open and our lock.
            if _is_at(handle, self._lock):
                handle.truncate(0)
                handle.write(str(os.getpid()))
                handle.flush()
                return handle
            handle.close()


def _is_at(handle: IO[str], path: Path) -> bool:
    """Say whether an open file is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sidecar(path: Path) -> Path:
    """Return the path of a part's sidecar."""
    return path.with_name(path.name + ".sha256")


def _remove_others(out: Path, kept: set[Path]) -> None:
    """Remove every file below ``out`` that is not kept, and folders left empty."""
    for path in sorted(out.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()


def _link(part: Path, target: Path) -> None:
    """Put a part into the output without copying it where the file system can."""
    # rename() does nothing between two names of one file and would leave the temporary one.
    if target.exists() and target.samefile(part):
        return

    def write(temporary: Path) -> None:
        try:
            os.link(part, temporary)
        except OSError:
            shutil.copyfile(part, temporary)

    write_with(target, write)
