"""Rank relations against scipy, brute force, and planted orders."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from unseen_core.errors import UnseenError
from unseen_core.judging.domain_gap import rank_relation
from unseen_core.judging.metrics import Interval


def intervals(values: object, half: float) -> list[Interval]:
    return [Interval(float(v), float(v) - half, float(v) + half) for v in values]


def test_estimates_and_p_values_against_scipy() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 6))
    y[1] = y[4]  # a tie
    found = rank_relation(intervals(x, 0.1), intervals(y, 0.1), draws=10)
    assert found.spearman.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.kendall.value == pytest.approx(kendalltau(x, y).statistic)
    null = np.array([spearmanr(x, z).statistic for z in permutations(y)])
    observed = found.spearman.value
    tails = ((null >= observed - 1e-9).mean(), (null <= observed + 1e-9).mean())
    assert found.p_spearman == pytest.approx(min(1, 2 * min(tails)))
    x, y = random.normal(size=(2, 7))
    found = rank_relation(intervals(x, 0.1), intervals(y, 0.1), draws=10)
    assert found.p_kendall == pytest.approx(kendalltau(x, y, method="exact").pvalue)


def test_planted_orders() -> None:
    gap = np.arange(6.0)
    better = np.exp(gap)
    found = rank_relation(intervals(gap, 0.3), intervals(better, 0.3))
    assert found.verdict == "confirmed"
    assert found.spearman.value == found.kendall.value == 1
    assert found.p_spearman == found.p_kendall == found.smallest_p == pytest.approx(2 / 720)
    assert rank_relation(intervals(gap, 0.3), intervals(-better, 0.3)).verdict == "refuted"
    # A distance is better when it is smaller.
    as_distance = rank_relation(intervals(gap, 0.3), intervals(better, 0.3), larger_is_better=False)
    assert as_distance.verdict == "refuted"
    assert as_distance.spearman.value == -1
    # What cannot be measured well enough to be ranked is not decided, nor are four domains.
    vague = rank_relation(intervals(gap, 0.3), intervals(better, 200.0))
    assert vague.p_spearman < 0.05 and vague.spearman.low < 0 < vague.spearman.high
    assert vague.verdict == "undecided"
    few = rank_relation(intervals(gap[:4], 0.01), intervals(better[:4], 0.01))
    assert few.spearman.low == 1 and few.p_spearman == few.smallest_p == pytest.approx(2 / 24)
    assert few.verdict == "undecided"


def test_independent_measures_are_seldom_decided() -> None:
    """At p < .05 six domains reject at most that often; binomial bound of 300 runs, 4 sd."""
    random = np.random.default_rng(1)
    verdicts = [rank_relation(intervals(random.normal(size=6), 0.01),
                              intervals(random.normal(size=6), 0.01), draws=50).verdict
                for _ in range(300)]
    decided = np.mean([verdict != "undecided" for verdict in verdicts])
    assert 0 < decided < 0.05 + 4 * (0.05 * 0.95 / 300) ** 0.5


def test_draws_and_intervals_of_one_law_agree() -> None:
    random = np.random.default_rng(2)
    x, y = np.arange(7.0), np.array([0, 2, 1, 3, 5, 4, 6.0])
    half = 1.96 * 0.8
    noise = random.standard_normal((2, 7, 4000)) * 0.8
    noise -= noise.mean(-1, keepdims=True)
    drawn = rank_relation(x[:, None] + noise[0], y[:, None] + noise[1])
    given = rank_relation(intervals(x, half), intervals(y, half), draws=4000)
    mixed = rank_relation(x[:, None] + noise[0], intervals(y, half))
    for other in (given, mixed):
        assert other.spearman.value == pytest.approx(drawn.spearman.value)
        assert other.p_spearman == drawn.p_spearman
        assert other.spearman.low == pytest.approx(drawn.spearman.low, abs=0.08)
        assert other.spearman.high == pytest.approx(drawn.spearman.high, abs=0.08)
    # Columns are paired: a noise common to both measures widens nothing.
    common = rank_relation(x[:, None] + noise[0], x[:, None] + noise[0])
    assert common.spearman == Interval(1.0, 1.0, 1.0)


def test_sides_of_an_interval_differ() -> None:
    """The last domain may be better by far, never worse: the perfect order stays."""
    gap = intervals(np.arange(5.0), 0.01)
    quality = [*intervals(np.arange(4.0), 0.01), Interval(4.0, 3.99, 40.0)]
    assert rank_relation(gap, quality).spearman == Interval(1.0, 1.0, 1.0)
    quality[-1] = Interval(4.0, -40.0, 4.01)
    assert rank_relation(gap, quality).spearman.low < 0.5


def test_many_domains_are_permuted_at_random() -> None:
    x = np.arange(12.0)
    found = rank_relation(intervals(x, 0.1), intervals(x, 0.1), draws=100)
    assert found.p_spearman == found.smallest_p == pytest.approx(2 / 10_000)
    assert found.verdict == "confirmed"


@pytest.mark.parametrize(
    "gap, quality, words",
    [
        (intervals(range(2), 1), intervals(range(2), 1), "at least 3"),
        (intervals(range(4), 1), intervals(range(5), 1), "4 and 5 domains"),
        (np.zeros((4, 5)), np.zeros((4, 6)), "as many draws"),
        (intervals([1] * 4, 1), intervals(range(4), 1), "gap: not finite, or equal"),
        (intervals(range(4), 1), np.full((4, 5), np.nan), "quality: not finite"),
    ],
)
def test_bad_input_names_the_mend(gap: object, quality: object, words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        rank_relation(gap, quality)
