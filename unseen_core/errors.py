"""The one error that a user is meant to read, and the words that such lines share."""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["UnseenError", "did_you_mean", "first_line"]


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
