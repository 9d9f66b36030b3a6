"""How much fresh noise an inverted image bears on its way down before its content is lost."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval

__all__ = ["bandwidth"]


def bandwidth(
    etas: Sequence[float],
    kept: NDArray[np.floating],
    *,
    share: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the largest eta at which the kept content is still ``share`` of that at eta = 0.

    The *bandwidth* of arXiv 2310.09213 is the stochasticity eta (arXiv 2010.02502, eq. 16) that
    an inverted unseen image bears; the paper reads it off by hand. Here the mean of ``kept`` is
    made to fall with eta by its running minimum, and the crossing of ``share`` times its first
    value is interpolated linearly. It is the last eta where nothing crosses.

    For a Gaussian model and a fine grid a deviation with signal share kappa = a^2 lambda /
    (a^2 lambda + s^2) is kept by kappa^(eta^2 / 2), so its bandwidth is
    sqrt(2 ln share / ln kappa).

    Args:
        etas: Increasing from 0, at least two.
        kept: Content kept of each image at each eta, shape (len(etas), n), for instance 1 where
            an image is still in the target domain, or a correlation with the original.
        share: Of the mean at eta = 0, in 0..1.
        draws: Bootstrap draws over images for the 95 % interval.

    Raises:
        UnseenError: If the etas do not increase from 0, or shapes disagree.
    """
    grid, values = np.asarray(etas, float), np.asarray(kept, float)
    if len(grid) < 2 or grid[0] != 0 or (np.diff(grid) <= 0).any():
        raise UnseenError(f"etas {list(etas)} must increase from 0; list at least two")
    if values.ndim != 2 or len(values) != len(grid) or not values.shape[1]:
        raise UnseenError(f"kept has shape {values.shape}; give (number of etas, images)")
    rows = np.random.default_rng(seed).integers(values.shape[1], size=(draws, values.shape[1]))
    resampled = values[:, rows].mean(2).T  # (draws, etas)
    found = np.array([_crossing(grid, curve, share) for curve in resampled])
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(_crossing(grid, values.mean(1), share), float(low), float(high))


def _crossing(grid: NDArray[np.floating], curve: NDArray[np.floating], share: float) -> float:
    """Return where the running minimum of a curve falls below ``share`` of its first value."""
    falling = np.minimum.accumulate(curve)
    below = np.flatnonzero(falling < share * curve[0])
    if not len(below):
        return float(grid[-1])
    after = below[0]
    before = after - 1
    drop = falling[before] - falling[after]
    part = (falling[before] - share * curve[0]) / drop
    return float(grid[before] + part * (grid[after] - grid[before]))
