"""What it costs to start a stage, as ratios to importing torch.

    python benchmarks/startup.py [--repeats 5]

Each command is a fresh process; the repeats of all commands take turns, and the least time of
each is kept, as other work on the machine only ever adds to it. Limits are wall-clock seconds.
``help`` is ``python -m flows invert --help``; ``no-op`` a registered stage that does nothing and
imports no torch; ``no-op, server away`` the same with ``PREFECT_API_URL`` at a port where nobody
listens. ``imports of invert`` is what a real stage pays on top before it begins to work, most of
it in diffusers and torch; it has no limit here. ``check`` is a command that imports torch, and
``check, warm`` the same in a copy of a process that has the libraries, as stages of a run are
started (its CPU time is the asking process's alone).
"""

import argparse
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from common import RESULTS, circumstances, write_result

from flows.running.warm import warm_stages

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parents[1]
NO_OP = """
from flows.running.registry import stage
from flows.dispatch import run_stage

@stage("quick")
def quick(run, *, model):
    return {"values": run.map(str.upper, ["a", "b"], name=str)}

run_stage("quick", {"model": "m"})
"""
LIMITS = {"help": 1.5, "no-op": 6.0, "no-op, server away": 6.0}
"""Wall-clock seconds."""


@dataclass(frozen=True)
class Cost:
    """The least wall-clock and CPU seconds of a process, and their ratios to importing torch."""

    seconds: float
    cpu_seconds: float
    ratio: float = 1.0
    cpu_ratio: float = 1.0


def commands(warm: Mapping[str, str]) -> dict[str, tuple[list[str], Mapping[str, str]]]:
    """Return what is measured: arguments of Python and additions to the environment.

    Args:
        warm: Tells a command of the warm process; empty where there is none.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        away = {"PREFECT_API_URL": f"http://127.0.0.1:{probe.getsockname()[1]}/api"}
    return {
        "import torch": (["-c", "import torch"], {}),
        "help": (["-m", "flows", "invert", "--help"], {}),
        "no-op": (["-c", NO_OP], {}),
        "no-op, server away": (["-c", NO_OP], away),
        "imports of invert": (["-c", "import flows.stages.invert"], {}),
        "check": (["-m", "flows", "check"], {}),
        **({"check, warm": (["-m", "flows", "check"], warm)} if warm else {}),
    }


def once(arguments: list[str], more: Mapping[str, str]) -> tuple[float, float]:
    """Return wall-clock and CPU seconds of one process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=kept | dict(more), check=True,
                   capture_output=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, cpu


def measure(repeats: int) -> dict[str, Cost]:
    """Return the cost of every command."""
    with warm_stages() as warm:
        jobs = commands(warm)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for _ in range(repeats):
            for name, (arguments, more) in jobs.items():
                found[name].append(once(arguments, more))
    least = {name: Cost(min(t for t, _ in times), min(c for _, c in times))
             for name, times in found.items()}
    torch = least["import torch"]
    return {name: Cost(cost.seconds, cost.cpu_seconds, cost.seconds / torch.seconds,
                       cost.cpu_seconds / torch.cpu_seconds) for name, cost in least.items()}


def main() -> None:
    """Measure, print and write the result; end with 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json")
    arguments = parser.parse_args()
    costs = measure(arguments.repeats)
    for name, cost in costs.items():
        limit = f" (limit {LIMITS[name]:g} s)" if name in LIMITS else ""
        print(f"{name:20} {cost.seconds:6.2f} s{limit}, {cost.ratio:5.2f} of importing torch; "
              f"CPU {cost.cpu_seconds:5.2f} s, {cost.cpu_ratio:5.2f}")
    content = {name: {key: round(value, 3) for key, value in asdict(cost).items()}
               for name, cost in costs.items()}
    write_result(arguments.out, {**circumstances("cpu"), "repeats": arguments.repeats,
                                 "limits": LIMITS, "costs": content})
    sys.exit(any(costs[name].seconds > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    main()
