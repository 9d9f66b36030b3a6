"""Error over network calls: the default solver beside the schedulers of diffusers.

    python benchmarks/solvers.py [--images 2] [--networks natural32 shapes32]

Fit images of digits, faces and galaxies, which neither network has seen, are carried up to levels
300, 500 and 900, and the reference latents (Heun, see inversion.py) are carried down from there.
The error up is that of the latent, down that of the image, relative, median over images. Peers are
called as their documentation does: ``DDIMInverseScheduler`` and
``DPMSolverMultistepInverseScheduler`` up; ``DDIMScheduler``, ``DPMSolverMultistepScheduler`` (also
on our grid, by ``timesteps=``) and ``UniPCMultistepScheduler`` down; trailing spacing, which has
the levels among its nodes, no clipping. DDIM on every level is the mark to reach.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from common import RESULTS, circumstances, write_result
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepInverseScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from inversion import fit_images, heun, relative
from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.transport import denoise, invert

LEVELS = (300, 500, 900)
CALLS = (6, 8, 10, 12, 16, 20, 25, 32, 40)
STEPS = (10, 20, 50)  # of the peers, from noise to image; a part of them is below a level
EVERY = "DDIM, every level"


def noise(model: UNetEps, x: Tensor, timestep: int) -> Tensor:
    """Return the noise in states at a timestep of diffusers, which counts from 0."""
    return model(x, timestep + 1).to(x.dtype)


def climb(model: UNetEps, scheduler: SchedulerMixin, x: Tensor, level: int) -> tuple[Tensor, int]:
    """Return latents at a level by an inverse scheduler, and the calls that it took."""
    is_ddim, calls = isinstance(scheduler, DDIMInverseScheduler), 0
    # A step of DDIM's ends at the timestep it is given, a step of the other's at the next one.
    for timestep, following in pairwise([*scheduler.timesteps.tolist(), level]):
        if (timestep if is_ddim else following) >= level:
            break
        x = scheduler.step(noise(model, x, timestep), timestep, x).prev_sample
        calls += 1
    return x, calls


def descend(model: UNetEps, scheduler: SchedulerMixin, x: Tensor, level: int) -> tuple[Tensor, int]:
    """Return images from latents at a level by a scheduler, and the calls that it took."""
    timesteps = scheduler.timesteps.tolist()
    below = timesteps[timesteps.index(level - 1):]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(timesteps.index(level - 1))
    for timestep in below:
        x = scheduler.step(noise(model, x, timestep), timestep, x).prev_sample
    return x, len(below)


def settings(folder: Path) -> dict[str, object]:
    """Return what the schedulers need of a checkpoint; what they are told is always the noise."""
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text("utf-8"))
    return {key: config[key] for key in ("num_train_timesteps", "beta_start", "beta_end",
                                         "beta_schedule")}


def peers(shared: dict[str, object]) -> Iterator[tuple[str, SchedulerMixin]]:
    """Yield the schedulers of diffusers, each at every number of steps."""
    for steps in STEPS:
        for kind in (DDIMInverseScheduler, DPMSolverMultistepInverseScheduler, DDIMScheduler,
                     DPMSolverMultistepScheduler, UniPCMultistepScheduler):
            more = {"clip_sample": False} if "DDIM" in kind.__name__ else {}
            scheduler = kind(**shared, timestep_spacing="trailing", **more)
            scheduler.set_timesteps(steps)
            yield kind.__name__, scheduler


@torch.inference_mode()
def measure(model: UNetEps, folder: Path, images: Tensor) -> Iterator[dict[str, object]]:
    """Yield a row for each way, direction, level and number of calls."""
    grid, double, shared = model.schedule.grid, images.double(), settings(folder)
    reference = heun(model, images, grid(150, 900, through=LEVELS[:2]), LEVELS)

    def row(way: str, up: bool, level: int, calls: int, found: Tensor) -> dict[str, object]:
        errors = relative(found, reference[level] if up else double)
        return {"way": way, "direction": "up" if up else "down", "level": level, "calls": calls,
                "error": statistics.median(errors)}

    for level in LEVELS:
        for calls in CALLS:
            levels = grid(calls, level)
            yield row("unseen", True, level, calls, invert(model, double, levels))
            yield row("unseen", False, level, calls, denoise(model, reference[level], levels))
            ours = DPMSolverMultistepScheduler(**shared)
            ours.set_timesteps(timesteps=[node - 1 for node in reversed(levels[1:])])
            yield row("DPMSolverMultistepScheduler, our grid", False, level,
                      *reversed(descend(model, ours, reference[level], level)))
    for level in LEVELS:
        for way, scheduler in peers(shared):
            up = "Inverse" in way
            if level % (1000 // scheduler.num_inference_steps):
                continue
            found, calls = (climb(model, scheduler, double, level) if up
                            else descend(model, scheduler, reference[level], level))
            yield row(way, up, level, calls, found)
    every: dict[int, Tensor] = {}
    invert(model, double, tuple(range(901)), method="ddim",
           observe=lambda level, x: every.update({level: x}) if level in LEVELS else None)
    for level in LEVELS:
        yield row(EVERY, True, level, level, every[level])
        yield row(EVERY, False, level, level,
                  denoise(model, reference[level], tuple(range(level + 1)), method="ddim"))


def main() -> None:
    """Measure every network and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2, help="of each of three domains")
    parser.add_argument("--networks", nargs="+", default=["natural32", "shapes32"])
    parser.add_argument("--out", type=Path, default=RESULTS / "solvers.json")
    options = parser.parse_args()
    images = fit_images(options.images)
    found = {}
    for name in options.networks:
        folder, rows = PATHS.embedded(name), []
        for row in measure(load_model(folder), folder, images):
            rows.append(row)
            print(f"{name} {row['way']:38} {row['direction']:4} {row['level']} "
                  f"{row['calls']:4} calls {row['error']:.4f}", flush=True)
        found[name] = rows
    write_result(options.out, {**circumstances("cpu"), "images": len(images), "networks": found})


if __name__ == "__main__":
    main()
