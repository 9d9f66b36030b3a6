"""Stage ``analyze``: what the paper claims of inverted images, measured on one domain."""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from flows.analysis_plots import plot_analysis
from flows.batch import settle_batch
from flows.cores import share_cores
from flows.extractors import first_extractor
from flows.fit import Fitted, load_fitted, references_at
from flows.frozen import load_frozen
from flows.invert import grid_of
from flows.params import Params, load_params
from flows.paths import PATHS
from flows.run import Run
from flows.stage import stage
from flows.walks import Walker
from unseen_core.analysis import (
    PassRates,
    gaussianity,
    geometry_table,
    identities,
    leak_gap,
    prior_gap,
    rejection,
    separability,
    spread,
)
from unseen_core.analysis.reconstruction import RoundTrip, reconstruction
from unseen_core.batch import naming_memory
from unseen_core.denoiser import UNetEps
from unseen_core.device import pick_device
from unseen_core.errors import UnseenError
from unseen_core.features import extract
from unseen_core.geometry import Envelope, Judge
from unseen_core.images import to_float
from unseen_core.probe import fit_probe
from unseen_core.rng import Streams
from unseen_core.store import TensorStore, read_pictures, write_frame, write_json
from unseen_core.transport import denoise

__all__ = ["analyze", "scalars_of"]

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
    network, weights = load_frozen(model, device=device, precision=params.invert.precision)
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
            return _latents(params, network, load_fitted(model, domain, level), level,
                            seen.rows(level, seen.ids[:count]), images, streams, batch)

    def trip(x: Tensor) -> list[RoundTrip]:
        return reconstruction(network, x[: params.analyze.images].to(device), levels,
                              params.analyze.steps, method=params.solver.method,
                              spacing=params.solver.spacing)

    batch = min(_BOTTLENECKS, settle_batch(params.invert.batch, network, weights))
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
              "seen": len(seen_images), "latents": count, "weights": weights,
              "own_samples": {"compared": len(before), "identical": True},
              "levels": {str(k): table for k, table in zip(levels, tables, strict=True)},
              "gap": walker.gap(seen_images), "walks": walks,
              "reconstruction": {side: done[f"round trips, {side}"] for side in ("unseen", "seen")}}
    write_json(out / "analysis.json", report)
    frame = pd.DataFrame([{"level": level, **table["figures"]}
                          for level, table in zip(levels, tables, strict=True)])
    write_frame(out / "levels.parquet", frame)
    frame.to_csv(out / "levels.csv", index=False, float_format="%.6g")
    sheet.save(out / "walks.png")
    plot_analysis(report, out / "analysis.png")
    return {"levels": levels}


def _latents(
    params: Params,
    network: UNetEps,
    fitted: Fitted,
    level: int,
    seen: Tensor,
    images: Tensor,
    streams: Streams,
    batch: int,
) -> dict[str, object]:
    """Return every table of one level, JSON-able."""
    seed = params.seed
    unseen = fitted.references.rows(range(len(images)))
    judge = Judge.of(fitted.references, neighbours=params.fit.neighbours)
    draws: dict[str, Callable[[], Tensor]] = {
        "noise": lambda: streams.normal(fitted.references.dimension), "seen latents": lambda: seen}
    draws |= {f"prior {kind}": partial(prior.sample, streams)
              for kind, prior in fitted.priors.items()}
    passed: dict[str, PassRates] = {}
    for name, draw in draws.items():  # one set in memory at a time
        passed |= rejection(judge, fitted.envelope, {name: draw()}, seed=seed)
    passed |= rejection(*_half(params, unseen, streams), seed=seed)
    deep = {side: _bottleneck(network, x, level, batch) for side, x in (("unseen", unseen),
                                                                 ("seen", seen))}
    geometry = {"unseen": geometry_table(unseen, seed=seed),
                "seen": geometry_table(seen, seed=seed),
                "gaussian": identities(unseen),
                "unseen bottleneck": geometry_table(deep["unseen"], seed=seed),
                "seen bottleneck": geometry_table(deep["seen"], seed=seed)}
    return {
        "gaussianity": gaussianity(unseen, seed=seed).summary(),
        "geometry": geometry,
        "separability": separability(seen, unseen, seed=seed).summary(),
        "separability bottleneck": separability(deep["seen"], deep["unseen"],
                                                seed=seed).summary(),
        "prior_gap": prior_gap(unseen, images, network.schedule, level, seed=seed).summary(),
        "leak": leak_gap(unseen, images, network.schedule, level, seed=seed).summary(),
        "spread": spread(unseen, neighbours=params.fit.neighbours, seed=seed),
        "passed": {name: rates.summary() for name, rates in passed.items()},
    }


