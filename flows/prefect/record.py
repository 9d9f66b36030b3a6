"""What a run leaves on a Prefect server, and how it goes on without one."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

from prefect import get_client
from prefect.events.clients import NullEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import CancelledRun
from prefect.logging.handlers import APILogHandler

from flows.running.registry import UNRECORDED
from flows.running.run import LOG
from unseen_core.errors import UnseenError

__all__ = ["artifact_key", "one_line_mistakes", "optional_record", "require_server"]


def require_server() -> None:
    """Raise unless the Prefect server answers."""
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        address = os.environ["PREFECT_API_URL"]
        raise UnseenError(
            f"no Prefect server answers at PREFECT_API_URL={address}; "
            "start one with `make serve`, or unset the variable to run without"
        )


@contextmanager
def optional_record(unreachable: Event) -> Iterator[None]:
    """Let the block fail where only the record of a run fails, and say so once.

    Args:
        unreachable: Set from the first such failure on.
    """
    try:
        yield
    except CancelledRun:
        raise
    except Exception as error:
        # Parts of a stage call neither Prefect nor its client, so these errors are the record's.
        if type(error).__module__.partition(".")[0] not in ("prefect", "httpx", "websockets"):
            raise
        if not unreachable.is_set():
            _silence()
            reason = str(error).partition("\n")[0] or type(error).__name__
            LOG.warning("%s from here on: %s", UNRECORDED, reason)
        unreachable.set()


def _silence() -> None:
    """Send nothing more to a lost server, and keep Prefect from telling of each item."""
    EventsWorker.set_client_override(NullEventsClient)
    for name in ("", LOG.name, *logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        for handler in [one for one in logger.handlers if isinstance(one, APILogHandler)]:
            logger.removeHandler(handler)
        if name.partition(".")[0] in ("prefect", "EventsWorker", "APILogWorker"):
            logger.disabled = True


def artifact_key(text: str) -> str:
    """Return ``text`` as an artifact key, which allows lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class _WithoutTraceback(logging.Filter):
    """Strips the traceback from records about an `UnseenError`: its line says it all."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record."""
        if record.exc_info and isinstance(record.exc_info[1], UnseenError):
            record.exc_info = None
        return True


@contextmanager
def one_line_mistakes() -> Iterator[None]:
    """Keep tracebacks of user mistakes out of the run logs for the duration."""
    quiet = _WithoutTraceback()
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addFilter(quiet)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(quiet)
