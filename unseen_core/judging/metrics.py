"""Distances between feature sets, intervals, and errors between paired images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = [
    "Interval",
    "check_features",
    "cubic_kernel",
    "frechet_distance",
    "kernel_distance",
    "psnr",
    "relative_error",
]


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def check_features(sets: Mapping[str, Tensor], least: int = 2) -> None:
    """Refuse feature sets that no distance can be taken between.

    Args:
        sets: Feature matrices by the name an error gives them.
        least: Fewest rows that each set must have.

    Raises:
        UnseenError: If a set is not a matrix, has fewer rows than ``least``, holds a number that
            is not finite, or has another width than the first.
    """
    width = None
    for name, features in sets.items():
        if features.ndim != 2:
            raise UnseenError(
                f"{name}: features of shape {tuple(features.shape)}; flatten them to (n, dimension)"
            )
        if len(features) < least:
            raise UnseenError(f"{name}: {len(features)} images where at least {least} are needed")
        width = features.shape[1] if width is None else width
        if features.shape[1] != width:
            raise UnseenError(
                f"{name}: features of width {features.shape[1]} beside {width}; "
                "use one extractor for all sets"
            )
        if not features.isfinite().all():
            raise UnseenError(f"{name}: features that are not finite; check the images behind them")


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Squared Fréchet distance between Gaussians fitted to two feature sets.

    |m_x - m_y|² + tr C_x + tr C_y - 2 tr (C_x C_y)^½  (Heusel et al. 2017, arXiv 1706.08500).
    The last trace is the nuclear norm of X Yᵀ for centred, scaled features
    (Mathiasen & Hvilshøj 2020, arXiv 2009.14075), so no matrix square root is taken. The
    estimate is biased upward at small n: compare sets of equal size only.

    Args:
        x: Features, shape (n, d), n >= 2.
        y: Features, shape (m, d), m >= 2.

    Returns:
        The distance in squared feature units, float64 throughout.

    Raises:
        UnseenError: If the sets do not fit together (see ``check_features``).
    """
    check_features({"x": x, "y": y})
    x, y = x.double(), y.double()
    shift = x.mean(0) - y.mean(0)
    x = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    y = (y - y.mean(0)) / (len(y) - 1) ** 0.5
    if min(len(x), len(y)) < x.shape[1] / 2:
        overlap = torch.linalg.svdvals(x @ y.T).sum()
    else:  # (d, d) symmetric form; eigenvalues of the plain product C_x C_y would be wrong
        values, vectors = torch.linalg.eigh(x.T @ x)
        root = vectors * values.clamp_min(0).sqrt()
        inner = root.T @ (y.T @ y) @ root
        overlap = torch.linalg.eigvalsh(inner).clamp_min(0).sqrt().sum()
    return (shift @ shift + x.square().sum() + y.square().sum() - 2 * overlap).item()


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return the kernel (f·g/d + 1)³ of every pair (Bińkowski et al. 2018, arXiv 1801.01401).

    Args:
        x: Features, shape (n, d); features are taken as they are, not standardised.
        y: Features, shape (m, d), same dtype.

    Returns:
        Shape (n, m).
    """
    kernel = x @ y.T  # in place from here: it may take most of the memory
    return kernel.div_(x.shape[1]).add_(1).pow_(3)


def kernel_distance(
    x: Tensor, y: Tensor, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Unbiased squared kernel distance over all pairs, with a bootstrap interval.

    The value is the U-statistic MMD² (Gretton et al. 2012, JMLR 13:723, eq. 3) with the cubic
    kernel of Bińkowski et al. 2018 (arXiv 1801.01401). It may be negative.

    Each bootstrap draw resamples both sets: image i counts w_i times, w multinomial. A pair made
    of one original image twice is not a pair of independent images, and k(f, f) is large, so such
    pairs would move the draws upward: they weigh nothing. The rest weigh w_i w_j / (n - 1)²
    within a set and w_i u_j / (n m) across, so that the mean of the draws is the value. The
    kernel is centred first, which leaves the value as it is and takes a spread of order 1/n
    that has nothing to do with the distance out of the draws. The interval is that of the
    percentiles. Its coverage is nominal where the sets differ; where they agree the draws are
    up to √3 too wide (a degenerate U-statistic: Arcones & Giné 1992, Ann. Stat. 20:655), hence
    the interval covers more than ``level``.

    Args:
        x: Features, shape (n, d), n >= 2.
        y: Features, shape (m, d), m >= 2.
        draws: Bootstrap draws, >= 0; without any the ends of the interval are NaN.
        seed: Seed of the draws.
        level: Coverage asked for, in (0, 1).

    Returns:
        The distance and its interval, float64 throughout.

    Raises:
        UnseenError: If the sets do not fit together or ``draws`` or ``level`` is out of range.
    """
    check_features({"x": x, "y": y})
    if draws < 0 or not 0 < level < 1:
        raise UnseenError(f"kernel distance: draws {draws}, level {level}; use draws >= 0 and a "
                          "level between 0 and 1")
    n, m = len(x), len(y)
    x, y = x.double(), y.double()
    within_x, within_y, across = cubic_kernel(x, x), cubic_kernel(y, y), cubic_kernel(x, y)
    if draws:
        mean_x = (within_x.sum(1) + across.sum(1)) / (n + m)
        mean_y = (across.sum(0) + within_y.sum(1)) / (n + m)
        mean = (mean_x.sum() + mean_y.sum()) / (n + m)
        for kernel, rows, columns in ((within_x, mean_x, mean_x), (within_y, mean_y, mean_y),
                                      (across, mean_x, mean_y)):
            kernel.sub_(rows[:, None]).sub_(columns - mean)
    within_x.fill_diagonal_(0)
    within_y.fill_diagonal_(0)
    value = (
        within_x.sum() / (n * (n - 1))
        + within_y.sum() / (m * (m - 1))
        - 2 * across.sum() / (n * m)
    )
    if not draws:
        return Interval(value.item(), math.nan, math.nan)
    random = np.random.default_rng(seed)
    w = torch.from_numpy(random.multinomial(n, np.full(n, 1 / n), draws)).to(across)
    u = torch.from_numpy(random.multinomial(m, np.full(m, 1 / m), draws)).to(across)
    drawn = (
        ((w @ within_x) * w).sum(1) / (n - 1) ** 2
        + ((u @ within_y) * u).sum(1) / (m - 1) ** 2
        - 2 * ((w @ across) * u).sum(1) / (n * m)
    )
    tail = (1 - level) / 2
    low, high = np.quantile(drawn.cpu().numpy(), [tail, 1 - tail])
    return Interval(value.item(), float(low), float(high))


def _pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten paired images to (n, d) float64."""
    if x.shape != y.shape or x.ndim < 2:
        raise UnseenError(f"paired images of shapes {tuple(x.shape)} and {tuple(y.shape)}; "
                          "both must be (n, c, h, w)")
    return x.flatten(1).double(), y.flatten(1).double()


def relative_error(x: Tensor, y: Tensor) -> Tensor:
    """L2 error of each image over the L2 norm of its true image, shape (n,), float64.

    Args:
        x: Reconstructions, shape (n, c, h, w), [-1, 1] or latents.
        y: True images, same shape. A row of zeros gives inf, or nan where ``x`` is zero too.

    Raises:
        UnseenError: If the shapes differ.
    """
    x, y = _pairs(x, y)
    return torch.linalg.vector_norm(x - y, dim=1) / torch.linalg.vector_norm(y, dim=1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, shape (n,), decibels, float64.

    -10 log10 of the mean squared error; equal images give inf.

    Args:
        x: Images, shape (n, c, h, w), values in [0, 1].
        y: True images, same shape and range.

    Raises:
        UnseenError: If the shapes differ.
    """
    x, y = _pairs(x, y)
    return -10 * (x - y).square().mean(1).log10()
