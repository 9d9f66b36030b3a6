"""Images in tar archives, WebDataset's shards among them. Nothing is ever unpacked to a disk."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from unseen_core.errors import UnseenError, first_line
from unseen_core.sources import reading
from unseen_core.sources.base import SourceConfig, SourceImages, printable, source
from unseen_core.sources.gather import Found, collect, decoded
from unseen_core.sources.reading import LICENCE, Budget, capped, check_member, shards

__all__ = ["load_tar"]

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open))
_IMAGES = {"png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", ""}
_DAMAGE = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)


class _Part(NamedTuple):
    """A member that was read: its name, the sample it belongs to, its ending and its bytes."""

    name: str
    stem: str
    ending: str
    data: bytes | UnseenError | None


class _Bounded:
    """A binary file that refuses to read much at once, since a header can ask for anything."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file = file
        self._where = where

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        if not 0 <= size <= reading.MAX_FILE + 1:
            raise UnseenError(f"{self._where}: refused, a header asks for {size} bytes at once")
        return self._file.read(size)

    def seek(self, place: int) -> int:
        """Go to a place."""
        return self._file.seek(place)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()


@source("tar", "column", "range", "pages")
def load_tar(config: SourceConfig) -> SourceImages:
    """Return the images of a tar archive, or of a folder of shards, in the order they are stored.

    The archive may be packed with gzip, bzip2 or xz. As in WebDataset, neighbours whose names
    agree up to the first dot of the file name are one sample: its image is the member with an
    image's ending (or with ``column`` as its ending), and a member ``.cls`` that holds an integer
    is its label.

    Raises:
        UnseenError: Not a tar, or a damaged one; a member is a link or has an absolute name or
            ``..``; too many or too large members; otherwise as ``load_folder``.
    """
    files = shards(config, _ENDINGS)
    found = (entry for title, path in files for entry in _archive(config, path, title, len(files)))
    origin = f"tar {printable(Path(str(config.path)).name)}"
    return collect(config, found, licence=LICENCE, origin=origin)


def _archive(config: SourceConfig, path: Path, title: str, count: int) -> Iterator[Found]:
    """Yield the samples of one archive; among several its title starts their names."""
    prefix = f"{title}/" if count > 1 else ""
    last = "its start"
    try:
        with _open(path) as packed:
            file = _Bounded(packed, title)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                parts = _parts(config, archive, title, prefix)
                kinds: set[frozenset[str]] = set()
                for stem, sample in groupby(parts, key=lambda part: part.stem):
                    for entry in _sample(config, stem, sample, kinds):
                        last = entry.name
                        yield entry
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError("a header is damaged")
    except _DAMAGE as error:
        where = f"domain {config.domain}: {config.path}"
        inner = f", {title}" if count > 1 else ""
        message = f"{where}{inner} is not a readable tar archive after {last} ({first_line(error)})"
        raise UnseenError(message) from error


def _open(path: Path) -> IO[bytes]:
    """Open an archive, unpacking what its first bytes say it is packed with."""
    with path.open("rb") as file:
        start = file.read(6)
    for magic, opener in _OPENERS:
        if start.startswith(magic):
            return opener(path, "rb")
    return path.open("rb")


def _parts(
    config: SourceConfig, archive: tarfile.TarFile, title: str, prefix: str
) -> Iterator[_Part]:
    """Yield the visible members; only images and labels are read."""
    budget = Budget(title)
    for member in archive:
        budget.count(1)
        budget.unpack(member.size)
        regular = member.isdir() or (member.isreg() and not member.issparse())
        check_member(title, member.name, regular=regular)
        path = PurePosixPath(member.name)
        if member.isdir() or any(p.startswith(".") or p == "__MACOSX" for p in path.parts):
            continue
        start, _, ending = path.name.partition(".")
        name = prefix + printable(member.name)
        stem = prefix + printable((path.parent / start).as_posix())
        yield _Part(name, stem, ending, _data(config, archive, member, name, ending))


def _data(
    config: SourceConfig, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, ending: str
) -> bytes | UnseenError | None:
    """Return a member's bytes, what is wrong with them, or None where nobody needs them."""
    image = ending == config.column if config.column else _is_image(ending)
    if not image and ending != "cls":
        return None
    try:
        with archive.extractfile(member) as file:
            return capped(file, name)
    except UnseenError as error:
        return error


def _is_image(ending: str) -> bool:
    """Return whether the last part of an ending is an image's; a file without one may be."""
    return ending.rpartition(".")[2].lower() in _IMAGES


def _sample(
    config: SourceConfig, stem: str, sample: Iterator[_Part], kinds: set[frozenset[str]]
) -> Iterator[Found]:
    """Yield the image of one sample, and what is unusable about the rest.

    Args:
        kinds: The endings of earlier samples with several images; this one's are added.

    Raises:
        UnseenError: Samples have several images each, and ``column`` does not say which it is.
    """
    parts, held = list[_Part](), 0
    for part in sample:
        size = len(part.data) if isinstance(part.data, bytes) else 0
        if held + size > reading.MAX_FILE and all("." in known.ending for known in parts):
            # Names with dots of their own, "dog.17.jpg", look like one sample without an end.
            yield from _chosen(config, stem, parts, kinds)
            parts, held = [], 0
        parts.append(part)
        held += size
        reading.check_length(held, f"sample {stem}")
    yield from _chosen(config, stem, parts, kinds)


def _chosen(
    config: SourceConfig, stem: str, parts: list[_Part], kinds: set[frozenset[str]]
) -> Iterator[Found]:
    """Yield the image among the members of a sample."""
    labels = [part for part in parts if part.ending == "cls"]
    images = [part for part in parts if part.data is not None and part.ending != "cls"]
    if not images:
        wanted = f"ending .{config.column}" if config.column else "an image's ending"
        yield Found(stem, UnseenError(f"{stem}: no member with {wanted}"))
        return
    # "a.jpg" before "a.mask.png"; names with dots of their own have nothing but the latter.
    plain = [part for part in images if "." not in part.ending] or images
    # Of "1.image.png" and "1.mask.png" one is meant; "dog.1.png" and "dog.2.png" are two images.
    endings = frozenset(part.ending for part in plain)
    if len(endings) > 1 and not all(ending.split(".")[0].isdigit() for ending in endings):
        if endings in kinds:
            listed = ", ".join(sorted(endings))
            raise UnseenError(f"domain {config.domain}: samples as {stem} have several images "
                              f"each; set column to the ending that is meant, one of {listed}")
        kinds.add(endings)
    label = _label(labels[0].data) if labels else None
    for part in images:
        if part not in plain:
            reason = f"{part.name}: beside {plain[0].name}; name one ending as column to choose"
            yield Found(part.name, UnseenError(reason))
        elif isinstance(part.data, bytes):
            yield from decoded(config, part.name, part.data, label)
        elif isinstance(part.data, UnseenError):
            yield Found(part.name, part.data)


def _label(data: bytes | UnseenError | None) -> int | None:
    """Return the integer in a ``.cls`` member, or None."""
    try:
        label = int(data) if isinstance(data, bytes) and len(data) < 20 else None
    except ValueError:
        return None
    return label
