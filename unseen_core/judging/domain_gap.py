"""Whether domains farther from the seen one are synthesised better or worse."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial, inf

import numpy as np
from scipy.stats import norm, permutation_test, rankdata

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval

__all__ = ["Measured", "RankRelation", "rank_relation"]

Measured = Sequence[Interval] | np.ndarray
"""One 95 % interval per domain, or bootstrap draws, shape (domains, draws), draws >= 2."""

_EXACT = 8  # 8! = 40,320 orders


@dataclass(frozen=True)
class RankRelation:
    """How the ranks of two measures agree over domains.

    Attributes:
        spearman: Rank correlation in [-1, 1] of the estimates, with the 95 % interval that
            their uncertainty leaves.
        kendall: The same for Kendall's tau-b.
        p_spearman, p_kendall: Two-sided permutation p-values.
        smallest_p: The p-value of a perfect order of so many domains, if none tie.
        verdict: On "farther is easier": ``"confirmed"``, ``"refuted"`` or ``"undecided"``.
    """

    spearman: Interval
    kendall: Interval
    p_spearman: float
    p_kendall: float
    smallest_p: float
    verdict: str


def rank_relation(
    gap: Measured, quality: Measured, *, larger_is_better: bool = True, draws: int = 2000,
    seed: int = 0,
) -> RankRelation:
    """Test the claim that targets farther from the seen domain are easier (arXiv 2310.09213).

    Two doubts are kept apart. Might the order of these few domains be chance? The permutation
    test answers: it is exact up to 8 domains, and of n domains without ties no p-value is below
    2 / n!: .333, .083, .017, .0028, .0004 for n = 3 ... 7, so fewer than 5 decide nothing, and
    6 can reach .0028. Might the measurement of each domain change the order? The interval
    answers: percentiles of the correlation over draws of both measures. Draws carry the
    measurement's noise twice, the estimate's own and the draw's, which pulls them towards 0;
    the interval errs on the side of doubt. It says nothing of domains not measured.

    The verdict rests on Spearman's coefficient alone, Kendall's stands beside it: confirmed if
    its interval lies above 0 and p < .05, refuted if it lies below 0 and p < .05.

    Args:
        gap: Distance of every domain from the seen one; larger is farther. An interval is
            drawn from as two half normals, each as wide as its side says; draws are taken as
            they are and their mean is the estimate.
        quality: Quality of synthesis in the same order of domains.
        larger_is_better: False if ``quality`` is a distance.
        draws: Draws from intervals, >= 2; if one measure comes as draws, their number counts,
            and two arrays are paired column by column.
        seed: Seed of the draws and, above 8 domains, of 9999 permutations.

    Raises:
        UnseenError: If there are fewer than 3 domains, the measures do not fit together or are
            not finite, or one is equal for all domains.
    """
    wide = {m.shape[-1] for m in (gap, quality) if isinstance(m, np.ndarray)}
    count = wide.pop() if wide else draws
    if wide or count < 2 or len(gap) != len(quality) or len(gap) < 3:
        raise UnseenError(f"domain gap: {len(gap)} and {len(quality)} domains, draws {draws}; give "
                          "both for the same domains, at least 3, with as many draws, at least 2")
    (x, x_draws), (y, y_draws) = (
        _estimate(name, measured, count, np.random.default_rng([seed, i]))
        for i, (name, measured) in enumerate((("gap", gap), ("quality", quality)))
    )
    sign = 1 if larger_is_better else -1
    found = []
    for correlation in (_spearman, _kendall):
        drawn = correlation(x_draws, sign * y_draws)
        value = correlation(x, sign * y).item()
        low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
        test = permutation_test(
            (x,), lambda z, axis, f=correlation: f(z, sign * y), permutation_type="pairings",
            vectorized=True, n_resamples=inf if len(x) <= _EXACT else 9999,
            batch=10_000, rng=np.random.default_rng([seed, 2]))
        found.append((Interval(value, low, high), float(test.pvalue)))
    (spearman, p), (kendall, p_kendall) = found
    verdict = "undecided"
    if p < 0.05 and (spearman.low > 0 or spearman.high < 0):
        verdict = "confirmed" if spearman.low > 0 else "refuted"
    smallest = 2 / (factorial(len(x)) if len(x) <= _EXACT else 10_000)
    return RankRelation(spearman, kendall, p, p_kendall, smallest, verdict)


def _estimate(
    name: str, measured: Measured, draws: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return estimates (domains,) and their draws (draws, domains)."""
    if isinstance(measured, np.ndarray):
        value, drawn = measured.mean(1), measured.T
    else:
        value, low, high = np.array([[m.value, m.low, m.high] for m in measured]).T
        z = random.standard_normal((draws, len(value)))
        side = np.where(z > 0, high - value, value - low) / norm.ppf(0.975)
        # A percentile interval may miss its value by a little.
        drawn = value + z * side.clip(0)
    if not np.isfinite(drawn).all() or np.ptp(value) == 0:
        raise UnseenError(f"{name}: not finite, or equal for all domains, so that nothing can be "
                          "ranked; leave such domains out")
    return value, drawn


def _spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, ties at their mean rank; 0 if all are equal."""
    x, y = rankdata(x, axis=-1), rankdata(y, axis=-1)
    return _cosine(x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True))


def _kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Kendall's tau-b along the last axis; 0 if all are equal."""
    first, second = np.triu_indices(x.shape[-1], 1)
    return _cosine(np.sign(x[..., first] - x[..., second]),
                   np.sign(y[..., first] - y[..., second]))


def _cosine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of the angle between vectors along the last axis; 0 if one is zero."""
    norms = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return (x * y).sum(-1) / np.where(norms > 0, norms, 1)