def _half(
    params: Params, unseen: Tensor, streams: Streams
) -> tuple[Judge, Envelope, dict[str, Tensor]]:
    """Return a judge and an envelope of every other latent, and the rest as candidates.

    They are natural states that the test has not seen: it should pass its coverage of them.
    """
    judge = Judge.of(unseen[::2], neighbours=params.fit.neighbours)
    count = judge.references.count
    order = streams[:count].choose(count, count) if count <= len(streams) else None
    if order is None:
        order = torch.rand(count, count, generator=torch.Generator().manual_seed(params.seed)
                           ).argsort(1)
    envelope = Envelope.calibrate(judge, order, coverage=params.fit.coverage)
    return judge, envelope, {"held-out latents": unseen[1::2]}


def _own_samples(network: UNetEps, grid: tuple[int, ...], params: Params) -> Tensor:
    """Return what the network makes of noise at the highest level: the domain that it has seen."""
    streams = Streams(params.seed, "own", [str(i) for i in range(_OWN)])
    return denoise(network, streams.normal(*network.shape).float().to(network.device), grid,
                   method=params.solver.method)


def _bottleneck(network: UNetEps, latents: Tensor, level: int, batch: int) -> Tensor:
    """Return the middle block's activations of latents, in batches."""
    parts = [network.bottleneck(x.to(network.device), level).cpu() for x in latents.split(batch)]
    return torch.cat(parts)


def _walker(params: Params, model: str, domain: str, device: str) -> Walker:
    """Return what carries altered latents down and judges the images."""
    network, weights = load_frozen(model, device=device, precision=params.denoise.precision)
    extractor = first_extractor(params, device)
    seen, _ = read_pictures(PATHS.model(model) / "seen.parquet")
    fit_images, _ = read_pictures(PATHS.domain(domain) / "fit.parquet")
    probe = fit_probe(extract(extractor, seen), extract(extractor, fit_images))
    batch = settle_batch(params.denoise.batch, network, weights)
    return Walker(network, grid_of(network, params), batch, params, extractor, probe,
                  TensorStore(PATHS.latents(model, domain)),
                  TensorStore(PATHS.latents(model, None)), fit_images)


def scalars_of(table: dict[str, object]) -> dict[str, float]:
    """Return the figures of one level that are worth a curve over levels."""
    gauss, split, gap = table["gaussianity"], table["separability"], table["prior_gap"]
    deep, leak = table["separability bottleneck"], table["leak"]["nats_per_dimension"]
    figures = {
        "norm": gauss["norm"]["mean"], "norm_sd": gauss["norm"]["sd"],
        "norm_over_sqrt_d": gauss["norm"]["mean"] / gauss["norm"]["sqrt_d"],
        "effective_rank": gauss["effective_rank"]["debiased"],
        "projections_rejected": gauss["projections"]["rejected"],
        "projections_rejected_bh": gauss["projections"]["rejected_bh"],
        "components_rejected_bh": gauss["components"]["rejected_bh"],
        "centre_ratio": split["ratio"], "centre_threshold": split["threshold"],
        "centre_ratio_effective": split["effective_ratio"],
        "centre_ratio_bottleneck": deep["ratio"],
        "accuracy_centroid": split["measured"]["centroid"]["value"],
        "accuracy_svm": split["measured"]["svm"]["value"],
        "mean_offset": gap["mean"]["offset"], "mean_offset_noise": gap["mean"]["paired_noise"],
        "trace_ratio": gap["trace_ratio"],
        "nats_per_dimension": gap["nats_per_dimension"]["gap"],
        "leak_pixel_nats": leak["pixel"]["gap"], "leak_dct_nats": leak["dct"]["gap"],
        "bandwidth_content": table["bandwidth"]["content"]["value"],
        "bandwidth_target": table["bandwidth"]["target"]["value"],
    }
    figures |= {f"pair_distance_{side}": table["geometry"][side]["pair_distance"]["mean"]
                for side in ("unseen", "seen")}
    figures |= {f"origin_angle_{side}": table["geometry"][side]["origin_angle"]["mean"]
                for side in ("unseen", "seen")}
    figures |= {f"pass_{name.replace(' ', '_')}": rates["joint"]["value"]
                for name, rates in table["passed"].items()}
    return figures
