"""How far signal leaks, laws of noised clean images, are from the law of inverted ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.analysis.latents.prior_gap import frequency_bands
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.fitting import Kind
from unseen_core.laws.frequency import dct
from unseen_core.laws.gaussian import Gaussian

__all__ = ["LeakGap", "Twin", "band_variances", "leak_gap"]

_DENSE = 4096  # Largest d for which the distance is computed: it holds several (d, 2 n) in float64.
_LEAKS: dict[str, Kind] = {"pixel": "diagonal", "dct": "dct"}


@dataclass(frozen=True)
class Twin:
    """One kind of leak beside the prior that is fitted to latents.

    Attributes:
        nats: Held-out log-likelihood of latents under the leak, per dimension.
        gap: That under the fitted prior less that under the leak, per dimension.
        gap_sd: Standard error of ``gap`` over latents.
        variance_ratio: Variance of latents over the leak's in each band.
    """

    nats: float
    gap: float
    gap_sd: float
    variance_ratio: tuple[float, ...]


@dataclass(frozen=True)
class LeakGap:
    """What `leak_gap` found at a level.

    Attributes:
        level: The level.
        latents: Number of latents.
        rank: Frequencies kept per channel by the leak ``dct``.
        prior_nats: Held-out log-likelihood of latents under the prior fitted to latents, per
            dimension.
        leaks: By name, ``pixel`` and ``dct``.
        bands: Edges [low, high) of each band, in half cycles per image side.
        frechet: Squared Fréchet distance per dimension between the shrunk law of latents and that
            of their images, noised in closed form; None above 4,096 dimensions.
        frechet_noise: The same between two halves of the latents: what sampling alone makes.
    """

    level: int
    latents: int
    rank: int
    prior_nats: float
    leaks: dict[str, Twin]
    bands: tuple[tuple[float, float], ...]
    frechet: float | None
    frechet_noise: float | None

    def summary(self) -> dict[str, object]:
        """Return a JSON-able description."""
        return {
            "level": self.level, "latents": self.latents, "rank": self.rank,
            "nats_per_dimension": {"prior": self.prior_nats, **{
                name: {"value": twin.nats, "gap": twin.gap, "sd": twin.gap_sd}
                for name, twin in self.leaks.items()}},
            "bands": [{"low": low, "high": high, **{name: twin.variance_ratio[band]
                                                   for name, twin in self.leaks.items()}}
                      for band, (low, high) in enumerate(self.bands)],
            "frechet_per_dimension": {"value": self.frechet, "noise": self.frechet_noise},
        }


def leak_gap(
    latents: Tensor, images: Tensor, schedule: Schedule, level: int, *, rank: int = 6, seed: int = 0
) -> LeakGap:
    """Compare inverted latents with the leaks that are their closed-form twins.

    A leak is the law N(a mu, a^2 Sigma + s^2 I) with mean and covariance of clean images, Sigma a
    variance per pixel or low DCT frequencies with a remainder (arXiv 2309.15842). Likelihoods are
    cross-fitted: laws of one half judge the latents of the other, both ways round. The fitted
    prior is of kind ``shrunk``; `prior_gap` has the leak of that kind.

    Args:
        latents: Inverted images, shape (n, c, h, w), n >= 8.
        images: Their clean images in [-1, 1], row by row, same shape.
        schedule: The network's schedule.
        level: Level of the latents, 1..T.
        rank: Frequencies kept per channel by the leak ``dct``; never more than there are.
        seed: Seed of the halves.

    Raises:
        UnseenError: If shapes differ, the level or rank is out of range, there are too few
            latents, or values are not finite.
    """
    schedule.check_level(level)
    n, shape = len(latents), tuple(latents.shape[1:])
    if latents.ndim != 4 or latents.shape != images.shape or n < 8:
        raise UnseenError(f"leak gap: latents {tuple(latents.shape)} and images "
                          f"{tuple(images.shape)}; give (n, c, h, w) of the same 8 images or more")
    rank = min(rank, shape[1] * shape[2])
    x, clean = latents.flatten(1).double().cpu(), images.flatten(1).double().cpu()

    def noised(rows: Tensor, kind: Kind) -> Gaussian:
        return Gaussian.fit(clean[rows], kind=kind, rank=rank, shape=shape).at(schedule, level)

    parts = Streams(seed, "leak gap/halves", ["all"]).choose(n, n)[0].tensor_split(2)
    prior, leaks = x.new_empty(n), {name: x.new_empty(n) for name in _LEAKS}
    halves = []
    for fit, test in (parts, parts[::-1]):
        halves.append(Gaussian.fit(x[fit], kind="shrunk"))
        prior[test] = halves[-1].log_prob(x[test]) / x.shape[1]
        for name, kind in _LEAKS.items():
            leaks[name][test] = noised(fit, kind).log_prob(x[test]) / x.shape[1]
    every = torch.arange(n)
    edges, index = frequency_bands(*shape[1:])
    measured = band_variances(Gaussian.fit(x, kind="empirical"), shape, index)
    twins = {}
    for name, kind in _LEAKS.items():
        gap = prior - leaks[name]
        ratio = measured / band_variances(noised(every, kind), shape, index)
        twins[name] = Twin(leaks[name].mean().item(), gap.mean().item(),
                           (gap.std() / n**0.5).item(), tuple(ratio.tolist()))
    distance = noise = None
    if x.shape[1] <= _DENSE:
        whole = Gaussian.fit(x, kind="shrunk")
        distance = whole.distance(noised(every, "shrunk")) / x.shape[1]
        noise = halves[0].distance(halves[1]) / x.shape[1]
    return LeakGap(level, n, rank, prior.mean().item(), twins, edges, distance, noise)


def band_variances(law: Gaussian, shape: tuple[int, ...], index: Tensor) -> Tensor:
    """Return a law's mean variance per DCT-II coefficient in each band, float64 (bands,).

    Args:
        law: Of d = c h w numbers.
        shape: (c, h, w).
        index: Band of every coefficient, int64 (h, w), as `frequency_bands` gives it.
    """
    c, h, w = shape
    waves = dct(law.factor.T.reshape(-1, c, h, w)).square().sum((0, 1))
    # Of independent pixels, a coefficient's variance is the mean over its squared wave.
    down, across = (dct(torch.eye(k, dtype=torch.float64).reshape(k, *form)).flatten(1).square()
                    for k, form in ((h, (h, 1)), (w, (1, w))))
    pixels = law.diagonal.expand(c * h * w).reshape(c, h, w).sum(0)
    waves = waves + down.T @ pixels @ across
    sums = waves.new_zeros(int(index.max()) + 1).index_add_(0, index.flatten(), waves.flatten())
    return sums / (c * index.flatten().bincount())
