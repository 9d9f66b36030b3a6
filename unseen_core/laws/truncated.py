"""Standard normals restricted to an interval, at the variance of unrestricted ones."""

import math

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError

__all__ = ["SMALLEST", "truncated_normal", "truncated_variance"]

SMALLEST = 0.1
"""Here the density varies by 0.5 % between the bounds; below, the law is as good as uniform."""


def truncated_variance(bound: float) -> float:
    """Return the variance of a standard normal restricted to [-bound, bound].

    Args:
        bound: SMALLEST or more.

    Raises:
        UnseenError: If it is less.
    """
    if not SMALLEST <= bound < math.inf:
        raise UnseenError(f"truncate {bound} is out of range; use {SMALLEST} or more, or 0 for "
                          "normals without bounds")
    density = math.exp(-bound * bound / 2) / math.sqrt(2 * math.pi)
    return 1 - 2 * bound * density / math.erf(bound / math.sqrt(2))


def truncated_normal(streams: Streams, count: int, *, bound: float) -> Tensor:
    """Draw standard normals restricted to [-bound, bound] and divided by their own sd.

    "Truncated Gaussian" is arXiv 2310.09213's term for its prior, whose form is not public;
    this one keeps mean and covariance of what it replaces. By inverse CDF, so that every number
    needs one uniform, whatever the bound.

    Args:
        streams: One per row.
        count: Numbers per row.
        bound: SMALLEST or more, in standard deviations before the division.

    Returns:
        float64 (n, count), variance 1.

    Raises:
        UnseenError: If the bound is out of range.
    """
    sd = math.sqrt(truncated_variance(bound))
    low = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64))
    u = low + streams.uniform(count) * (1 - 2 * low)
    return torch.special.ndtri(u).clamp(-bound, bound) / sd
