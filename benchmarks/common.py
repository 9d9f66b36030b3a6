"""What benchmarks share: where they ran, their images, what a sampler sees, how they end."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.basics.images import with_channels
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.starts import StartContext
from unseen_core.store import read_pictures
from unseen_core.types import Level

__all__ = ["RESULTS", "circumstances", "context_of", "images_of", "write_result"]

RESULTS = Path(__file__).parent / "results"
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
