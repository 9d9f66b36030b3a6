"""Bounds on what is read from foreign files and archives, and which files a folder shows."""

import os
import re
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from pathlib import Path
from typing import IO

from unseen_core.errors import UnseenError
from unseen_core.sources.base import SourceConfig, printable

__all__ = [
    "LICENCE",
    "MAX_FILE",
    "MAX_MEMBERS",
    "MAX_TOTAL",
    "Budget",
    "capped",
    "check_length",
    "check_member",
    "inside",
    "shards",
    "visible",
]

LICENCE = "not stated"
MAX_MEMBERS = 200_000
MAX_FILE = 256 * 2**20
MAX_TOTAL = 16 * 2**30
_CACHED = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}$")


class Budget:
    """Counts an archive's members and bytes while they are read."""

    def __init__(self, where: str) -> None:
        """Start at nothing; messages call the archive ``where``."""
        self._where = where
        self._members = 0
        self._total = 0

    def count(self, members: int) -> None:
        """Add members, or raise UnseenError above ``MAX_MEMBERS``."""
        self._members += members
        if self._members > MAX_MEMBERS:
            raise UnseenError(f"{self._where}: more than {MAX_MEMBERS} members; split the archive")

    def unpack(self, size: int) -> None:
        """Add unpacked bytes, or raise UnseenError above ``MAX_TOTAL``."""
        self._total += size
        if self._total > MAX_TOTAL:
            most = MAX_TOTAL // 2**20
            raise UnseenError(f"{self._where}: more than {most} MiB unpacked; split the archive")


def capped(file: IO[bytes], name: str) -> bytes:
    """Return a file's bytes, counted while reading, or raise UnseenError above ``MAX_FILE``."""
    data = file.read(MAX_FILE + 1)
    check_length(len(data), name)
    return data


def check_length(length: int, name: str) -> None:
    """Raise UnseenError if one encoded image has more than ``MAX_FILE`` bytes."""
    if length > MAX_FILE:
        raise UnseenError(f"{name}: more than {MAX_FILE // 2**20} MiB in one file")


def check_member(archive: str, name: str, *, regular: bool) -> None:
    """Raise UnseenError for a member that is not a plain file or folder, or whose name leaves.

    Args:
        archive: How messages call the archive.
        name: The member's name as the archive spells it.
        regular: Whether it is a plain file or a folder.
    """
    spelled = name.replace("\\", "/")
    unsafe = spelled.startswith("/") or ".." in spelled.split("/") or spelled[1:2] == ":"
    if unsafe or not regular:
        reason = "an absolute name or '..'" if unsafe else "a link or device"
        raise UnseenError(f"{archive}: refused, member {printable(name)!r} is {reason}")


def visible(root: Path) -> list[Path]:
    """Return files, and links to folders, whose path below ``root`` has no hidden part, sorted.

    Raises:
        UnseenError: A folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        name = printable(os.path.relpath(error.filename, root))
        raise UnseenError(f"folder {name}: {error.strerror}") from error

    paths = []
    for folder, inner, files in os.walk(root, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".") and name != "__MACOSX"]
        links = [name for name in inner if Path(folder, name).is_symlink()]
        paths += [Path(folder, name) for name in files + links if not name.startswith(".")]
    return sorted(paths)


def inside(folder: Path) -> Callable[[Path], bool]:
    """Return a test of whether a file is read with a folder: it lies there, links followed.

    So does a link into the cache of the DVC project that holds the folder, to a file that the
    cache names by its hash: DVC may lay a folder out as such links (``cache.type: symlink``).

    Args:
        folder: Resolved.
    """
    caches = _dvc_caches(folder)

    def test(path: Path) -> bool:
        real = path.resolve()
        return real.is_relative_to(folder) or any(
            real.is_relative_to(cache) and _CACHED.search(real.as_posix()) for cache in caches)

    return test


def _dvc_caches(folder: Path) -> list[Path]:
    """Return where the DVC project that holds a folder keeps its files; mostly nowhere."""
    places = (folder, *folder.parents)
    project = next((place for place in places if (place / ".dvc").is_dir()), None)
    if project is None:
        return []
    caches = [project / ".dvc/cache"]
    for name in ("config", "config.local"):
        settings = ConfigParser(interpolation=None)
        try:
            settings.read(project / ".dvc" / name, "utf-8")
        except (ConfigError, UnicodeDecodeError):  # DVC says what is wrong with it
            continue
        if named := settings.get("cache", "dir", fallback=None):
            caches.append(project / ".dvc" / named)  # relative to the file, or absolute
    return [cache.resolve() for cache in caches]


def shards(config: SourceConfig, endings: Sequence[str]) -> list[tuple[str, Path]]:
    """Return the file that ``path`` names, or those of its folder, sorted, each with a title.

    Args:
        config: Gives ``path``.
        endings: Endings of the files that are taken from a folder.

    Raises:
        UnseenError: Nothing is there, or a file is a link out of the folder.
    """
    path = config.existing_path()
    if not path.is_dir():
        return [(printable(path.name), path)]
    root = path.resolve()
    allowed = inside(root)
    found = [file for file in visible(root) if file.name.lower().endswith(tuple(endings))]
    if not found:
        named = " or ".join(endings)
        raise UnseenError(f"domain {config.domain}: folder {config.path} has no {named} file")
    for file in found:
        if not allowed(file):
            name = printable(file.relative_to(root).as_posix())
            raise UnseenError(f"{config.path}: {name} is a link out of the folder; copy the file")
    return [(printable(file.relative_to(root).as_posix()), file) for file in found]
