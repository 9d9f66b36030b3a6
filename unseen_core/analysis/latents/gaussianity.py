"""Are inverted latents normal? Lengths, coordinates, random projections, principal components."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from unseen_core.analysis.latents.gram import Moments, centre, column_blocks, gram
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError

__all__ = ["Gaussianity", "gaussianity"]

_LEVEL = 0.05
_DIRECTIONS = 64  # Random directions held at a time.
_FEWEST, _MOST = 16, 5000  # Shapiro-Wilk is calibrated up to 5000 (Royston 1995).


@dataclass(frozen=True, eq=False)
class Gaussianity:
    """What `gaussianity` found.

    Attributes:
        moments: Estimated moments of the law.
        norms: |x|, float64 (n,).
        expected_norm: What a Gaussian with these moments has, sqrt(|m|² + tr Σ).
        expected_norm_sd: Its spread, sqrt(2 tr Σ² + 4 mᵀ Σ m) / (2 expected_norm).
        coordinates: ``mean``, ``variance``, ``skew`` and ``kurtosis`` (excess) per dimension,
            float64 (d,); the last two hold 0 where a coordinate does not vary.
        participation: (tr S)² / tr S² of the sample; about n - 1 at most, however large the
            effective rank of the law, which is ``moments.effective_rank``.
        projection_p: Shapiro-Wilk p-values on random directions, float64 (projections,).
        component_p: The same on cross-fitted principal components, float64 (2, components), one
            row per half of the latents, leading component first.
    """

    moments: Moments
    norms: Tensor
    expected_norm: float
    expected_norm_sd: float
    coordinates: Mapping[str, Tensor]
    participation: float
    projection_p: Tensor
    component_p: Tensor

    def summary(self) -> dict[str, object]:
        """Return a JSON-able description; shares of rejections are at 5 %."""
        n = self.moments.count
        return {
            "count": n,
            "dimension": self.moments.dimension,
            "norm": {"mean": self.norms.mean().item(), "sd": self.norms.std().item(),
                     "sqrt_d": self.moments.dimension**0.5,
                     "gaussian_mean": self.expected_norm, "gaussian_sd": self.expected_norm_sd},
            "coordinates": {name: _describe(values)
                            for name, values in self.coordinates.items()},
            # What a normal coordinate's sample has (Fisher 1930).
            "normal_coordinate": {
                "skew_sd": (6 * (n - 2) / ((n + 1) * (n + 3))) ** 0.5,
                "kurtosis_mean": -6 / (n + 1),
                "kurtosis_sd": (24 * n * (n - 2) * (n - 3)
                                / ((n + 1) ** 2 * (n + 3) * (n + 5))) ** 0.5},
            "projections": _rejected(self.projection_p),
            "components": _rejected(self.component_p),
            "effective_rank": {"sample": self.participation,
                               "debiased": self.moments.effective_rank},
        }


def gaussianity(
    latents: Tensor, *, projections: int = 1000, components: int = 20, seed: int = 0
) -> Gaussianity:
    """Test latents against a Gaussian of their own mean and covariance.

    Shapiro-Wilk (1965, Biometrika 52:591) on random unit projections, and on the scores of
    principal components: the components of one random half of the latents, the scores of the
    other, and the reverse, so that no direction is fitted to the points it is tested on. Shares
    rejected are reported raw and after Benjamini & Hochberg (1995).

    What the projections can and cannot tell. Given the latents, their projections on a random
    direction are N(0, G) with G the centred Gram matrix. Where G is a multiple of the identity
    (equal lengths, right angles, as for n << effective rank) they are normal whatever the law
    of the latents (Diaconis & Freedman 1984, Ann. Stat. 12:793). They do see unequal lengths
    (heavy tails) and few dominant directions (clusters), not the shape of single coordinates,
    for which see skew and kurtosis. All projections share the n latents, so p-values are
    correlated: about min(n - 1, effective rank) of them are separate evidence, the raw share
    scatters around 5 % more than a binomial share, and Benjamini-Hochberg is a guide only. The
    principal components are fewer, nearly uncorrelated, and look where the variance is.

    Args:
        latents: Shape (n, ...), 16 <= n <= 5000.
        projections: Random directions, >= 1.
        components: Principal components, >= 1; no more than there are.
        seed: Seed of directions and halves.

    Raises:
        UnseenError: If an argument is out of range or the latents are not finite or all equal.
    """
    if not _FEWEST <= len(latents) <= _MOST:
        raise UnseenError(f"latents: normality of {len(latents)} is not tested; give {_FEWEST} to "
                          f"{_MOST}")
    if projections < 1 or components < 1:
        raise UnseenError(f"projections {projections}, components {components}: use at least 1")
    products = gram(latents)
    dimension = latents[0].numel()
    moments, inner = Moments.of(products, dimension), centre(products)
    radius = max(moments.mean_square + moments.trace, 0.0) ** 0.5
    sd = (2 * moments.trace_square + 4 * moments.mean_along) ** 0.5 / (2 * radius)
    return Gaussianity(
        moments, products.diagonal().sqrt(), radius, sd, _coordinates(latents),
        (inner.trace().square() / inner.square().sum()).item(),
        _shapiro(_project(latents, projections, seed)),
        _component_p(products, components, seed))


def _coordinates(latents: Tensor) -> dict[str, Tensor]:
    """Mean, unbiased variance, skew and excess kurtosis of every dimension."""
    found: dict[str, list[Tensor]] = {"mean": [], "variance": [], "skew": [], "kurtosis": []}
    for block in column_blocks(latents):
        mean, variance = block.mean(0), block.var(0, correction=0)
        varies = variance > 1e-20 * mean.square()
        standard = (block - mean) / variance.sqrt().where(varies, 1.0)
        found["mean"].append(mean)
        found["variance"].append(variance * len(block) / (len(block) - 1))
        square = standard.square()
        found["skew"].append((square * standard).mean(0).where(varies, 0.0))
        found["kurtosis"].append((square.square().mean(0) - 3).where(varies, 0.0))
    return {name: torch.cat(values) for name, values in found.items()}


def _project(latents: Tensor, projections: int, seed: int) -> Tensor:
    """Centred latents on random unit directions, (projections, n)."""
    streams = Streams(seed, "gaussianity/projection", [str(i) for i in range(projections)])
    rows = []
    for start in range(0, projections, _DIRECTIONS):
        part = streams[slice(start, start + _DIRECTIONS)]
        # At least 16 numbers a draw, see Streams.
        wide = part.normal(max(16, latents[0].numel()))[:, : latents[0].numel()].to(latents.device)
        directions = wide / wide.norm(dim=1, keepdim=True)
        blocks = zip(column_blocks(directions), column_blocks(latents), strict=True)
        rows.append(sum(w @ x.T for w, x in blocks))
    scores = torch.cat(rows)
    return scores - scores.mean(1, keepdim=True)


def _component_p(products: Tensor, components: int, seed: int) -> Tensor:
    """P-values of the scores of each half on the other half's principal components."""
    n = len(products)
    order = Streams(seed, "gaussianity/halves", ["all"]).choose(n, n)[0].to(products.device)
    halves = order[: n // 2], order[n // 2 :]
    found = []
    for fitted, tested in (halves, halves[::-1]):
        values, vectors = torch.linalg.eigh(centre(products[fitted][:, fitted]))
        kept = int((values > 1e-10 * values[-1]).sum())
        leading = vectors.flip(1)[:, : min(components, kept)]
        # Score of x on U = X_cᵀ ξ / |.|; ξ sums to 0, so neither half needs centring.
        found.append(_shapiro((products[tested][:, fitted] @ leading).T))
    width = min(len(p) for p in found)
    return torch.stack([p[:width] for p in found])


def _shapiro(rows: Tensor) -> Tensor:
    """Shapiro-Wilk p-value of every row."""
    return torch.from_numpy(stats.shapiro(rows.cpu().numpy(), axis=1).pvalue)


def _describe(values: Tensor) -> dict[str, float]:
    """Mean, median and 5 and 95 % of the coordinates."""
    low, median, high = values.quantile(values.new_tensor([0.05, 0.5, 0.95])).tolist()
    return {"mean": values.mean().item(), "median": median, "q05": low, "q95": high}


def _rejected(p: Tensor) -> dict[str, float]:
    """Number of tests and shares rejected at 5 %, raw and by Benjamini-Hochberg."""
    flat = p.flatten().numpy()
    adjusted = stats.false_discovery_control(flat)
    return {"tests": len(flat), "rejected": float((flat < _LEVEL).mean()),
            "rejected_bh": float((adjusted < _LEVEL).mean())}
