"""Variations of one image along the principal directions of its own denoising trajectory."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError

__all__ = ["Axes", "principal_axes", "random_axes", "variations"]


@dataclass(frozen=True, eq=False)
class Axes:
    """Orthonormal directions in image space, and how far the trajectory reaches along each.

    Attributes:
        directions: Float64 (q, c, h, w).
        variances: Of the trajectory along them, (q,), largest first.
        total: Variance of the whole trajectory.
    """

    directions: Tensor
    variances: Tensor
    total: float

    def __post_init__(self) -> None:
        """Refuse directions without a variance each."""
        if self.directions.ndim != 4 or self.variances.shape != self.directions.shape[:1]:
            raise UnseenError(f"axes: directions {tuple(self.directions.shape)} and variances "
                              f"{tuple(self.variances.shape)} must be (q, c, h, w) and (q,)")


def principal_axes(estimates: Tensor, count: int) -> Axes:
    """Return the principal directions of one generation's clean estimates (arXiv 2303.02490).

    Args:
        estimates: What the network took one image to be at each level, (k, c, h, w), k >= 3;
            ``clean`` of ``unseen_core.analysis.trajectory.Trajectory``.
        count: Directions wanted, fewer than k.

    Raises:
        UnseenError: If there are too few estimates.
    """
    if estimates.ndim != 4 or not 1 <= count < len(estimates):
        raise UnseenError(f"axes: {count} directions of estimates {tuple(estimates.shape)}; use a "
                          "grid of more steps, and fewer directions than steps")
    centred = (estimates - estimates.mean(0)).flatten(1).double()
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square() / (len(centred) - 1)
    return Axes(directions[:count].reshape(-1, *estimates.shape[1:]), variances[:count],
                variances.sum().item())


def random_axes(axes: Axes, streams: Streams) -> Axes:
    """Return random orthonormal directions with the reach of given ones: their control.

    Args:
        axes: What is controlled.
        streams: One for each direction.

    Raises:
        UnseenError: If there is another number of streams.
    """
    if len(streams) != len(axes.variances):
        raise UnseenError(f"axes: {len(streams)} streams for {len(axes.variances)} directions")
    shape = axes.directions.shape
    directions = torch.linalg.qr(streams.normal(*shape[1:]).flatten(1).T)[0].T
    return Axes(directions.reshape(shape), axes.variances, axes.total)


def variations(
    image: Tensor, axes: Axes, pair: tuple[int, int], *, reach: float = 5.0, points: int = 7
) -> Tensor:
    """Return a grid of images about one, along two axes: x + t_i V_i + t_j V_j.

    The ends of t are ``reach`` standard deviations of the trajectory; no network call is made.

    Args:
        image: Shape (c, h, w).
        axes: Of its trajectory, or their control.
        pair: Places of the axis downwards and of that across, from 0.
        reach: In standard deviations.
        points: A side of the grid; an odd number has the image itself in the middle.

    Returns:
        Shape (points * points, c, h, w), dtype of ``image``, row by row, not clipped.

    Raises:
        UnseenError: If an axis is missing.
    """
    if max(pair) >= len(axes.variances):
        raise UnseenError(f"axes: {pair} are not among {len(axes.variances)} directions")
    steps = torch.linspace(-reach, reach, points, dtype=torch.float64)
    down, across = (steps[:, None, None, None] * axes.variances[i].sqrt() * axes.directions[i]
                    for i in pair)
    grid = image.double() + down[:, None] + across[None, :]
    return grid.flatten(0, 1).to(image.dtype)
