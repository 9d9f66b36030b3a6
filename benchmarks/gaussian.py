"""Fitting a Gaussian to few latents of many dimensions, drawing from it, its density.

    python benchmarks/gaussian.py [--references 1000] [--size 256] [--draws 5000]

At 32 x 32 (3,072 dimensions, 1,000 latents) scikit-learn and NumPy do the same work, with a matrix
of 3,072 x 3,072: Ledoit-Wolf's fit, draws by a Cholesky factor, the mean log-density of 200 more.
At 256 x 256 (196,608) that matrix would take 309 GB; PCA is what scikit-learn can do there. Ours
reads the latents from a store on disk (float16, as `invert` writes them), block by block; draws are
made in parts of 250 and not kept. Memory is what a process of its own takes above its libraries,
beside the latents' size in float32.
"""

import argparse
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from common import (
    RESULTS,
    STORED,
    apart,
    circumstances,
    side_by_side,
    write_result,
    write_store,
)
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.laws.blends import BlendGaussian
from unseen_core.laws.references import References
from unseen_core.store import TensorStore

TOGETHER, TESTED = 250, 100


@dataclass(frozen=True)
class Took:
    """Seconds of each step of one process."""

    fit: float
    draw: float
    density: float


def latents(count: int, dimension: int, seed: int) -> Tensor:
    """Return correlated states off the origin, float32 (count, dimension)."""
    strong = torch.randn(20, dimension, generator=torch.Generator().manual_seed(0)) / 8
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, dimension, generator=generator)
    return x.addmm_(torch.randn(count, 20, generator=generator), strong).add_(0.2)


def streams(count: int, first: int = 0) -> Streams:
    """Return a stream for each draw."""
    return Streams(0, "gaussian", [str(first + i) for i in range(count)])


def ours(store: Path, draws: int) -> Took:
    """Fit the shrunk law to a store, draw, and take the density of new states."""
    began = perf_counter()
    law = BlendGaussian.fit(References.stored(TensorStore(store), STORED), kind="shrunk")
    fitted = perf_counter()
    for first in range(0, draws, TOGETHER):
        law.sample(streams(min(TOGETHER, draws - first), first))
    drawn = perf_counter()
    law.log_prob(latents(TESTED, law.references.dimension, 2))
    return Took(fitted - began, drawn - fitted, perf_counter() - drawn)


def pca(store: Path) -> float:
    """Return the seconds of scikit-learn's PCA of a store, read first."""
    opened = TensorStore(store)
    x = opened.all(STORED).flatten(1).numpy()
    began = perf_counter()
    PCA(n_components=len(x) - 1, svd_solver="full").fit(x)
    return perf_counter() - began


def beside_sklearn(count: int, draws: int) -> dict[str, object]:
    """Return seconds and agreement at 3 x 32 x 32, where scikit-learn can run."""
    x, more = (latents(n, 3072, seed).double() for n, seed in ((count, 1), (200, 2)))
    law, peer = BlendGaussian.fit(References.of(x), kind="shrunk"), LedoitWolf().fit(x.numpy())
    random = np.random.default_rng(0)
    seconds = {
        "fit": side_by_side({
            "unseen": lambda: BlendGaussian.fit(References.of(x), kind="shrunk"),
            "scikit-learn": lambda: LedoitWolf().fit(x.numpy())}, repeats=2)[0],
        "draw": side_by_side({
            "unseen": lambda: law.sample(streams(draws)),
            "NumPy": lambda: random.multivariate_normal(
                peer.location_, peer.covariance_, draws, method="cholesky")}, repeats=3)[0],
        "density": side_by_side({"unseen": lambda: law.log_prob(more),
                                 "scikit-learn": lambda: peer.score(more.numpy())}, repeats=3)[0]}
    covariance = law.dense()
    dense = covariance.factor @ covariance.factor.T + covariance.diagonal * torch.eye(3072)
    return {"seconds": seconds, "draws": draws, "difference": {
        "covariance": (dense - torch.from_numpy(peer.covariance_)).abs().max().item(),
        "mean log-density": abs(law.log_prob(more).mean().item()
                                / float(peer.score(more.numpy())) - 1)}}


def main() -> None:
    """Measure both sizes and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--references", type=int, default=1000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=RESULTS / "gaussian.json")
    options = parser.parse_args()
    small = beside_sklearn(options.references, 1000)
    print(small)
    with tempfile.TemporaryDirectory() as name:
        x = latents(options.references, 3 * options.size**2, 1)
        size = x.nbytes
        store = write_store(Path(name), x.view(-1, 3, options.size, options.size), "float16")
        del x
        took, peak = apart(ours, store, options.draws)
        print(took, f"{peak / size:.2f} times the latents' size", flush=True)
        theirs, theirs_peak = apart(pca, store)
        print(f"PCA {theirs:.1f} s, {theirs_peak / size:.2f} times the latents' size")
    write_result(options.out, {
        **circumstances("cpu"), "references": options.references, "small": small, "large": {
            "size": options.size, "latent_bytes": size, "draws": options.draws,
            "tested": TESTED, "seconds": asdict(took), "peak_bytes": peak,
            "scikit-learn PCA": {"seconds": theirs, "peak_bytes": theirs_peak}}})


if __name__ == "__main__":
    main()
