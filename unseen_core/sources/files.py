"""Images of the user: a folder or a zip. Nothing is ever written."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unseen_core.errors import UnseenError
from unseen_core.sources.base import SourceConfig, SourceImages, printable, source
from unseen_core.sources.gather import Found, collect, decoded
from unseen_core.sources.reading import LICENCE, Budget, capped, check_member, inside, visible

__all__ = ["load_folder", "load_zip"]


@source("folder", "range", "pages")
def load_folder(config: SourceConfig) -> SourceImages:
    """Return the images of a folder and its subfolders, in the order of their names.

    Hidden files and ``__MACOSX`` are ignored. Links out of the folder are unusable, but for those
    into the cache of the DVC project that holds it, and so are special files.

    Raises:
        UnseenError: ``path`` is not a folder, no image in it is usable, or one is not and
            ``skip_bad`` is False.
    """
    root = config.existing_path()
    if not root.is_dir():
        raise UnseenError(f"domain {config.domain}: {config.path} is not a folder")
    found = _folder(config, root.resolve())
    return collect(config, found, licence=LICENCE, origin=f"folder {printable(root.name)}")


@source("zip", "range", "pages")
def load_zip(config: SourceConfig) -> SourceImages:
    """Return the images of a zip archive, in the order of their names; nothing is unpacked.

    Raises:
        UnseenError: Not a zip; a member is a link or has an absolute name or ``..``; too many
            or too large members; otherwise as ``load_folder``.
    """
    path = config.existing_path()
    try:
        with zipfile.ZipFile(path) as archive:
            found = _archive(config, archive)
            origin = f"zip {printable(path.name)}"
            return collect(config, found, licence=LICENCE, origin=origin)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        message = f"domain {config.domain}: {config.path} is not a readable zip archive"
        raise UnseenError(message) from error


def _folder(config: SourceConfig, root: Path) -> Iterator[Found]:
    """Yield every visible file below a resolved root."""
    allowed = inside(root)
    for path in visible(root):
        name = printable(path.relative_to(root).as_posix())
        if not allowed(path):
            yield Found(name, UnseenError(f"{name}: a link out of the folder is not followed"))
        elif path.is_dir():
            continue  # a link to a folder inside the root: its files come by their own path
        elif not path.is_file():
            yield Found(name, UnseenError(f"{name}: not a regular file"))
        else:
            try:
                with path.open("rb") as file:
                    data = capped(file, name)
            except UnseenError as error:
                yield Found(name, error)
            except OSError as error:
                yield Found(name, UnseenError(f"{name}: {error.strerror}"))
            else:
                yield from decoded(config, name, data)


def _archive(config: SourceConfig, archive: zipfile.ZipFile) -> Iterator[Found]:
    """Yield every visible member; names and links are judged before any is read."""
    where = printable(str(config.path))
    budget = Budget(where)
    members = sorted(archive.infolist(), key=lambda member: member.filename)
    budget.count(len(members))
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        regular = kind in (0, stat.S_IFREG, stat.S_IFDIR)
        check_member(where, member.filename, regular=regular)
    for member in members:
        parts = PurePosixPath(member.filename).parts
        if member.is_dir() or any(p.startswith(".") or p == "__MACOSX" for p in parts):
            continue
        name = printable(member.filename)
        try:
            with archive.open(member) as file:
                data = capped(file, name)
        except UnseenError as error:
            yield Found(name, error)
            continue
        except Exception as error:  # wrong sums, encryption, unknown compression, zlib, lzma
            yield Found(name, UnseenError(f"{name}: damaged or unreadable member ({error})"))
            continue
        budget.unpack(len(data))
        yield from decoded(config, name, data)
