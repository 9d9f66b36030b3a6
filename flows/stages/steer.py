"""Stage ``steer``: teleporting, control of colours, variation grids and the manifold search."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from flows.loading.frozen import load_frozen
from flows.loading.judge import first_extractor
from flows.loading.source_law import load_source
from flows.report.plots.steer import colour_sheet, plot_steer, variation_sheet
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from flows.settings.related_sections import Steer
from unseen_core.analysis.steering.colour import CONTROLS, best_level
from unseen_core.analysis.steering.steering import Controlled, Steerer
from unseen_core.analysis.steering.teleporting import JUMPS, Jump, Study
from unseen_core.analysis.steering.varying import subjects_of, vary
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import with_channels
from unseen_core.diffusion.batch import naming_memory
from unseen_core.judging.extractors import metric_names
from unseen_core.store import read_pictures, write_csv, write_json

__all__ = ["steer", "unchanged_share"]

_SEARCHED = 2  # subjects: the generated image, and one of an unseen domain
Row = Mapping[str, Any]


@stage("steer")
def steer(run: Run, *, model: str) -> dict[str, object]:
    """Write data/steer: all figures as JSON, two tables, plots and sheets of images.

    A generated image of the seen domain is varied, and one fit image of every unseen domain.

    Raises:
        UnseenError: If a checkpoint, its law or images are missing, or a level is out of range.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    steerer = _steerer(params, model, device)
    channels = steerer.network.shape[0]
    domains = {name: with_channels(read_pictures(PATHS.domain(name) / "fit.parquet")[0], channels)
               for name in params.pipeline.domains}
    levels = sorted(params.steer.levels)
    tasks = [(name, level) for level in reversed(levels) for name in CONTROLS]
    with naming_memory("denoise.batch", steerer.batch):
        teleport = _teleport(run, steerer, params.steer, model, workers)
        controlled = dict(zip(tasks, run.map(
            lambda task: steerer.controlled(*task), tasks, workers=workers,
            name=lambda task: f"{model}/{task[0]}, L{task[1]:04d}"), strict=True))
        spread = run.map(steerer.spread, levels, workers=workers,
                         name=lambda level: f"{model}/spread, L{level:04d}")
        subjects = subjects_of(steerer, domains)
        varied = run.map(lambda i: vary(steerer, subjects[i], searched=i < _SEARCHED),
                         range(len(subjects)), workers=workers,
                         name=lambda i: f"{model}/variations, {subjects[i].name}")
    controls = {name: [controlled[name, level] for level in levels] for name in CONTROLS}
    report = {
        "model": model, "seen": params.model(model).seen, "extractor": steerer.extractor.name,
        "kernel": metric_names(steerer.extractor.name)[0], "method": params.solver.method,
        "seed": params.seed, "draws": params.evaluate.draws,
        "law_modes": steerer.law.factor.shape[1], "settings": params.steer.model_dump(),
        "teleport": {"grid": list(steerer.grid), "unchanged_share": unchanged_share(teleport),
                     "rows": teleport},
        "controls": {name: _verdict(found) for name, found in controls.items()},
        "colour_grid": list(steerer.colour_grid), "spread": spread,
        "variation": [row for found in varied for row in found.rows],
        "search": [row for found in varied for row in found.searches],
    }
    out = PATHS.steer(model)
    shutil.rmtree(out, ignore_errors=True)
    write_json(out / "steer.json", report)
    tables = {"teleport": teleport,
              "colour": [row for found in controls.values() for part in found for row in part.rows]}
    for name, rows in tables.items():
        write_csv(out / f"{name}.csv", pd.DataFrame(rows))
    plot_steer(report, out / "steer.png")
    colour = controls["colour"]
    colour_sheet(colour[0].wanted, [part.images for part in colour], levels).save(
        out / "colour.png")
    sheet = variation_sheet([subject.name for subject in subjects],
                            [found.grids for found in varied],
                            [found.found for found in varied if len(found.found)])
    sheet.save(out / "variations.png")
    return {"unchanged_share": unchanged_share(teleport), "levels": levels}


def unchanged_share(rows: Sequence[Row]) -> float:
    """Return the largest share of calls that the law saves with no significant change.

    Neither at it nor at any smaller share does the interval of the kernel distance's difference
    to the whole run exclude 0.

    Args:
        rows: Of teleport.csv.
    """
    best = 0.0
    for row in sorted((row for row in rows if row["jump"] == "law"), key=lambda row: row["saved"]):
        if row["changed"]:
            break
        best = row["saved_share"]
    return best


def _steerer(params: Params, model: str, device: str) -> Steerer:
    """Return the network with what it is steered and judged by."""
    opened = load_frozen(model, device=device, precision=params.denoise.precision,
                         batch=params.denoise.batch)
    network = opened.network
    seen, _ = read_pictures(PATHS.model(model) / "seen.parquet")
    held_out, _ = read_pictures(PATHS.domain(params.model(model).seen) / "held_out.parquet")
    held_out = with_channels(held_out, opened.channels)
    settings, schedule = params.steer, network.schedule
    for level in [*settings.levels, settings.search]:
        schedule.check_level(level, "steer:")
    levels, spacing = sorted(settings.levels), params.solver.spacing
    top = partial(schedule.grid, params.solver.steps, schedule.top, spacing=spacing)
    return Steerer(
        network=network, batch=opened.batch, grid=top(),
        colour_grid=schedule.grid(settings.steps, levels[-1], spacing=spacing,
                                  through=levels[:-1]),
        search_grid=top(through=() if settings.search == schedule.top else (settings.search,)),
        method=params.solver.method, images=settings.images, colours=settings.colours,
        search=settings.search, draws=params.evaluate.draws, seed=params.seed,
        extractor=first_extractor(params, device), law=load_source(model), seen=seen,
        held_out=held_out)


def _teleport(
    run: Run, steerer: Steerer, settings: Steer, model: str, workers: int
) -> list[dict[str, object]]:
    """Return a row for the whole run and for each that was cut short."""
    grid = steerer.grid
    cuts: list[tuple[Jump, float]] = [("law", 0.0), *(("law", skip) for skip in settings.skips)]
    cuts += [(jump, skip) for jump in JUMPS[1:] for skip in settings.controls]
    # The longest first, so that no worker is left with one at the end.
    cuts.sort(key=lambda cut: cut[1])
    found = dict(zip(cuts, run.map(
        lambda cut: steerer.teleported(*cut), cuts, workers=workers,
        name=lambda cut: f"{model}/teleport, {cut[0]} {cut[1]:g}"), strict=True))
    study = Study(steerer.extractor, found["law", 0.0][1], steerer.held_out,
                  draws=steerer.draws, seed=steerer.seed)

    def judge(cut: tuple[Jump, float]) -> dict[str, object]:
        land, images = found[cut]
        whole, calls = len(grid) - 1, grid.index(land)
        return {"jump": cut[0], "skip": cut[1], "level": land, "calls": calls,
                "saved": whole - calls, "saved_share": (whole - calls) / whole,
                **study.row(images)}

    return run.map(judge, cuts, workers=workers,
                   name=lambda cut: f"{model}/judge, {cut[0]} {cut[1]:g}")


def _verdict(found: Sequence[Controlled]) -> dict[str, object]:
    """Return a control's rows with the level where it works best and the highest good one."""
    rows = [row for part in found for row in part.rows]
    best, good = best_level([row for row in rows if row["channel"] == "all"])
    return {"best_level": best, "highest_good_level": good, "rows": rows}
