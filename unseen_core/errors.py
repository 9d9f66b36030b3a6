"""The one error that a user is meant to read."""

__all__ = ["UnseenError"]


class UnseenError(Exception):
    """A mistake in the input: one line that names the file or parameter and the mend."""
