"""Images in an LMDB environment, as LSUN is published."""

from collections.abc import Iterator
from pathlib import Path

import lmdb

from unseen_core.errors import UnseenError
from unseen_core.sources import reading
from unseen_core.sources.base import SourceConfig, SourceImages, printable, source
from unseen_core.sources.gather import Found, collect, decoded
from unseen_core.sources.reading import LICENCE

__all__ = ["load_lmdb"]


@source("lmdb", "range", "pages")
def load_lmdb(config: SourceConfig) -> SourceImages:
    """Return the images of an LMDB environment, a folder or its file, in the order of the keys.

    Every value is an encoded image (LSUN: WebP); there are no labels. The environment is opened
    read-only and without a lock, so nothing may write to it meanwhile.

    Raises:
        UnseenError: Not an LMDB environment, or a truncated one; otherwise as ``load_folder``.
    """
    path = config.existing_path()
    where = f"domain {config.domain}: {config.path}"
    try:
        with lmdb.open(
            str(path),
            subdir=path.is_dir(),
            readonly=True,
            lock=False,
            create=False,
            readahead=False,
            max_readers=1,
        ) as environment:
            _check_length(environment, path, where)
            with environment.begin() as view:
                found = _values(config, view)
                origin = f"lmdb {printable(path.name)}"
                return collect(config, found, licence=LICENCE, origin=origin)
    except lmdb.Error as error:
        reason = str(error).rpartition(": ")[2]
        raise UnseenError(f"{where} is not a readable LMDB environment ({reason})") from error


def _check_length(environment: lmdb.Environment, path: Path, where: str) -> None:
    """Raise UnseenError if pages are missing: reading one would end the process, not fail."""
    file = path / "data.mdb" if path.is_dir() else path
    pages = int(environment.info()["last_pgno"]) + 1
    if file.stat().st_size < pages * int(environment.stat()["psize"]):
        raise UnseenError(f"{where} is truncated; copy {file.name} again")


def _values(config: SourceConfig, view: lmdb.Transaction) -> Iterator[Found]:
    """Yield every value."""
    for key, data in view.cursor():
        name = printable(bytes(key).decode("utf-8", "replace"))
        try:
            reading.check_length(len(data), name)
        except UnseenError as error:
            yield Found(name, error)
        else:
            yield from decoded(config, name, bytes(data))
