"""Failures of the network that may pass, and how long to wait before the next try."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from flows.running.run import LOG, failure
from unseen_core.errors import UnseenError

__all__ = ["Passing", "patiently", "retry_after"]

T = TypeVar("T")

_TRIES = 8
_BACKOFF = wait_exponential(multiplier=1, max=60)  # seconds: 1, 2, 4 ...
_LONGEST = 300.0


class Passing(Exception):
    """A failure that may pass: a cut connection, an overloaded server.

    Args:
        reason: What happened, in one line.
        wait: Seconds that the server asks to wait, or None.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        """Keep the reason and the wait."""
        super().__init__(" ".join(reason.split()))
        self.wait = wait


def patiently(work: Callable[[], T], where: str) -> T:
    """Call ``work``, again after each `Passing`, with waits that double up to a minute.

    A wait that the server asks for (Retry-After) is kept to instead, up to five minutes.

    Args:
        work: Goes on from what an earlier call has left.
        where: The parameter that the work belongs to: ``downloads.inception``.

    Raises:
        UnseenError: The last try failed too, or the server asks for a longer wait.
    """
    tries = Retrying(
        retry=retry_if_exception(_soon), stop=stop_after_attempt(_TRIES), reraise=True,
        wait=_pause, before_sleep=lambda state: LOG.warning(
            "%s: %s; trying again in %.0f s", where, failure(state), state.upcoming_sleep))
    try:
        return tries(work)
    except Passing as error:
        often = (f"{_TRIES} times in a row" if _soon(error)
                 else f"and the server asks to wait {error.wait:.0f} s")
        raise UnseenError(f"{where}: {error}, {often}; what has arrived is kept, so run it again "
                          "to continue") from error


def _soon(failure: BaseException) -> bool:
    """Say whether another try makes sense now."""
    return isinstance(failure, Passing) and (failure.wait or 0) <= _LONGEST


def _pause(state: RetryCallState) -> float:
    """Return the seconds before the next try."""
    last = failure(state)
    asked = last.wait if isinstance(last, Passing) else None
    return _BACKOFF(state) if asked is None else asked


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
