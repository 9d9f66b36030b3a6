"""How far latents and round trips of each solver are off, on images that the model never saw.

    python benchmarks/inversion.py [MODEL_FOLDER] [--quick]

Fit images of digits, faces and galaxies are carried to levels 500 and 900 and back. The latent
error is the relative distance to a reference: Heun's rule on a dense grid, two calls a step,
which is within 0.002 of the same rule on every level. As another opinion on the reference, the
distance to it of AB2 on the dense grid is printed as well.
The round-trip error is relative to the image. Both are medians over images, the last ones of
each domain's fit images; the grid's rho was chosen on the first ones.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import torch
from common import RESULTS, circumstances, write_result
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from flows.settings.params import load_params
from unseen_core.basics.images import to_float
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.transport import Method, denoise, invert
from unseen_core.sources import SourceConfig, load, split
from unseen_core.store import file_hash

ROOT = Path(__file__).resolve().parents[1]
DOMAINS = ("digits", "faces", "galaxies")
LEVELS = (500, 900)
CALLS = {500: 16, 900: 32}  # of the default, params.yaml
EVERY = "ddim, every level"
THROUGH = (100, 300, 500)  # the pipeline's other mixing levels
PIPELINE = "dpm3m karras, one pass through 100, 300, 500"


@dataclass(frozen=True)
class Row:
    """One method at one level; errors are relative, one per image."""

    method: str
    level: int
    calls_up: int
    calls_down: int
    seconds: float
    latent: list[float]
    round_trip: list[float]


def fit_images(per_domain: int) -> Tensor:
    """Return the last fit images of each domain in turn, float32 (n, 3, h, w) in [-1, 1]."""
    params = load_params(ROOT / "params.yaml")
    picked = []
    for name in DOMAINS:
        domain = params.domain(name)
        source = load(SourceConfig(kind=domain.source, domain=name, size=params.images.size,
                                   limit=domain.limit))
        sides = split(source, fit=domain.fit, held_out=domain.held_out, seed=params.seed)
        picked.append(source.images[sides.fit[-per_domain:]])
    return to_float(torch.stack(picked, 1).flatten(0, 1))


def relative(found: Tensor, wanted: Tensor) -> list[float]:
    """Return |found - wanted| / |wanted| per image."""
    gap = (found - wanted).flatten(1).norm(dim=1)
    return (gap / wanted.flatten(1).norm(dim=1)).tolist()


@torch.inference_mode()
def heun(model: UNetEps, images: Tensor, levels: tuple[int, ...],
         wanted: tuple[int, ...] = LEVELS) -> dict[int, Tensor]:
    """Return latents at some levels by Heun's rule in sigma; Euler next to the clean level."""
    y, kept = images.double(), {}
    for low, high in pairwise(levels):
        step = (model.schedule.sigma(high) - model.schedule.sigma(low)).item()
        first = model(y * model.schedule.a(low), low).double()
        if low == 0:
            y = y + step * first
        else:
            second = model((y + step * first) * model.schedule.a(high), high).double()
            y = y + step / 2 * (first + second)
        if high in wanted:
            kept[high] = y * model.schedule.a(high)
    return kept


def measure(
    model: UNetEps,
    images: Tensor,
    reference: dict[int, Tensor],
    name: str,
    levels: tuple[int, ...],
    method: Method,
) -> list[Row]:
    """Carry images up one grid, and down from each of LEVELS that it passes."""
    rows: list[Row] = []
    latents: dict[int, tuple[Tensor, float]] = {}
    began = perf_counter()

    def observe(level: int, states: Tensor) -> None:
        if level in LEVELS:
            latents[level] = states, perf_counter() - began

    invert(model, images.double(), levels, method=method, observe=observe)
    for level, (latent, seconds) in latents.items():
        part = levels[: levels.index(level) + 1]
        began = perf_counter()
        back = denoise(model, latent, part, method=method)
        calls = len(part) - 1
        rows.append(Row(name, level, calls, calls, seconds + perf_counter() - began,
                        relative(latent, reference[level][: len(latent)]),
                        relative(back, images.double())))
    return rows


