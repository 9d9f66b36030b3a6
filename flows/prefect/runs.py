"""Stages as Prefect flow runs: the only module that imports prefect for them."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from threading import Event, Semaphore
from typing import TypeVar

from prefect import flow, tags, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from flows.prefect.record import artifact_key, one_line_mistakes, optional_record
from flows.prefect.workers import Place, dask_runner, do_part, is_spread
from flows.running.registry import StageFunction
from flows.running.run import LOG, RETRIES, RETRY_DELAY, DirectRun
from unseen_core.errors import UnseenError, refusals_told

__all__ = ["PrefectRun", "run_recorded"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class PrefectRun:
    """Parts as task runs of the flow run around it; same results as `DirectRun`."""

    label: str = "stage"
    retries: int = RETRIES
    delay: float = RETRY_DELAY
    unreachable: Event = field(default_factory=Event)
    """Set once the server has stopped answering; nothing more is sent to it then."""
    place: Place | None = None
    """Where workers of a cluster find the parts; None: parts are done in this process."""
    calls: "count[int]" = field(default_factory=count)

    def __reduce__(self) -> tuple[type["PrefectRun"], tuple[str]]:
        """Travel as the label alone: Prefect sends a worker the flow, which it has no use for."""
        return PrefectRun, (self.label,)

    @property
    def log(self) -> logging.Logger:
        """The logger ``unseen``, which the run's logs on the server include."""
        return LOG

    def map(
        self, fn: Callable[[T], R], items: Sequence[T], *, name: Callable[[T], str],
        workers: int = 1,
    ) -> list[R]:
        """Submit each item as a task; see `flows.running.run.Run.map`.

        Anything but an `UnseenError` is tried again. No result is stored or cached: files are
        DVC's, and hashing large tensors takes seconds. A part whose task is lost because the
        server has gone is done here, without a record.
        """
        call = next(self.calls)
        if self.unreachable.is_set():
            return DirectRun(self.retries, self.delay).map(fn, items, name=name, workers=workers)
        free = Semaphore(workers)  # the task runner has a thread for every core

        # The item reaches the task by its index: Prefect would take arguments apart and copy them.
        def here(part: str, index: int) -> R:
            with free, refusals_told():
                return fn(items[index])

        def elsewhere(part: str, index: int, place: Place | None = self.place) -> None:
            do_part(place, call, index)

        run_part = task(
            here if self.place is None else elsewhere,
            name=getattr(fn, "__name__", "part"),
            task_run_name="{part}",
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=self.retries,
            retry_delay_seconds=self.delay,
            retry_condition_fn=_worth_retrying,
        )
        progress = None
        with optional_record(self.unreachable):
            progress = create_progress_artifact(0.0, key=artifact_key(f"{self.label}-progress"))
        futures = [run_part.submit(name(item), index) for index, item in enumerate(items)]
        results: list[R] = []
        for done, (future, item) in enumerate(zip(futures, items, strict=True), start=1):
            results.append(self._result(future, fn, item, name))
            twentieth = done * 20 // len(items) > (done - 1) * 20 // len(items)
            if progress is not None and twentieth and not self.unreachable.is_set():
                with optional_record(self.unreachable):
                    update_progress_artifact(progress, 100.0 * done / len(items))
        return results

    def _result(
        self, future: PrefectFuture[R], fn: Callable[[T], R], item: T, name: Callable[[T], str]
    ) -> R:
        """Return what a task returned, or do the part where only its record failed."""
        with optional_record(self.unreachable):
            return future.result()
        return DirectRun(self.retries, self.delay).map(fn, [item], name=name)[0]


def run_recorded(name: str, fn: StageFunction, targets: Mapping[str, str]) -> dict[str, object]:
    """Run a stage as the flow ``unseen-<stage>`` on the server at ``PREFECT_API_URL``.

    A server that stops answering in between costs the record, not the stage.

    Args:
        name: The stage.
        fn: Its plain function.
        targets: Its keyword arguments; they name the flow run and become tags.

    Returns:
        What ``fn`` returns, also recorded as a table artifact.

    Raises:
        UnseenError: Unchanged from ``fn``, or if ``UNSEEN_TASK_RUNNER`` names no task runner.
    """
    # A request is JSON, no name: Prefect would fill in what stands in its braces.
    named = [value for key, value in targets.items() if key != "request"]
    label = "-".join([name, *named])
    spread = is_spread(name)
    run = PrefectRun(label, place=Place.of(name, targets) if spread else None)
    if not os.environ.get("PREFECT_API_KEY"):
        # The default of 10 attempts makes every event that a lost server misses take seconds.
        EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=2)
        for noisy in ("prefect._internal.concurrency", "prefect.events.clients"):
            logging.getLogger(noisy).disabled = True  # they log every single event
    outcomes: list[dict[str, object]] = []

    @flow(
        name=f"unseen-{name}",
        flow_run_name=label,
        task_runner=dask_runner() if spread else ThreadPoolTaskRunner(os.cpu_count() or 1),
        persist_result=False,
        validate_parameters=False,
    )
    def run_whole_stage(targets: dict[str, str]) -> None:
        with refusals_told():
            outcomes.append(outcome := fn(run, **targets))
        rows = [{"name": key, "value": str(value)} for key, value in outcome.items()]
        with optional_record(run.unreachable):
            create_table_artifact(rows, key=artifact_key(label), description=f"Outcome of {label}")

    invocation = [os.environ.get(key) for key in ("UNSEEN_PARENT_RUN", "DVC_EXP_NAME")]
    marks = [name, *named, *(mark for mark in invocation if mark)]
    with tags(*marks), one_line_mistakes(), optional_record(run.unreachable):
        run_whole_stage(dict(targets))
    if not outcomes:
        with refusals_told():
            return fn(DirectRun(), **targets)
    return outcomes[0]


def _worth_retrying(_task: Task[..., object], _run: TaskRun, state: State[object]) -> bool:
    """Return whether another attempt could help: a wrong input stays wrong."""
    return not isinstance(state.data, UnseenError)


