"""One part of a stage in a process of its own: a worker of a cluster, here or on other machines.

A worker receives a stage, its arguments and the number of a part. It runs the stage as the first
process did, up to the parts, and does that one: neither networks nor tensors travel, and stages
need not know of it. Parts lie in the scratch folder, which workers and the first process must see
at the same path; only the first process publishes.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from logging import Logger
from typing import TYPE_CHECKING, TypeVar

from flows.running.code import ROOT, modules_of
from flows.running.registry import find_stage
from flows.running.resume import joining
from flows.running.run import LOG
from flows.settings.params import load_params
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash

if TYPE_CHECKING:
    from prefect_dask import DaskTaskRunner

__all__ = ["PATIENT", "SPREAD", "Place", "dask_runner", "do_part", "is_spread"]

SPREAD = ("invert", "denoise")
"""Stages whose parts are files and return nothing: only these can be done elsewhere."""
PATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "5"}
"""Environment of workers: many of them keep a server busy, so each retries before it gives up."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Place:
    """Where a part belongs: all that a worker needs to know.

    Attributes:
        root: Absolute path of the project, the same on every machine.
        environment: ``DVC_ROOT`` where it is set, which decides where unfinished work lies.
        stage: One of `SPREAD`.
        targets: The stage's arguments.
    """

    root: str
    environment: Mapping[str, str]
    stage: str
    targets: Mapping[str, str]

    @classmethod
    def of(cls, stage: str, targets: Mapping[str, str]) -> "Place":
        """Return the place of a stage of this process."""
        kept = {key: os.environ[key] for key in ("DVC_ROOT",) if key in os.environ}
        return cls(os.getcwd(), kept, stage, dict(targets))


class _Done(Exception):
    """Ends a stage after its one part."""


@dataclass(frozen=True)
class _OnePart:
    """A `flows.running.run.Run` that does one item of one ``map`` and passes over earlier ones."""

    call: int
    index: int
    calls: "count[int]" = field(default_factory=count)

    @property
    def log(self) -> Logger:
        """The logger ``unseen``."""
        return LOG

    def map(
        self, fn: Callable[[T], R], items: Sequence[T], *, name: Callable[[T], str],
        workers: int = 1,
    ) -> list[R]:
        """Do the item that is asked for, or nothing; see `flows.running.run.Run.map`."""
        if next(self.calls) < self.call:
            return []
        fn(items[self.index])
        raise _Done


def is_spread(stage: str) -> bool:
    """Say whether a stage's parts go to workers; an environment variable, since it changes no byte.

    Raises:
        UnseenError: If ``UNSEEN_TASK_RUNNER`` is neither ``threads`` (the default) nor ``dask``.
    """
    chosen = os.environ.get("UNSEEN_TASK_RUNNER", "threads")
    if chosen not in ("threads", "dask"):
        raise UnseenError(f"UNSEEN_TASK_RUNNER={chosen} is not a task runner; use threads or dask")
    return chosen == "dask" and stage in SPREAD


def dask_runner() -> "DaskTaskRunner":
    """Return the cluster at ``UNSEEN_DASK_ADDRESS``, or one of processes on this machine.

    A worker process takes one part at a time. Without an address there is a worker for every GPU,
    or for as many parts as ``compute.threads`` allows on the CPU.

    Raises:
        UnseenError: If the extra is not installed.
    """
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise UnseenError("UNSEEN_TASK_RUNNER=dask needs the extra: pip install -c constraints.txt "
                          "-e '.[dask]'") from None
    if address := os.environ.get("UNSEEN_DASK_ADDRESS"):
        return DaskTaskRunner(address=address)
    import torch

    workers = torch.cuda.device_count() or load_params().compute.threads
    return DaskTaskRunner(cluster_kwargs={
        "n_workers": workers, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1",
        "dashboard_address": None, "env": PATIENT})


def do_part(place: Place, call: int, index: int) -> None:
    """Do item ``index`` of the ``call``-th ``map`` of a stage, counted from 0.

    Raises:
        UnseenError: As the stage; or the worker runs code that the disk no longer has, by
            which parts are marked.
    """
    _use_own_device()
    if _first_code(place.stage) != _code(place.stage):
        raise UnseenError("the code has changed since this Dask worker began; restart the workers")
    os.environ.pop("DVC_ROOT", None)
    os.environ.update(place.environment)
    with chdir(place.root), joining():
        try:
            find_stage(place.stage)(_OnePart(call, index), **place.targets)
        except _Done:
            return


def _use_own_device() -> None:
    """Give the worker one GPU of its machine, by the number its name ends in, if there are any."""
    import torch
    from distributed import get_worker

    devices = torch.cuda.device_count()
    if devices:
        number = re.search(r"\d+$", str(get_worker().name))
        torch.cuda.set_device(int(number[0]) % devices if number else 0)


def _code(stage: str) -> tuple[str, ...]:
    """Return the hashes of the code that decides a stage's output, as it is on the disk."""
    return tuple(file_hash(ROOT / name) for name in modules_of(stage))


_first_code = cache(_code)
"""The same at a process's first part, when it imports that code."""
