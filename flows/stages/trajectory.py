"""Stage ``trajectory``: outline first, details later? Closed forms beside one network's runs."""

import math
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flows.loading.frozen import load_frozen
from flows.loading.judge import first_extractor
from flows.loading.source_law import load_source
from flows.report.plots.trajectory import plot_strip, plot_trajectory
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from flows.settings.related_sections import Trajectory
from unseen_core.analysis.trajectory import Misfit, Spectrum, closed_forms, content, mode_groups
from unseen_core.analysis.trajectory.runs import Runs
from unseen_core.analysis.trajectory.tables import (
    better,
    dimensions,
    emergence_table,
    figures,
    gains_table,
    lags,
    levels_table,
)
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import to_float, with_channels
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.store import read_pictures, write_csv, write_json

__all__ = ["trajectory"]

_PART = 16  # runs that are in memory at once, with all their states
_NUMBERS = 2**24  # of these states, at most: the measures take about ten times as many in float64
_CENTRES = 2000  # images that a memory may know


class _Measured(NamedTuple):
    """What the network's time gave: runs, noised images and kicks by level, images by side."""

    found: dict[str, Tensor]
    noised: dict[int, dict[str, Misfit]]
    inverted: dict[str, dict[str, Tensor]]
    kicks: dict[int, dict[str, Tensor]]
    modes: list[int]


