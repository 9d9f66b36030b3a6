"""Truncated noise against scipy's law: bounds, variance, shape."""

import math

import pytest
from scipy.stats import kstest, truncnorm

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.truncated import truncated_normal, truncated_variance
from unseen_core.starts import Prior

BOUNDS = [0.1, 1.0, 2.5, 9.0]


@pytest.mark.parametrize("bound", BOUNDS)
def test_variance_is_scipys(bound: float) -> None:
    assert truncated_variance(bound) == pytest.approx(truncnorm(-bound, bound).var(), rel=1e-9)


@pytest.mark.parametrize("bound", BOUNDS)
def test_draws_have_the_law_divided_by_its_sd(bound: float) -> None:
    x = truncated_normal(Streams(0, "t", ["a", "b"]), 20_000, bound=bound)
    sd, flat = truncnorm(-bound, bound).std(), x.flatten().numpy()
    assert x.shape == (2, 20_000) and abs(flat).max() <= bound / sd
    assert kstest(flat, truncnorm(-bound, bound, scale=1 / sd).cdf).pvalue > 0.001
    fourth = truncnorm(-bound, bound).stats("k") + 3
    assert abs(flat.var() - 1) < 4 * ((fourth - 1) / flat.size) ** 0.5


@pytest.mark.parametrize("bound", [-1.0, 0.05, math.inf, math.nan])
def test_bounds_out_of_range(bound: float) -> None:
    with pytest.raises(UnseenError, match="truncate"):
        Prior(truncate=bound)
