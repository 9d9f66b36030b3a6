"""Stage ``analyze``: what the paper claims of inverted images, measured on one domain."""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from flows.loading.fitted import load_fitted, references_at
from flows.loading.frozen import load_frozen
from flows.loading.grid import grid_of
from flows.loading.judge import first_extractor
from flows.report.plots.analysis import plot_analysis
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.analysis.latents.level_tables import level_table, scalars_of
from unseen_core.analysis.latents.reconstruction import RoundTrip, reconstruction
from unseen_core.analysis.latents.walks import Walker
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import to_float, with_channels
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.batch import naming_memory
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.judging.features import extract
from unseen_core.judging.probe import fit_probe
from unseen_core.store import TensorStore, read_pictures, write_csv, write_frame, write_json

__all__ = ["analyze"]

_FEWEST = 16  # images of either domain: below, no test of normality has any power
_BOTTLENECKS = 25  # calls of the network at a time, or fewer where invert.batch is smaller
_OWN = 8  # samples of the network's own that must not change
_CANDIDATES = 200  # drawn of each law that the geometry test is asked about


@stage("analyze")
def analyze(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Write data/analysis: tables as JSON, one row per level as CSV and Parquet, plots.

    Of either side the first ``analyze.latents`` images are looked at: tests gain little from
    more, and hold them in memory.

    Raises:
        UnseenError: If latents, priors or a checkpoint are missing.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    opened = load_frozen(model, device=device, precision=params.invert.precision,
                         batch=params.invert.batch)
    network = opened.network
    fit_images, _ = references_at(model, domain, 0)
    seen_images, _ = read_pictures(PATHS.model(model) / "seen.parquet")
    seen = TensorStore(PATHS.latents(model, None))
    out = PATHS.analysis(model, domain)
    shutil.rmtree(out, ignore_errors=True)
    count = params.analyze.latents
    images = fit_images.rows(range(min(count, fit_images.count)))
    fewest = min(len(images), len(seen_images))
    if fewest < _FEWEST:
        run.log.warning("analyze: %s images are too few for its tests; use %s fit images or more",
                        fewest, _FEWEST)
        write_json(out / "analysis.json", {"model": model, "domain": domain, "images": fewest,
                                           "levels": {}})
        return {"levels": []}

    def at_level(level: int) -> dict[str, object]:
        streams = Streams(params.seed, f"{domain}/analyze/L{level:04d}",
                          [str(i) for i in range(_CANDIDATES)])
        with naming_memory("invert.batch", batch):
            fitted = load_fitted(model, domain, level)
            return level_table(
                network, fitted.references, fitted.priors, fitted.envelope, level,
                seen.rows(level, seen.ids[:count]), images, streams, batch=batch,
                neighbours=params.fit.neighbours, coverage=params.fit.coverage, seed=params.seed)

    def trip(x: Tensor) -> list[RoundTrip]:
        return reconstruction(network, opened.codec, x[: params.analyze.images].to(device),
                              levels, params.analyze.steps, method=params.solver.method,
                              spacing=params.solver.spacing)

    batch = min(_BOTTLENECKS, opened.batch)
    levels, grid = sorted(params.levels), grid_of(network, params)
    before = _own_samples(network, grid, params)
    walker = _walker(params, model, domain, device)
    # The longest first, so that no worker is left with one at the end.
    jobs: dict[str, Callable[[], Any]] = {
        f"round trips, {side}": partial(trip, x)
        for side, x in (("unseen", images), ("seen", to_float(seen_images[:count])))}
    jobs["walks"] = partial(walker.walks, levels[(len(levels) - 1) // 2])
    for level in reversed(levels):
        jobs[f"bandwidth, L{level:04d}"] = partial(walker.bandwidth_at, level)
        jobs[f"L{level:04d}"] = partial(at_level, level)
    done = dict(zip(jobs, run.map(lambda job: jobs[job](), list(jobs), workers=workers,
                                  name=lambda job: f"{model}/{domain}/{job}"), strict=True))
    tables = [done[f"L{level:04d}"] for level in levels]
    for level, table in zip(levels, tables, strict=True):
        table["bandwidth"] = done[f"bandwidth, L{level:04d}"]
        table["figures"] = scalars_of(table)
    walks, sheet = done["walks"]
    # All work on this network is done: it must still make of noise what it made before.
    if not torch.equal(before, _own_samples(network, grid, params)):
        raise UnseenError(f"models.{model}: the network's own samples changed while it was used; "
                          "something writes to its weights")
    report = {"model": model, "domain": domain, "images": fit_images.count,
              "seen": len(seen_images), "latents": count, "weights": opened.weights,
              "own_samples": {"compared": len(before), "identical": True},
              "levels": {str(k): table for k, table in zip(levels, tables, strict=True)},
              "gap": walker.gap(seen_images), "walks": walks,
              "reconstruction": {side: done[f"round trips, {side}"] for side in ("unseen", "seen")}}
    write_json(out / "analysis.json", report)
    frame = pd.DataFrame([{"level": level, **table["figures"]}
                          for level, table in zip(levels, tables, strict=True)])
    write_frame(out / "levels.parquet", frame)
    write_csv(out / "levels.csv", frame)
    sheet.save(out / "walks.png")
    plot_analysis(report, out / "analysis.png")
    return {"levels": levels}


def _own_samples(network: UNetEps, grid: tuple[int, ...], params: Params) -> Tensor:
    """Return what the network makes of noise at the highest level: the domain that it has seen."""
    streams = Streams(params.seed, "own", [str(i) for i in range(_OWN)])
    return denoise(network, streams.normal(*network.shape).float().to(network.device), grid,
                   method=params.solver.method)


def _walker(params: Params, model: str, domain: str, device: str) -> Walker:
    """Return what carries altered latents down and judges the images."""
    opened = load_frozen(model, device=device, precision=params.denoise.precision,
                         batch=params.denoise.batch)
    extractor = first_extractor(params, device)
    seen, _ = read_pictures(PATHS.model(model) / "seen.parquet")
    fit_images, _ = read_pictures(PATHS.domain(domain) / "fit.parquet")
    fit_images = with_channels(fit_images, opened.channels)
    probe = fit_probe(extract(extractor, seen), extract(extractor, fit_images))
    settings = params.analyze
    return Walker(opened.network, opened.codec, grid_of(opened.network, params), opened.batch,
                  params.solver.method, settings.etas, settings.images, settings.paths,
                  params.evaluate.draws, params.seed, extractor, probe,
                  TensorStore(PATHS.latents(model, domain)),
                  TensorStore(PATHS.latents(model, None)), fit_images)


