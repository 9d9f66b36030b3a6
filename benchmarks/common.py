"""What benchmarks share: where they ran, how they time, their images, how they end."""

import json
import multiprocessing
import os
import platform
import resource
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import pandas as pd
import torch
from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.basics.images import with_channels
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.starts import StartContext
from unseen_core.store import (
    DType,
    Scratch,
    TensorStore,
    latent_manifest,
    part_name,
    read_pictures,
    save_part,
    write_index,
)
from unseen_core.types import Level

__all__ = ["RESULTS", "STORED", "apart", "circumstances", "context_of", "images_of",
           "side_by_side", "write_result", "write_store"]

RESULTS = Path(__file__).parent / "results"
STORED = 500
"""The level of `write_store`."""
_PART = 50  # rows
_T = TypeVar("_T")
_PACKAGES = ("torch", "diffusers", "numpy")


def circumstances(device: str) -> dict[str, object]:
    """Return versions, device and thread count of this run."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "versions": {"python": platform.python_version(),
                     **{package: version(package) for package in _PACKAGES}},
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


def write_result(path: Path, content: dict[str, object]) -> None:
    """Write a result as JSON; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def side_by_side(
    ways: Mapping[str, Callable[[], _T]], repeats: int = 5
) -> tuple[dict[str, dict[str, float]], dict[str, _T]]:
    """Return the least and the median seconds of each way of doing the same work, and its results.

    The ways take turns, so that what else the machine does meets all of them. A first round,
    which is not counted, warms them up where there is more than one.
    """
    took: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, _T] = {}
    for _ in range(repeats + (repeats > 1)):
        for name, way in ways.items():
            began = perf_counter()
            results[name] = way()
            took[name].append(perf_counter() - began)
    counted = {name: times[-repeats:] for name, times in took.items()}
    return {name: {"least": min(times), "median": statistics.median(times)}
            for name, times in counted.items()}, results


def apart(work: Callable[..., _T], *given: object) -> tuple[_T, int]:
    """Do work in a process of its own; return its result and what it took of memory, in bytes.

    Memory is the process's peak less what it holds before the work, which is the libraries'.

    Args:
        work: A function of a module.
        given: What it is called with.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_measured, work, given, torch.get_num_threads()).result()


def _measured(
    work: Callable[..., _T], given: tuple[object, ...], threads: int
) -> tuple[_T, int]:
    """Return a result and the bytes that it took, in the process that does the work."""
    torch.set_num_threads(threads)
    before = _memory("VmRSS")
    return work(*given), _memory("VmHWM") - before


def _memory(kind: str) -> int:
    """Return bytes that this process holds (VmRSS) or held at most (VmHWM); Linux has both.

    ``ru_maxrss`` begins at what the parent held, so it is no measure of a child.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line, = (line for line in status.read_text().splitlines() if line.startswith(f"{kind}:"))
    return 1024 * int(line.split()[1])


def write_store(folder: Path, x: Tensor, dtype: DType) -> Path:
    """Write states (n, c, h, w) of level 500 as `invert` does; return the store's folder."""
    parts = x.split(_PART)
    rows = [len(part) for part in parts]
    index = pd.DataFrame([{"id": str(_PART * p + r), "part": p, "row": r}
                          for p, count in enumerate(rows) for r in range(count)])
    names = [part_name(STORED, number) for number in range(len(parts))]
    with Scratch(folder / "work", "store") as work:
        for name, part in zip(names, parts, strict=True):
            work.add(name, lambda path, part=part: save_part(path, part, dtype))
        work.add("index.parquet", lambda path: write_index(path, index))
        manifest = latent_manifest(TensorStore.format, x.shape[1:], dtype, [STORED], rows, "0")
        work.publish(folder / "store", [*names, "index.parquet"], manifest)
    return folder / "store"


def images_of(domain: str) -> tuple[Tensor, Tensor]:
    """Return the fit and the held-out images of the last run's domain, uint8 (n, 3, h, w)."""
    fit, held_out = (with_channels(read_pictures(PATHS.domain(domain) / f"{side}.parquet")[0], 3)
                     for side in ("fit", "held_out"))
    return fit, held_out


def context_of(states: Tensor, level: Level, schedule: Schedule) -> StartContext:
    """Return what a sampler sees of states at a level."""
    references = References.of(states)
    order = Streams(0, "benchmarks/envelope", [str(i) for i in range(len(states))])
    envelope = Envelope.calibrate(StateJudge.of(references, neighbours=10),
                                  order.choose(len(states), len(states)))
    return StartContext(schedule, level, references, {}, envelope)
