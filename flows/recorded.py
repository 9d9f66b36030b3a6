"""Stages as Prefect flow runs: the only module that imports prefect for them."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Semaphore
from typing import TypeVar

from prefect import flow, get_client, tags, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from flows.run import LOG, RETRIES, RETRY_DELAY
from flows.stage import StageFunction
from unseen_core.errors import UnseenError

__all__ = ["PrefectRun", "one_line_mistakes", "require_server", "run_recorded"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class PrefectRun:
    """Parts as task runs of the flow run around it; same results as `DirectRun`."""

    label: str = "stage"
    retries: int = RETRIES
    delay: float = RETRY_DELAY

    @property
    def log(self) -> logging.Logger:
        """The logger ``unseen``, which the run's logs on the server include."""
        return LOG

    def map(
        self, fn: Callable[[T], R], items: Sequence[T], *, name: Callable[[T], str],
        workers: int = 1,
    ) -> list[R]:
        """Submit each item as a task; see `flows.run.Run.map`.

        Anything but an `UnseenError` is tried again. No result is stored or cached: files are
        DVC's, and hashing large tensors takes seconds.
        """
        free = Semaphore(workers)  # the task runner has a thread for every core

        # The item reaches the task by its index: Prefect would take arguments apart and copy them.
        @task(
            name=getattr(fn, "__name__", "part"),
            task_run_name="{part}",
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=self.retries,
            retry_delay_seconds=self.delay,
            retry_condition_fn=_worth_retrying,
        )
        def run_part(part: str, index: int) -> R:
            with free:
                return fn(items[index])

        progress = create_progress_artifact(0.0, key=_key(f"{self.label}-progress"))
        futures = [run_part.submit(name(item), index) for index, item in enumerate(items)]
        results: list[R] = []
        for done, future in enumerate(futures, start=1):
            results.append(future.result())
            if done * 20 // len(items) > (done - 1) * 20 // len(items):
                update_progress_artifact(progress, 100.0 * done / len(items))
        return results


def run_recorded(name: str, fn: StageFunction, targets: Mapping[str, str]) -> dict[str, object]:
    """Run a stage as the flow ``unseen-<stage>`` on the server at ``PREFECT_API_URL``.

    Args:
        name: The stage.
        fn: Its plain function.
        targets: Its keyword arguments; they name the flow run and become tags.

    Returns:
        What ``fn`` returns, also recorded as a table artifact.

    Raises:
        UnseenError: If the server does not answer, or unchanged from ``fn``.
    """
    require_server()
    label = "-".join([name, *targets.values()])

    @flow(
        name=f"unseen-{name}",
        flow_run_name=label,
        task_runner=ThreadPoolTaskRunner(max_workers=os.cpu_count() or 1),
        persist_result=False,
        validate_parameters=False,
    )
    def run_whole_stage(targets: dict[str, str]) -> dict[str, object]:
        outcome = fn(PrefectRun(label), **targets)
        rows = [{"name": key, "value": str(value)} for key, value in outcome.items()]
        create_table_artifact(rows, key=_key(label), description=f"Outcome of {label}")
        return outcome

    invocation = [os.environ.get(key) for key in ("UNSEEN_PARENT_RUN", "DVC_EXP_NAME")]
    marks = [name, *targets.values(), *(mark for mark in invocation if mark)]
    with tags(*marks), one_line_mistakes():
        return run_whole_stage(dict(targets))


def _worth_retrying(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    """Tell whether another attempt could help: a wrong input stays wrong."""
    return not isinstance(state.data, UnseenError)


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


def _key(text: str) -> str:
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