@stage("trajectory")
def trajectory(run: Run, *, model: str) -> dict[str, object]:
    """Write data/trajectory: tables as JSON and CSV, plots, and predicted images over levels.

    Raises:
        UnseenError: If the checkpoint, its source law or images are missing, or a level is out of
            range.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    settings, seen_name = params.trajectory, params.model(model).seen
    opened = load_frozen(model, device=device, precision=params.invert.precision,
                         batch=params.invert.batch)
    quick = load_frozen(model, device=device, precision=params.denoise.precision,
                        batch=params.denoise.batch)
    network, channels = opened.network, opened.channels
    law, out = load_source(model), PATHS.trajectory(model)
    shutil.rmtree(out, ignore_errors=True)
    if not law.factor.shape[1]:
        run.log.warning("trajectory: too few images of %s to separate a principal mode from noise; "
                        "fetch more of them", seen_name)
        write_json(out / "trajectory.json", {"model": model, "law": {"modes": 0}})
        return {"runs": 0}
    spectrum = Spectrum.of(law)
    seen, _ = read_pictures(PATHS.model(model) / "seen.parquet")
    sides = {"seen": seen}
    for domain in params.pipeline.domains:
        images, _ = read_pictures(PATHS.domain(domain) / "fit.parquet")
        sides[domain] = with_channels(images, channels)
    noised, centres = _apart(seen, seen_name, settings.seeds)
    runs = Runs(
        network, quick.network, opened.batch, quick.batch, _grid(network, params),
        params.solver.method, settings.levels, settings.kicked, settings.kick, params.seed,
        spectrum, mode_groups(len(spectrum.variances)),
        closed_forms(law, to_float(centres).flatten(1), network.schedule, network.shape),
        first_extractor(params, device))
    measured = _measure(run, runs, settings, sides, noised, workers, name=model)
    report = {"model": model, "weights": opened.weights, "seen": seen_name, "seed": params.seed,
              "law": {"modes": len(spectrum.variances), "remainder": spectrum.remainder,
                      "trace": law.trace},
              "images": {"noised": len(noised), "centres": len(centres)},
              "domains": {side: content(images, spectrum, network.schedule, sorted(params.levels))
                          for side, images in sides.items()}}
    _write(out, params, runs, measured, report)
    return {"runs": settings.seeds, "levels": len(runs.grid)}


def _measure(
    run: Run, runs: Runs, settings: Trajectory, sides: Mapping[str, Tensor], noised: Tensor,
    workers: int, *, name: str
) -> _Measured:
    """Take all of the network's time."""
    levels = runs.grid[:0:-1]
    numbers = len(runs.grid) * math.prod(runs.network.shape)
    size = max(1, min(_PART, runs.batch, _NUMBERS // numbers))
    parts = [range(i, min(i + size, settings.seeds)) for i in range(0, settings.seeds, size)]
    jobs: dict[str, Callable[[], Any]] = {
        **{f"runs from {part.start}": partial(runs.recorded, part) for part in parts},
        **{f"inversion, {side}": partial(runs.inverted, images[: settings.images])
           for side, images in sides.items()},
        **{f"noised, L{level:04d}": partial(runs.noised, noised, level) for level in levels}}

    def do(jobs: dict[str, Callable[[], Any]]) -> dict[str, Any]:
        return dict(zip(jobs, run.map(lambda job: jobs[job](), list(jobs), workers=workers,
                                      name=lambda job: f"{name}/{job}"), strict=True))

    done = do(jobs)
    rows = [done[f"runs from {part.start}"] for part in parts]
    found = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    modes = [mode for mode in settings.modes if mode < len(runs.spectrum.variances)]
    # The longest first, so that no worker is left with one at the end.
    kicks = do({f"kicks, L{level:04d}": partial(runs.kicked, level, found["kept"][:, i], modes)
                for i, level in sorted(enumerate(settings.levels), key=lambda pair: -pair[1])})
    return _Measured(
        found, {level: done[f"noised, L{level:04d}"] for level in levels},
        {side: done[f"inversion, {side}"] for side in sides},
        {level: kicks[f"kicks, L{level:04d}"] for level in settings.levels}, modes)


def _write(
    out: Path, params: Params, runs: Runs, measured: _Measured, report: dict[str, object]
) -> None:
    """Write tables and plots; ``report`` says what they were made of."""
    schedule, down = runs.network.schedule, runs.grid[::-1]
    found = measured.found
    levels = levels_table(found, measured.noised, measured.inverted, down, schedule)
    emergence, order = emergence_table(found["energy"], found["energy_predicted"], runs.spectrum,
                                       runs.groups, down, schedule, seed=params.seed)
    gains, agreement = gains_table(measured.kicks, measured.modes, runs.spectrum,
                                   found["features"], schedule)
    report |= {
        "settings": params.trajectory.model_dump(), "grid": list(runs.grid),
        "method": params.solver.method, "precision": params.invert.precision,
        "precision_of_kicks": params.denoise.precision, "extractor": runs.extractor.name,
        "dimensions": dimensions(found), "cosines": lags(found), "better": better(levels),
        "emergence": order, "gains": agreement, "figures": figures(levels)}
    write_json(out / "trajectory.json", report)
    for name, frame in (("levels", levels), ("emergence", emergence), ("gains", gains)):
        write_csv(out / f"{name}.csv", frame)
    plot_trajectory(report, levels, emergence, gains, out / "trajectory.png")
    plot_strip(found["strip"], found["strip_predicted"], down).save(out / "strip.png")


def _grid(network: UNetEps, params: Params) -> tuple[int, ...]:
    """Return the grid from clean to the last level, through mixing levels and those of kicks."""
    schedule: Schedule = network.schedule
    for name, levels in (("levels", params.levels), ("trajectory.levels",
                                                     params.trajectory.levels)):
        for level in levels:
            schedule.check_level(level, f"{name}:")
    through = {*params.levels, *params.trajectory.levels} - {schedule.top}
    return schedule.grid(params.solver.steps, schedule.top, spacing=params.solver.spacing,
                         through=sorted(through))


def _apart(seen: Tensor, domain: str, count: int) -> tuple[Tensor, Tensor]:
    """Return seen images to be noised, and others that a memory may know.

    Images that are neither fitted nor held out, where the domain has any, else the last seen ones.
    """
    rest = PATHS.domain(domain) / "rest.parquet"
    if rest.is_file():
        known, _ = read_pictures(rest, limit=_CENTRES)
        return seen[:count], with_channels(known, seen.shape[1])
    count = min(count, len(seen) // 2)
    return seen[:count], seen[count:]
