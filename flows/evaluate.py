"""Stage ``evaluate``: every cell against images that nothing before it has read."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from flows.cells import REAL, Cell, each_cell, load_cost
from flows.extractors import load_extractor, metric_names
from flows.params import Params, load_params
from flows.paths import PATHS
from flows.run import Run
from flows.stage import stage
from unseen_core.device import pick_device
from unseen_core.errors import UnseenError
from unseen_core.features import Pixels, extract, overlap
from unseen_core.metrics import frechet_distance, kernel_distance
from unseen_core.novelty import copy_fraction, diversity, nearest, novelty, precision_recall
from unseen_core.probe import Probe, fit_probe, wilson
from unseen_core.store import read_json, read_pictures, write_frame, write_json
from unseen_core.types import FeatureExtractor

__all__ = ["evaluate"]


@dataclass(frozen=True, eq=False)
class _Judge:
    """One extractor with the features of the real images."""

    extractor: FeatureExtractor
    fit: Tensor
    held_out: Tensor
    probe: Probe

    def distances(self, images: Tensor, draws: int, seed: int) -> tuple[Tensor, dict[str, float]]:
        """Return an image set's features and its distances to the held-out images."""
        features = extract(self.extractor, images)
        kernel, frechet = metric_names(self.extractor.name)
        found = kernel_distance(features, self.held_out, draws=draws, seed=seed)
        return features, {
            kernel: found.value, f"{kernel}_low": found.low, f"{kernel}_high": found.high,
            frechet: frechet_distance(features, self.held_out),
        }


@stage("evaluate")
def evaluate(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Measure every cell of a domain and write JSON, CSV and a Parquet of per-image values.

    Distances are taken by every extractor; the first one also judges novelty, copies, diversity,
    precision, recall and the share of images in the target domain.

    Raises:
        UnseenError: If an extractor was trained on a held-out image, or an input is missing.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    torch.set_num_threads(params.compute.threads)
    fit_images, _ = read_pictures(PATHS.domain(domain) / "fit.parquet")
    held_out, _ = read_pictures(PATHS.domain(domain) / "held_out.parquet")
    seen, _ = read_pictures(PATHS.model(model) / "seen.parquet")
    judges = []
    for name, section in params.evaluate.extractors.items():
        weights = Path(section.weights) if section.weights else None
        extractor = load_extractor(name, weights, section.sha256, device)
        if weights is not None and weights.is_dir() and overlap(weights, held_out):
            raise UnseenError(f"{weights} was trained on held-out images of {domain}; restore the "
                              "seed it was trained with, or run `python -m flows pretrain`")
        fit_features = extract(extractor, fit_images)
        probe = fit_probe(extract(extractor, seen), fit_features)
        judges.append(_Judge(extractor, fit_features, extract(extractor, held_out), probe))
    pixels = extract(Pixels(), fit_images), extract(Pixels(), held_out)
    generated = PATHS.generated(model, domain)
    starts = read_json(PATHS.starts(model, domain) / "report.json")
    accepted = {row["cell"]: row["acceptance"] for row in starts["cells"]}

    def measure(cell: Cell) -> tuple[dict[str, object], pd.DataFrame]:
        if cell.sampler == REAL:
            images, ids, cost = fit_images, [f"fit-{i:05d}" for i in range(len(fit_images))], {}
        else:
            images, frame = read_pictures(generated / f"{cell.key}.parquet")
            ids, cost = frame["id"].tolist(), load_cost(generated, cell)
        metrics: dict[str, float | None] = {}
        for judge in judges:
            features, distances = judge.distances(images, params.evaluate.draws, params.seed)
            metrics |= distances
            if judge is judges[0]:
                shared, values = _shared(judge, features)
        metrics |= shared
        raw = extract(Pixels(), images)
        metrics["novelty_pixels"] = novelty(raw, pixels[1], pixels[0])
        metrics["copies_pixels"] = copy_fraction(raw, pixels[1], pixels[0])
        metrics["acceptance"] = accepted.get(cell.key)
        metrics["calls"] = cost.get("calls")
        metrics["seconds"] = cost.get("seconds")
        table = pd.DataFrame({"id": ids, "level": cell.level, "sampler": cell.sampler, **values})
        return _row(params, model, domain, cell, len(images), metrics), table

    cells = [Cell(0, REAL), *each_cell(params)]
    found = run.map(measure, cells, name=lambda cell: f"{model}/{domain}/{cell.key}")
    rows = [row for row, _ in found]
    write_json(PATHS.metrics(model, domain, "json"), {"cells": rows})
    write_frame(PATHS.metrics(model, domain, "parquet"), pd.concat([t for _, t in found]))
    flat = pd.DataFrame([{**{k: row[k] for k in ("level", "sampler", "n")}, **row["metrics"]}
                         for row in rows])
    flat.to_csv(PATHS.metrics(model, domain, "csv"), index=False, float_format="%.6g")
    return {"cells": len(rows), "held_out": len(held_out)}


def _shared(judge: _Judge, features: Tensor) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return what the first extractor says of a set, and of each image."""
    inside = judge.probe.in_target(features)
    share = wilson(int(inside.sum()), len(features))
    same = min(len(features), len(judge.held_out))
    precision, recall = precision_recall(judge.held_out[:same], features[:same])
    distance, _ = nearest(features, judge.fit)
    metrics = {
        "in_target": share.value, "in_target_low": share.low, "in_target_high": share.high,
        "novelty": novelty(features, judge.held_out, judge.fit),
        "copies": copy_fraction(features, judge.held_out, judge.fit),
        # With few held-out images more than 1 % of them lie below their own 1 % quantile.
        "copies_held_out": copy_fraction(judge.held_out, judge.held_out, judge.fit),
        "diversity": diversity(features, judge.held_out),
        "precision": precision, "recall": recall,
    }
    return metrics, {"nearest_fit_feature": distance.tolist(),
                     "target_log_odds": judge.probe.log_odds(features).tolist()}


def _row(
    params: Params, model: str, domain: str, cell: Cell, count: int, metrics: dict[str, object]
) -> dict[str, object]:
    """Return a cell as the metrics file, the table and MLflow have it."""
    sampler = params.samplers.get(cell.sampler)
    sheet = PATHS.generated(model, domain) / f"{cell.key}.png"
    return {
        "model": model, "domain": domain, "level": cell.level, "sampler": cell.sampler,
        "n": count, "settings": sampler.settings() if sampler else {}, "metrics": metrics,
        "sheet": None if cell.sampler == REAL else sheet.as_posix(),
    }
