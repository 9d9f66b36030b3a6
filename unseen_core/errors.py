"""The one error that a user is meant to read."""

__all__ = ["UnseenError"]


class UnseenError(Exception):
    """A mistake in the input: one line: what is wrong, where, and how to fix it."""
