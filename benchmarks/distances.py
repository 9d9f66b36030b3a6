"""Fréchet and kernel distances beside clean-fid, torch-fidelity and pytorch-fid, on equal features.

    python benchmarks/distances.py [--large 10000]

Features of 2,048 numbers, as Inception has: correlated, the second set shifted. Every library gets
the same float64 rows and works from there: means, covariances and the distance. Kernel distances
are over all pairs, one subset as large as the set; ours without the draws of its interval.
Agreement is the relative difference of the other library's value from ours.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cleanfid import fid as cleanfid
from common import RESULTS, circumstances, side_by_side, write_result
from pytorch_fid import fid_score
from torch import Tensor
from torch_fidelity import metric_fid, metric_kid

from unseen_core.judging.metrics import frechet_distance, kernel_distance

WIDTH, SMALL = 2048, 500


def features(count: int, shift: float, seed: int) -> Tensor:
    """Return correlated features, float64 (count, 2048)."""
    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    x = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)).double()
    return x @ mixing / WIDTH**0.5 + shift


def frechet(x: Tensor, y: Tensor) -> dict[str, Callable[[], float]]:
    """Return each library's Fréchet distance."""
    def torch_fidelity() -> float:
        laws = (metric_fid.fid_features_to_statistics(z) for z in (x, y))
        return next(iter(metric_fid.fid_statistics_to_metric(*laws, verbose=False).values()))

    def pytorch_fid() -> float:
        laws = [part for z in (x.numpy(), y.numpy())
                for part in (z.mean(axis=0), np.cov(z, rowvar=False))]
        return float(fid_score.calculate_frechet_distance(*laws))

    return {"unseen": lambda: frechet_distance(x, y),
            "clean-fid": lambda: float(cleanfid.fid_from_feats(x.numpy(), y.numpy())),
            "torch-fidelity": torch_fidelity, "pytorch-fid": pytorch_fid}


def kernel(x: Tensor, y: Tensor) -> dict[str, Callable[[], float]]:
    """Return each library's kernel distance over all pairs; pytorch-fid has none."""
    def torch_fidelity() -> float:
        found = metric_kid.kid_features_to_metric(
            x, y, kid_subsets=1, kid_subset_size=len(x), kid_kernel="poly",
            kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0,
            rng_seed=0, verbose=False)
        return next(iter(found.values()))

    def clean_fid() -> float:
        return cleanfid.kernel_distance(x.numpy(), y.numpy(), num_subsets=1,
                                        max_subset_size=len(x))

    return {"unseen": lambda: kernel_distance(x, y, draws=0).value, "clean-fid": clean_fid,
            "torch-fidelity": torch_fidelity}


def main() -> None:
    """Measure both distances at both sizes and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "distances.json")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    side_by_side(frechet(features(50, 0.0, 1)[:, :50], features(50, 0.1, 2)[:, :50]), 1)  # warm
    for count in (SMALL, options.large):
        x, y = features(count, 0.0, 1), features(count, 0.05, 2)
        for name, ways in (("Fréchet", frechet(x, y)), ("kernel", kernel(x, y))):
            seconds, values = side_by_side(ways, repeats=1)
            ours = seconds["unseen"]["median"]
            for way, took in seconds.items():
                rows.append({"distance": name, "n": count, "way": way, "seconds": took,
                             "ratio": took["median"] / ours,
                             "difference": abs(values[way] / values["unseen"] - 1)})
                print(f"{name:8} n={count:6} {way:15} {took['median']:9.3f} s, "
                      f"{rows[-1]['ratio']:7.1f} times ours, value {values[way]:.6f}", flush=True)
    write_result(options.out, {**circumstances("cpu"), "width": WIDTH, "rows": rows})


if __name__ == "__main__":
    main()
