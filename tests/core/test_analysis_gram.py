"""Moments from inner products against U-statistics by brute force and planted covariances."""

from itertools import permutations

import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

from unseen_core.analysis.latents.gram import Moments, centre, gram
from unseen_core.errors import UnseenError
from unseen_core.laws.fitting import ledoit_wolf_weight


def normals(seed: int, n: int, d: int) -> Tensor:
    """Standard normals, float64 (n, d)."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gram_over_column_blocks_equals_one_product() -> None:
    x, y = normals(0, 5, 8193).float(), normals(1, 4, 8193).float()
    rows = torch.cat([x, y]).double()
    torch.testing.assert_close(gram(x.reshape(5, 3, 2731), y.reshape(4, 3, 2731)), rows @ rows.T)
    torch.testing.assert_close(gram(x), x.double() @ x.double().T)
    torch.testing.assert_close(centre(gram(x)), gram(x.double() - x.double().mean(0)))


def test_trace_square_is_the_u_statistic() -> None:
    x = normals(0, 6, 3) * torch.tensor([3.0, 1.0, 0.5]) + 2
    # Over distinct i, j, k, l: ((x_i - x_j)·(x_k - x_l))² has expectation 4 tr Σ².
    brute = torch.stack([((x[i] - x[j]) @ (x[k] - x[m])).square() / 4
                         for i, j, k, m in permutations(range(6), 4)]).mean().item()
    assert Moments.of(gram(x), 3).trace_square == pytest.approx(brute, rel=1e-10)


def test_moments_are_unbiased_where_samples_are_few() -> None:
    n, d = 8, 40
    scale, mean = torch.linspace(0.2, 2, d, dtype=torch.float64), torch.full((d,), 0.7).double()
    truth = torch.stack([scale.square().sum(), scale.pow(4).sum(), mean.square().sum(),
                         (mean * scale).square().sum()])
    draws = mean + scale * normals(0, 2000 * n, d).reshape(2000, n, d)
    found = torch.tensor([[m.trace, m.trace_square, m.mean_square, m.mean_along]
                          for m in (Moments.of(gram(x), d) for x in draws)], dtype=torch.float64)
    error = found.std(0) / 2000**0.5
    # Clamping at the least possible value never acts on the first three here.
    assert ((found.mean(0) - truth).abs() < 3 * error)[:3].all()
    assert abs(found[:, 3].mean() - truth[3]) < 3 * error[3] + 0.05 * truth[3]


@pytest.mark.parametrize(("n", "d"), [(20, 60), (60, 20)])
def test_shrinkage_is_that_of_scikit_learn(n: int, d: int) -> None:
    x = normals(0, n, d) * torch.linspace(0.1, 3, d, dtype=torch.float64) + 5
    assert ledoit_wolf_weight(centre(gram(x)), d) == pytest.approx(ledoit_wolf_shrinkage(x.numpy()))


def test_equal_or_few_latents_are_refused() -> None:
    with pytest.raises(UnseenError, match="all are equal"):
        Moments.of(gram(torch.ones(5, 3)), 3)
    with pytest.raises(UnseenError, match="at least 4"):
        gram(torch.ones(3, 3))
