"""Is the best cell closer to held-out images than its peers? Paired bootstrap on the last run.

The intervals in compare.csv each hold the chance of the held-out images, which all cells share.
Here both cells of a pair are measured against the same resampled held-out images, so that chance
cancels: the interval is that of KD(peer) - KD(best) on the features that judge the run, and it
excludes 0 where the difference is more than chance.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, circumstances, write_result
from torch import Tensor

from flows.cells import Cell
from flows.extractors import first_extractor, metric_names
from flows.params import Params, load_params
from flows.paths import PATHS
from unseen_core.features import extract
from unseen_core.store import read_pictures

__all__ = ["paired_interval"]


def paired_interval(a: Tensor, b: Tensor, real: Tensor, draws: int = 2000) -> tuple[float, ...]:
    """Return KD(a, real) - KD(b, real) and its 95 % bootstrap interval, ``real`` shared.

    The term within the real images cancels; pairs of one original image weigh nothing, as in
    ``unseen_core.metrics.kernel_distance``.
    """
    both = torch.cat([a, b, real]).double()
    gram = (both @ both.T / both.shape[1] + 1) ** 3
    mean = gram.mean(0)
    gram = gram - mean - mean[:, None] + mean.mean()
    n, m = len(a), len(b)
    random = np.random.default_rng(0)

    def weights(count: int) -> Tensor:
        drawn = random.multinomial(count, np.full(count, 1 / count), draws)
        return torch.from_numpy(np.vstack([np.ones(count), drawn])).double()

    u = weights(len(real))

    def half(rows: slice, count: int) -> Tensor:
        w = weights(count)
        within = gram[rows, rows].clone().fill_diagonal_(0)
        # Row 0 is the data itself, n (n - 1) pairs; a draw has (n - 1)^2 of them on average.
        pairs = torch.full((draws + 1,), float((count - 1) ** 2)).double()
        pairs[0] = count * (count - 1)
        across = ((w @ gram[rows, n + m :]) * u).sum(1) / (count * len(real))
        return ((w @ within) * w).sum(1) / pairs - 2 * across

    difference = half(slice(0, n), n) - half(slice(n, n + m), m)
    low, high = np.quantile(difference[1:].numpy(), [0.025, 0.975])
    return difference[0].item(), float(low), float(high)


def _peers(params: Params, rows: list[dict[str, object]], kernel: str, new: float) -> list[Cell]:
    """Return each plain sampler's closest cell, and the closest model-free one that is as new."""
    cells = []
    plain = [name for name, s in params.samplers.items() if s.sampler in ("noise", "prior")
             and s.space == "latents"]
    free = [name for name, s in params.samplers.items() if s.space == "pixels"]
    groups = [[r for r in rows if r["sampler"] == name] for name in plain]
    groups.append([r for r in rows if r["sampler"] in free and r["metrics"]["novelty"] >= new])
    for group in groups:
        if group:
            closest = min(group, key=lambda r: r["metrics"][kernel])
            cells.append(Cell(closest["level"], closest["sampler"]))
    return cells


def main() -> None:
    """Compare every best cell of data/report/best.json with its peers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "claims.json")
    out = parser.parse_args().out
    params = load_params()
    judge = first_extractor(params)
    kernel, _ = metric_names(judge.name)
    found: dict[str, object] = {}
    for key, best in json.loads((PATHS.report / "best.json").read_text()).items():
        model, _, domain = key.partition("/")

        def features(cell: Cell, model: str = model, domain: str = domain) -> Tensor:
            return extract(judge, read_pictures(
                PATHS.generated(model, domain) / f"{cell.key}.parquet")[0])

        real = extract(judge, read_pictures(PATHS.domain(domain) / "held_out.parquet")[0])
        rows = json.loads(PATHS.metrics(model, domain, "json").read_text())["cells"]
        mine = Cell(best["level"], best["sampler"])
        print(f"{key}: {mine.key}")
        found[key] = {"best": mine.key, "peers": {}}
        for peer in _peers(params, rows, kernel, best["novelty"]):
            value, low, high = paired_interval(features(peer), features(mine), real)
            found[key]["peers"][peer.key] = {"difference": value, "low": low, "high": high}
            print(f"  {kernel} of {peer.key} less its own: {value:.3f} ({low:.3f} to {high:.3f})")
    write_result(out, {**circumstances("cpu"), "kernel": kernel, "pairs": found})


if __name__ == "__main__":
    main()
