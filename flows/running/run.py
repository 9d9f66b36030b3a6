"""How a stage runs its parts: the `Run` protocol and the direct loop."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_fixed,
)

from unseen_core.errors import refusals_told

__all__ = ["LOG", "RETRIES", "RETRY_DELAY", "DirectRun", "Run", "failure"]

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

    def map(
        self, fn: Callable[[T], R], items: Sequence[T], *, name: Callable[[T], str],
        workers: int = 1,
    ) -> list[R]:
        """Apply ``fn`` to each item and return the results in the order of ``items``.

        Args:
            fn: A plain function of one part: a key or path in, a small value out.
            items: The parts.
            name: What a part is called in logs and task runs: ``shapes32/faces/part-00000``.
            workers: Parts that are worked on at once, each in a thread; see ``share_cores``.

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

    def map(
        self, fn: Callable[[T], R], items: Sequence[T], *, name: Callable[[T], str],
        workers: int = 1,
    ) -> list[R]:
        """Apply ``fn`` to each item; see `Run.map`. An ``OSError`` is tried again."""
        labels = [name(item) for item in items]
        if workers == 1:
            outcomes = (self._attempt(fn, *part) for part in zip(items, labels, strict=True))
            return self._told(outcomes, labels)
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._attempt, fn, *part)
                       for part in zip(items, labels, strict=True)]
            try:
                return self._told((future.result() for future in futures), labels)
            except BaseException:
                pool.shutdown(cancel_futures=True)  # parts not begun; those begun go to their end
                raise

    def _told(self, outcomes: Iterator[R], labels: Sequence[str]) -> list[R]:
        """Collect results as they come: a bar on a terminal, else a line for each tenth."""
        total, results = len(labels), list[R]()
        if not sys.stderr.isatty():
            for done, (result, label) in enumerate(zip(outcomes, labels, strict=True), start=1):
                results.append(result)
                if done * 10 // total > (done - 1) * 10 // total:
                    LOG.info("%s (%d of %d)", label, done, total)
            return results
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(labels[0] if labels else "", total=total)
            for done, result in enumerate(outcomes, start=1):
                results.append(result)
                progress.update(bar, advance=1, description=labels[min(done, total - 1)])
        return results

    def _attempt(self, fn: Callable[[T], R], item: T, label: str) -> R:
        """Call ``fn``, again after an ``OSError``, and name the part that fails in the end."""
        tries = Retrying(
            retry=retry_if_exception_type(OSError), stop=stop_after_attempt(self.retries + 1),
            wait=wait_fixed(self.delay), reraise=True, before_sleep=lambda state: LOG.warning(
                "%s: %s; trying again in %g s", label, failure(state), self.delay))
        try:
            return tries(refusals_told()(fn), item)
        except OSError as error:
            LOG.error("%s failed: %s", label, error)
            raise


def failure(state: RetryCallState) -> BaseException | None:
    """Return what the last try raised, None where it did not."""
    return state.outcome.exception() if state.outcome else None
