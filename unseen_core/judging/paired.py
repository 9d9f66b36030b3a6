"""Is one set of images nearer to real ones than another? Bootstrap of a difference of distances."""

import numpy as np
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval, check_features, cubic_kernel, frechet_distance

__all__ = ["frechet_difference", "kernel_difference"]


def kernel_difference(
    x: Tensor,
    y: Tensor,
    real: Tensor,
    *,
    paired: bool = False,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Kernel distance of ``x`` to real images less that of ``y``, with a bootstrap interval.

    Both sets meet the same resampled real images, so that the chance of those, which the interval
    of either distance alone holds, cancels. The term within the real images cancels too; pairs of
    one original image weigh nothing, as in ``unseen_core.judging.metrics.kernel_distance``. The
    interval excludes 0 where the difference is more than chance.

    Args:
        x: Features, shape (n, d), n >= 2.
        y: Features, shape (m, d), m >= 2.
        real: Features of real images, shape (k, d), k >= 2.
        paired: Row i of ``x`` and of ``y`` were made from the same noise (n = m), and are drawn
            together; otherwise the sets are resampled apart.
        draws: Bootstrap draws, >= 1.
        seed: Seed of the draws.
        level: Coverage of the interval of percentiles, in (0, 1).

    Raises:
        UnseenError: If the sets do not fit together or ``draws`` or ``level`` is out of range.
    """
    _check(x, y, real, paired, draws, level)
    both = torch.cat([x, y, real]).double()
    gram = cubic_kernel(both, both)
    mean = gram.mean(0)
    gram = gram - mean - mean[:, None] + mean.mean()
    n, m = len(x), len(y)
    random = np.random.default_rng(seed)

    def weights(count: int) -> Tensor:
        drawn = random.multinomial(count, np.full(count, 1 / count), draws)
        return torch.from_numpy(np.vstack([np.ones(count), drawn])).double()

    u = weights(len(real))

    def half(rows: slice, w: Tensor) -> Tensor:
        count = w.shape[1]
        within = gram[rows, rows].clone().fill_diagonal_(0)
        # Row 0 is the data itself, n (n - 1) pairs; a draw has (n - 1)^2 of them on average.
        pairs = torch.full((draws + 1,), float((count - 1) ** 2)).double()
        pairs[0] = count * (count - 1)
        across = ((w @ gram[rows, n + m :]) * u).sum(1) / (count * len(real))
        return ((w @ within) * w).sum(1) / pairs - 2 * across

    w = weights(n)
    difference = half(slice(0, n), w) - half(slice(n, n + m), w if paired else weights(m))
    return _interval(difference[0].item(), difference[1:].numpy(), level)


def frechet_difference(
    x: Tensor,
    y: Tensor,
    real: Tensor,
    *,
    paired: bool = False,
    draws: int = 100,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Squared Fréchet distance of ``x`` to real images less that of ``y``, as above.

    A resampled set has fewer distinct images and a larger distance; the excess is about the same
    on both sides. Each draw takes two decompositions, hence the smaller default.

    Args:
        x: Features, shape (n, d), n >= 2.
        y: Features, shape (m, d); sets of equal size only compare.
        real: Features of real images, shape (k, d), k >= 2.
        paired: As for ``kernel_difference``.
        draws: As for ``kernel_difference``.
        seed: As for ``kernel_difference``.
        level: As for ``kernel_difference``.

    Raises:
        UnseenError: As ``kernel_difference`` does.
    """
    _check(x, y, real, paired, draws, level)
    random = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        other = real[random.integers(len(real), size=len(real))]
        rows = random.integers(len(x), size=len(x))
        columns = rows if paired else random.integers(len(y), size=len(y))
        found.append(frechet_distance(x[rows], other) - frechet_distance(y[columns], other))
    value = frechet_distance(x, real) - frechet_distance(y, real)
    return _interval(value, np.array(found), level)


def _check(x: Tensor, y: Tensor, real: Tensor, paired: bool, draws: int, level: float) -> None:
    """Refuse sets that do not fit together and settings out of range."""
    check_features({"x": x, "y": y, "real": real})
    if paired and len(x) != len(y):
        raise UnseenError(f"paired sets of {len(x)} and {len(y)} images; make both from the same "
                          "noise, or compare them unpaired")
    if draws < 1 or not 0 < level < 1:
        raise UnseenError(f"difference: draws {draws}, level {level}; use draws >= 1 and a level "
                          "between 0 and 1")


def _interval(value: float, drawn: np.ndarray, level: float) -> Interval:
    """Return a value with the percentiles of its draws."""
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
