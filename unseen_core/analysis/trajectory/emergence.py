"""When the principal modes of the seen domain appear in the predicted image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import Level

__all__ = ["Spectrum", "emergence_level", "half_levels", "level_of", "mode_groups",
           "predicted_levels", "rank_correlation"]

_SINGLE = 16  # Leading modes that are groups of their own.
_LEAST = 1e-9  # Shares are kept this far from 0 and 1, where log odds have no end.


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The principal modes of an image law, the largest variance first.

    Attributes:
        mean: Float64 (d,).
        directions: Orthonormal columns, float64 (d, r).
        variances: Clean variance along each, remainder included, float64 (r,).
        remainder: Variance along any direction outside their span.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    remainder: float

    @classmethod
    def of(cls, law: Gaussian) -> "Spectrum":
        """Return the modes of a law.

        Raises:
            UnseenError: A law without a factor, or with a variance per coordinate beside one.
        """
        directions, energies = law.modes()
        if not len(energies):
            raise UnseenError("the source law has no principal modes; fit it with kind low-rank")
        remainder = law.diagonal.max()
        return cls(law.mean, directions, energies + remainder, remainder.item())

    def coordinates(self, x: Tensor) -> Tensor:
        """Return deviations from the mean along the modes, float64 (..., r), of ``x`` (..., d)."""
        return (x.double() - self.mean) @ self.directions

    def off_span(self, noise: Tensor) -> Tensor:
        """Return unit vectors (n, d) outside the span of the modes, from noise (n, d)."""
        x = noise.double()
        x = x - x @ self.directions @ self.directions.T
        return x / x.norm(dim=1, keepdim=True)


def mode_groups(count: int) -> list[range]:
    """Return groups of mode indices: sixteen leading ones alone, then ever wider ones.

    A group holds about a quarter as many modes as lie before it: single modes far down the
    spectrum hold too little to be measured over some tens of runs.
    """
    groups, start = [range(i, i + 1) for i in range(min(_SINGLE, count))], _SINGLE
    while start < count:
        end = min(count, start + start // 4)
        groups.append(range(start, end))
        start = end
    return groups


def level_of(sigma: float, schedule: Schedule) -> float:
    """Return the level with this noise over signal, between levels by log sigma, in 1..T."""
    return float(np.interp(np.log(sigma), *_logs(schedule)))


def emergence_level(variance: float, schedule: Schedule) -> float:
    """Return the level at which half of a mode's final energy is in the predicted image.

    sigma² = λ, that is alpha_bar = 1 / (1 + λ)  (Wang & Vastola, arXiv 2303.02490).

    Args:
        variance: λ > 0, the clean variance along the mode.
        schedule: The network's.
    """
    return level_of(variance**0.5, schedule)


def predicted_levels(
    variances: Tensor, groups: Sequence[Sequence[int]], schedule: Schedule
) -> list[float]:
    """Return the level at which each group of modes has half of its final energy.

    In the predicted image a mode's energy is λ / (λ + sigma²) of its final one, and final energies
    are as the variances. Of a single mode this is ``emergence_level``.

    Args:
        variances: λ > 0 of every mode, (r,).
        groups: Indices of modes.
        schedule: The network's.
    """
    levels = range(schedule.top, 0, -1)
    noise = schedule.sigma(levels).square()[:, None]
    curves = torch.stack([(v.square() / (v + noise)).sum(1)
                          for v in (variances[list(group)] for group in groups)], 1)
    final = torch.stack([variances[list(group)].sum() for group in groups])
    return half_levels(curves / final, levels, schedule)


def half_levels(
    shares: Tensor, levels: Sequence[Level], schedule: Schedule
) -> list[float]:
    """Return the level from which on, downwards, a share stays at one half or more.

    Between nodes the log odds of the share are taken as linear in log sigma, as those of a single
    mode are in the Gaussian model: log λ - 2 log sigma. A coarse grid then costs nothing there.

    Args:
        shares: Energy over final energy, (nodes, groups).
        levels: Level of each node, 1 or higher, falling.
        schedule: Gives sigma.

    Returns:
        Per group a level in 1..T; the first where the share is never below one half, 1 where it
        is still below at the last.
    """
    log_sigma, table = schedule.sigma(levels).log().numpy(), _logs(schedule)
    found = []
    for curve in shares.double().clamp(_LEAST, 1 - _LEAST).logit().T.numpy():
        below = np.flatnonzero(curve < 0)
        if not len(below):
            found.append(float(levels[0]))
        elif below[-1] == len(curve) - 1:
            found.append(1.0)
        else:
            i = below[-1]
            part = curve[i] / (curve[i] - curve[i + 1])
            between = log_sigma[i] + part * (log_sigma[i + 1] - log_sigma[i])
            found.append(float(np.interp(between, *table)))
    return found


def rank_correlation(
    x: Sequence[float], y: Sequence[float], *, draws: int = 1000, seed: int = 0
) -> Interval:
    """Return Spearman's rank correlation with its 95 % bootstrap interval over the pairs.

    Args:
        x, y: Paired numbers, three or more.
        draws: Bootstrap draws.
        seed: Their seed.

    Raises:
        UnseenError: If there are fewer than three pairs.
    """
    if len(x) != len(y) or len(x) < 3:
        raise UnseenError(f"a rank correlation of {len(x)} and {len(y)} numbers; give three or "
                          "more pairs")
    pairs = np.array([x, y])
    rows = np.random.default_rng(seed).integers(len(x), size=(draws, len(x)))
    low, high = np.quantile(_spearman(pairs[:, rows]), [0.025, 0.975])
    return Interval(float(_spearman(pairs)), float(low), float(high))


def _logs(schedule: Schedule) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """Return log sigma of every level from 1, and the levels."""
    levels = range(1, schedule.top + 1)
    return schedule.sigma(levels).log().numpy(), np.array(levels)


def _spearman(pairs: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rank correlation along the last axis of (2, ..., n); 0 where one side is constant."""
    ranks = rankdata(pairs, axis=-1)
    ranks = ranks - ranks.mean(-1, keepdims=True)
    scale = np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))
    return (ranks[0] * ranks[1]).sum(-1) / np.where(scale > 0, scale, 1)
