"""How a stage runs its parts: the `Run` protocol and the direct loop."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["LOG", "RETRIES", "RETRY_DELAY", "DirectRun", "Run"]

LOG = logging.getLogger("unseen")
RETRIES = 2
RETRY_DELAY = 2.0
"""Seconds before a part is tried again."""

T = TypeVar("T")
R = TypeVar("R")


class Run(Protocol):
    """What a stage may ask of whoever runs it."""

    @property
    def log(self) -> logging.Logger:
        """The logger ``unseen``."""
        ...

    def map(self, fn: Callable[[T], R], items: Sequence[T], *, name: Callable[[T], str]) -> list[R]:
        """Apply ``fn`` to each item and return the results in the order of ``items``.

        Args:
            fn: A plain function of one part: a key or path in, a small value out.
            items: The parts.
            name: What a part is called in logs and task runs: ``shapes32/faces/part-00000``.

        Raises:
            UnseenError: As raised by ``fn``, unchanged and never tried again.
        """
        ...


@dataclass(frozen=True)
class DirectRun:
    """A loop in this process: no server, no import of prefect."""

    retries: int = RETRIES
    delay: float = RETRY_DELAY

    @property
    def log(self) -> logging.Logger:
        """The logger ``unseen``."""
        return LOG

    def map(self, fn: Callable[[T], R], items: Sequence[T], *, name: Callable[[T], str]) -> list[R]:
        """Apply ``fn`` to each item in turn; see `Run.map`. An ``OSError`` is tried again."""
        if not sys.stderr.isatty():
            return self._logged(fn, items, name)
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
        results: list[R] = []
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("", total=len(items))
            for item in items:
                progress.update(bar, description=name(item))
                results.append(self._attempt(fn, item, name(item)))
                progress.advance(bar)
        return results

    def _logged(
        self, fn: Callable[[T], R], items: Sequence[T], name: Callable[[T], str]
    ) -> list[R]:
        """Run the items with one log line for about each tenth of them."""
        results: list[R] = []
        for done, item in enumerate(items, start=1):
            results.append(self._attempt(fn, item, name(item)))
            if done * 10 // len(items) > (done - 1) * 10 // len(items):
                LOG.info("%s (%d of %d)", name(item), done, len(items))
        return results

    def _attempt(self, fn: Callable[[T], R], item: T, label: str) -> R:
        """Call ``fn``, again after an ``OSError``, and name the part that fails in the end."""
        for attempt in range(self.retries + 1):
            try:
                return fn(item)
            except OSError as error:
                if attempt == self.retries:
                    LOG.error("%s failed: %s", label, error)
                    raise
                LOG.warning("%s: %s; trying again in %g s", label, error, self.delay)
                time.sleep(self.delay)
        raise AssertionError("unreachable: the last attempt returns or raises")
