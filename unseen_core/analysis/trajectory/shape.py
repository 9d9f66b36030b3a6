"""The shape of denoising trajectories: how many dimensions, how much of a rotation they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.types import Level

__all__ = ["LAGS", "Residuals", "cosines", "dimension", "explained", "residuals"]

LAGS = (1, 2, 3, 4, 5, 10)
"""Distances in steps at which differences are compared (arXiv 2303.02490)."""
_ROUNDING = 1e-24  # Squared share of a vector's length below which it is the rounding of another.


@dataclass(frozen=True, eq=False)
class Residuals:
    """What is left of states outside simple pictures of a trajectory.

    Shares of squared lengths, float64 (nodes, n), in the order of the states.

    Attributes:
        plane: Of a state, outside the plane of first and last state.
        rotation: |x_k - r_k|² / |x_k|² with the rotation r_k = a_k x_0 + s_k x_T.
        size: |r_k| / |x_k|, not squared: above 1 where the rotation is too long.
        pair: Of the image x_0, outside the plane of x_T and x_k.
        span: Of the image x_0, outside the span of all states down to x_k.
        norm: |x_k|, not a share.
    """

    plane: Tensor
    rotation: Tensor
    size: Tensor
    pair: Tensor
    span: Tensor
    norm: Tensor


def explained(points: Tensor) -> Tensor:
    """Return the cumulative share of variance of centred points along their principal axes.

    Args:
        points: Shape (m, n, d): m points of each of n trajectories, m >= 2.

    Returns:
        float64 (n, m - 1), rising to 1.

    Raises:
        UnseenError: If there are fewer than two points, or those of a trajectory are all equal.
    """
    if points.ndim != 3 or len(points) < 2:
        raise UnseenError(f"points of shape {tuple(points.shape)}; give two or more points of each "
                          "trajectory, (m, n, d)")
    x = points.double().transpose(0, 1)
    x = x - x.mean(1, keepdim=True)
    values = torch.linalg.eigvalsh(x @ x.mT).flip(1)[:, :-1].clamp_min(0)
    if not (values[:, 0] > 0).all():
        raise UnseenError("a trajectory whose points are all equal has no dimension; give another "
                          "start")
    return values.cumsum(1) / values.sum(1, keepdim=True)


def dimension(shares: Tensor, share: float = 0.999) -> Tensor:
    """Return how many axes explain ``share`` of the variance, int64 (n,).

    Args:
        shares: From ``explained``, (n, axes).
        share: In 0..1.
    """
    return (shares < share).sum(1).clamp_max(shares.shape[1] - 1) + 1


def cosines(points: Tensor, lags: Sequence[int] = LAGS) -> dict[int, Tensor]:
    """Return the mean cosine between differences of consecutive points, by their lag.

    Args:
        points: Shape (m, n, d).
        lags: Distances in steps; those that m does not allow are left out.

    Returns:
        By lag, float64 (n,).
    """
    steps = points.double().diff(dim=0)
    steps = steps / steps.norm(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return {lag: (steps[lag:] * steps[:-lag]).sum(2).mean(0) for lag in lags if lag < len(steps)}


def residuals(states: Tensor, levels: Sequence[Level], schedule: Schedule) -> Residuals:
    """Compare states with the plane and the rotation of their ends (arXiv 2303.02490).

    State n belongs to ``levels[n]``, and the rotation takes the signal scale a = sqrt(alpha_bar):
    the two places where the published scripts slip.

    Args:
        states: Shape (nodes, n, d), from noise to images.
        levels: Level of each of them, falling to 0.
        schedule: Gives a and s.

    Raises:
        UnseenError: If levels and states disagree, or the levels do not fall to 0.
    """
    falls = all(high > low for high, low in pairwise(levels))
    if len(levels) != len(states) or not falls or levels[-1] != 0:
        raise UnseenError(f"{len(states)} states at levels {list(levels)}; give one level per "
                          "state, falling to 0")
    x = states.double()
    start, image = x[0], x[-1]
    a, s = (f(levels)[:, None, None] for f in (schedule.a, schedule.s))
    turned = a * image + s * start
    squares = x.square().sum(2)
    return Residuals(
        plane=_outside(x, start, image),
        rotation=(x - turned).square().sum(2) / squares,
        size=turned.norm(dim=2) / squares.sqrt(),
        pair=_outside(image, start, x),
        span=_outside_all(image, x),
        norm=squares.sqrt(),
    )


def _outside(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the share of |x|² outside the span of two vectors, over all but the last axis."""
    one = first / first.norm(dim=-1, keepdim=True)
    rest = second - (second * one).sum(-1, keepdim=True) * one
    # Twice: what rounding leaves along the first is large against a small rest.
    rest = rest - (rest * one).sum(-1, keepdim=True) * one
    square = rest.square().sum(-1, keepdim=True)
    real = square > _ROUNDING * second.square().sum(-1, keepdim=True)
    other = (rest / square.sqrt().where(real, 1.0)).where(real, 0.0)
    left = x - (x * one).sum(-1, keepdim=True) * one
    left = left - (left * other).sum(-1, keepdim=True) * other
    return left.square().sum(-1) / x.square().sum(-1)


def _outside_all(image: Tensor, x: Tensor) -> Tensor:
    """Return the share of |image|² outside the span of the first 1, 2, ... states, (nodes, n)."""
    basis = torch.linalg.qr(x.permute(1, 2, 0)).Q  # column j completes the first j + 1 states
    along = (basis.mT @ image[..., None])[..., 0].square().cumsum(1)
    return (1 - along / image.square().sum(1, keepdim=True)).clamp_min(0).T