@torch.inference_mode()
def scheduler_pair(
    model: UNetEps, folder: Path, images: Tensor, reference: dict[int, Tensor], clip: bool
) -> list[Row]:
    """Do the same with the two schedulers of diffusers: 50 steps of 20 levels to the top.

    Trailing spacing makes levels 500 and 900 nodes of both; the defaults end 19 levels lower.
    """
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    shared = {key: config[key] for key in ("num_train_timesteps", "beta_start", "beta_end",
                                           "beta_schedule")}
    up = DDIMInverseScheduler(**shared, clip_sample=clip, timestep_spacing="trailing")
    down = DDIMScheduler(**shared, clip_sample=clip, timestep_spacing="trailing")
    up.set_timesteps(50)
    down.set_timesteps(50)
    rows = []
    for level in LEVELS:
        began = perf_counter()
        x, calls = images.double(), [0, 0]
        for way, scheduler in enumerate((up, down)):
            for timestep in scheduler.timesteps.tolist():
                if timestep < level:
                    x = scheduler.step(model(x, timestep + 1), timestep, x).prev_sample
                    calls[way] += 1
            if way == 0:
                latent = x
        rows.append(Row(f"diffusers pair, clip {'on' if clip else 'off'}", level, *calls,
                        perf_counter() - began, relative(latent, reference[level]),
                        relative(x, images.double())))
    return rows


def summary(rows: list[Row]) -> list[dict[str, object]]:
    """Add medians, and their ratios to those of DDIM on every level."""
    every = {row.level: row for row in rows if row.method == EVERY}
    table = []
    for row in rows:
        base, entry = every[row.level], asdict(row)
        for kind in ("latent", "round_trip"):
            median = statistics.median(getattr(row, kind))
            entry[f"{kind}_median"] = median
            entry[f"{kind}_ratio"] = median / statistics.median(getattr(base, kind))
        table.append(entry)
    return table


def show(table: list[dict[str, object]], agreement: dict[int, float]) -> None:
    """Print the table and what it says about the default."""
    print(f"{'method':46}{'level':>6}{'calls':>10}{'latent':>9}{'ratio':>7}"
          f"{'round trip':>12}{'ratio':>7}{'s':>7}")
    for row in table:
        calls = f"{row['calls_up']}+{row['calls_down']}"
        print(f"{row['method']:46}{row['level']:>6}{calls:>10}{row['latent_median']:>9.4f}"
              f"{row['latent_ratio']:>7.2f}{row['round_trip_median']:>12.4f}"
              f"{row['round_trip_ratio']:>7.2f}{row['seconds']:>7.1f}")
    for level, error in agreement.items():
        print(f"level {level}: AB2 on the dense grid differs from the reference by {error:.4f}")


def main() -> None:
    """Run every method and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "data/embedded/natural32")
    parser.add_argument("--quick", action="store_true", help="3 images in place of 24")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "inversion.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = perf_counter()
    model = load_model(options.model, device=options.device)
    grid: Callable[..., tuple[int, ...]] = model.schedule.grid
    images = fit_images(1 if options.quick else 8).to(options.device)

    dense = grid(150, 900, through=(500,))
    reference = heun(model, images, dense)
    opinion: dict[int, Tensor] = {}
    invert(model, images.double(), dense, method="ab2",
           observe=lambda level, x: opinion.update({level: x}) if level in LEVELS else None)
    agreement = {k: statistics.median(relative(opinion[k], reference[k])) for k in LEVELS}

    rows = []
    for level in LEVELS:
        for name, method, spacing in (("dpm3m karras (default)", "dpm3m", "karras"),
                                      ("dpm2m karras", "dpm2m", "karras"),
                                      ("ab2 quadratic", "ab2", "quadratic"),
                                      ("ddim uniform", "ddim", "uniform")):
            levels = grid(CALLS[level], level, spacing=spacing)
            rows += [row for row in measure(model, images, reference, name, levels, method)
                     if row.level == level]
    rows += measure(model, images, reference, PIPELINE, grid(CALLS[900], 900, through=THROUGH),
                    "dpm3m")
    for clip in (True, False):
        rows += scheduler_pair(model, options.model, images, reference, clip)
    rows += measure(model, images, reference, EVERY, tuple(range(901)), "ddim")
    table = sorted(summary(rows), key=lambda row: row["level"])
    show(table, agreement)
    write_result(options.out, {
        "benchmark": "inversion", "quick": options.quick, **circumstances(options.device),
        "model": {"name": options.model.name, "shape": model.shape, "sha256": file_hash(
            options.model / "unet/diffusion_pytorch_model.safetensors")},
        "sizes": {"images": len(images), "domains": DOMAINS},
        "reference": {"method": "Heun, karras", "calls": 2 * len(dense) - 3,
                      "other_opinion": f"ab2, {len(dense) - 1} calls", "difference": agreement},
        "seconds": perf_counter() - began, "rows": table,
    })


if __name__ == "__main__":
    main()
