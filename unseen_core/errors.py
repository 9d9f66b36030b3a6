"""The one error that a user is meant to read, and the words that such lines share."""

import errno
import os
import reprlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

__all__ = ["UnseenError", "did_you_mean", "first_line", "refusals_told", "shown"]

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother = 1, 80, 80
_GO_ON = "give the command again, it goes on where it stopped"
_FULL = {errno.ENOSPC: f"make room and {_GO_ON}",
         errno.EDQUOT: f"your quota is used up: delete files or have it raised, and {_GO_ON}",
         errno.EFBIG: "its file system, or `ulimit -f`, allows no larger file"}
_ADVICE = {**_FULL, errno.EROFS: "work in a folder that can be written",
           errno.EACCES: "you need permission to read or write it",
           errno.EPERM: "you need permission to read or write it"}


class UnseenError(Exception):
    """A mistake in the input: one line: what is wrong, where, and how to fix it."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean NEAREST?" for an unknown name, or nothing where none is near.

    Args:
        name: What was written.
        known: What may be written.
        cutoff: How alike they must be, 0..1; see ``difflib.get_close_matches``.
    """
    near = get_close_matches(name, list(known), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, or the error's class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shown(value: object) -> str:
    """Return a value as Python writes it; of what is long or deeply nested the beginning.

    An alias of YAML may stand for a list of lists of lists, with more values than memory holds.
    """
    return _BRIEF.repr(value)


@contextmanager
def refusals_told(path: Path | None = None) -> Iterator[None]:
    """Turn a full disk or a missing permission, met in the block, into one line.

    Other errors are left alone: they may pass when tried again, or are not about files.

    Args:
        path: What is written.

    Raises:
        UnseenError: The disk is full, or a file may not be read or written.
    """
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0)
        # Of a copy the second name is what is written; a number is an open file.
        said = [Path(os.fsdecode(name)) for name in (error.filename2, error.filename)
                if isinstance(name, str | bytes)]
        if advice is None or not (path or said or error.errno in _FULL):
            raise
        beside = not said or (path is not None and said[0].parent == path.parent)
        named = path if path and beside else said[0] if said else None  # not the temporary file
        free = ""
        if error.errno == errno.ENOSPC and named is not None:
            place = next(one for one in (named, *named.absolute().parents) if one.exists())
            free = f", {shutil.disk_usage(place).free / 1e6:.0f} MB are free there"
        raise UnseenError(f"{named or 'a file'}: {os.strerror(error.errno or 0)}{free}; "
                          f"{advice}") from error
