"""Distances against closed forms, intervals against their coverage, errors against scikit-image."""

import numpy as np
import pytest
import torch
from draws import normal
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import reported
from unseen_core.judging.features import Pixels, extract
from unseen_core.judging.judges import Space, halves
from unseen_core.judging.metrics import (
    frechet_distance,
    kernel_distance,
    psnr,
    relative_error,
)
from unseen_core.judging.probe import fit_probe, wilson


def mean_kernel(mu: Tensor, sigma: float, nu: Tensor, tau: float) -> float:
    """Exact mean of the cubic kernel over N(mu, sigma² I) and N(nu, tau² I), by moments."""
    d, dot, mm, nn = len(mu), mu @ nu, mu @ mu, nu @ nu
    first = dot
    second = dot**2 + tau**2 * mm + sigma**2 * nn + d * sigma**2 * tau**2
    third = dot**3 + 3 * dot * sigma**2 * nn + 3 * tau**2 * dot * (mm + (d + 2) * sigma**2)
    return (1 + 3 * first / d + 3 * second / d**2 + third / d**3).item()


def true_distance(mu: Tensor, sigma: float, nu: Tensor, tau: float) -> float:
    across = mean_kernel(mu, sigma, nu, tau)
    return mean_kernel(mu, sigma, mu, sigma) + mean_kernel(nu, tau, nu, tau) - 2 * across


@given(st.integers(0, 10**6), st.sampled_from([(5, 7, 40), (60, 50, 6)]))
def test_frechet_properties(seed: int, sizes: tuple[int, int, int]) -> None:
    n, m, d = sizes
    x, y = normal(n, d, seed), normal(m, d, seed + 1) * 1.5 + 0.3
    distance = frechet_distance(x, y)
    assert distance > 0
    assert frechet_distance(y, x) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    shift = torch.linspace(-1, 1, d, dtype=torch.float64)
    assert frechet_distance(x, x + shift) == pytest.approx((shift @ shift).item(), rel=1e-6)
    turn = torch.linalg.qr(normal(d, d, seed + 2)).Q
    assert frechet_distance(x @ turn + 2, y @ turn + 2) == pytest.approx(distance, rel=1e-9)


def test_frechet_forms_agree() -> None:
    """Columns of zeros change the form that is taken, not the distance."""
    x, y = normal(30, 12, 0), normal(25, 12, 1) * 0.7
    wide = [torch.cat([z, torch.zeros(len(z), 60, dtype=z.dtype)], 1) for z in (x, y)]
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(x, y), rel=1e-6)


def test_kernel_distance_is_the_plain_u_statistic() -> None:
    x, y = normal(9, 5, 3), normal(7, 5, 4) + 1

    def k(a: Tensor, b: Tensor) -> float:
        return ((a @ b).item() / 5 + 1) ** 3

    xx = np.mean([k(x[i], x[j]) for i in range(9) for j in range(9) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(7) for j in range(7) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    for draws in (0, 10):
        found = kernel_distance(x, y, draws=draws)
        assert found.value == pytest.approx(xx + yy - 2 * xy, rel=1e-10)
        assert np.isnan([found.low, found.high]).all() == (draws == 0)


@pytest.mark.parametrize("shift, tau", [(0.5, 1.0), (0.2, 1.4)])
def test_kernel_interval_covers_as_it_says(shift: float, tau: float) -> None:
    d, n, runs, level = 8, 50, 300, 0.9
    nu = torch.full((d,), shift, dtype=torch.float64)
    truth = true_distance(torch.zeros(d, dtype=torch.float64), 1.0, nu, tau)
    found = [
        kernel_distance(normal(n, d, 2 * i), normal(n, d, 2 * i + 1) * tau + nu,
                        draws=200, seed=i, level=level)
        for i in range(runs)
    ]
    values = np.array([f.value for f in found])
    assert abs(values.mean() - truth) < 4 * values.std() / runs**0.5
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.85 < covered < 0.96  # binomial standard error .017
    # Pairs of one image with itself would lift every draw above the value.
    middle = np.array([kernel_distance(normal(n, d, 2 * i), normal(n, d, 2 * i + 1) * tau + nu,
                                       draws=200, seed=i, level=1e-6).low for i in range(20)])
    assert np.abs((middle - values[:20]).mean()) < 0.25 * values.std()


def test_kernel_distance_of_split_halves() -> None:
    """The value averages to zero; where the sets agree the interval covers at least its level."""
    features = normal(120, 16, 7) + 0.5
    found = []
    for i in range(100):
        order = torch.randperm(120, generator=torch.Generator().manual_seed(i))
        x, y = features[order].chunk(2)
        found.append(kernel_distance(x, y, draws=100, seed=i))
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 4 * values.std() / 10
    assert np.mean([f.low <= 0 <= f.high for f in found]) >= 0.95


def test_kernel_distance_is_fixed_by_its_seed() -> None:
    x, y = normal(20, 4, 0), normal(30, 4, 1)
    assert kernel_distance(x, y, seed=3) == kernel_distance(x, y, seed=3)
    assert kernel_distance(x, y, seed=3) != kernel_distance(x, y, seed=4)


@pytest.mark.parametrize("successes, n", [(0, 7), (3, 7), (7, 7), (180, 200)])
def test_wilson_is_the_score_interval(successes: int, n: int) -> None:
    found = wilson(successes, n, level=0.9)
    assert found.value == successes / n
    # An end p is where the share lies 1.645 of p's own standard errors away.
    for end in (found.low, found.high):
        score = (found.value - end) ** 2
        assert score == pytest.approx(norm.ppf(0.95) ** 2 * end * (1 - end) / n, abs=1e-12)
    assert (found.low == 0) == (successes == 0) and (found.high == 1) == (successes == n)


def test_probe_tells_domains_apart() -> None:
    source, target = normal(300, 5, 0), normal(60, 5, 1) + 1.5
    source[:, 4] = target[:, 4] = 3.0  # a feature without spread must not divide by zero
    probe = fit_probe(source[:200], target[:40])
    assert probe.in_target(target[40:]).double().mean() > 0.85
    assert probe.in_target(source[200:]).double().mean() < 0.1
    assert probe.in_target(source[200:]).dtype == torch.bool
    # Standardised: another unit of a feature changes no decision.
    unit = torch.tensor([1e3, 1e-3, 1.0, 7.0, 1.0], dtype=torch.float64)
    again = fit_probe(source[:200] * unit, target[:40] * unit)
    torch.testing.assert_close(again.log_odds(target * unit), probe.log_odds(target),
                               rtol=1e-4, atol=1e-4)


def test_errors_of_pairs() -> None:
    x, y = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    found = psnr(x, y)
    wanted = [peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=1)
              for a, b in zip(x, y, strict=True)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)
    assert psnr(x, x).isinf().all()
    torch.testing.assert_close(relative_error(1.25 * y, y), torch.full((3,), 0.25).double(),
                               rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: frechet_distance(normal(1, 3, 0), normal(5, 3, 0)), "x: 1 images"),
        (lambda: frechet_distance(normal(5, 3, 0), normal(5, 4, 0)), "width 4 beside 3"),
        (lambda: frechet_distance(normal(5, 3, 0)[0], normal(5, 3, 0)), "flatten"),
        (lambda: kernel_distance(normal(5, 3, 0) / 0, normal(5, 3, 0)), "not finite"),
        (lambda: kernel_distance(normal(5, 3, 0), normal(5, 3, 0), level=1), "between 0 and 1"),
        (lambda: wilson(3, 2), "3 of 2"),
        (lambda: psnr(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 5)), "paired images"),
    ],
)
def test_bad_input_names_the_mend(call: object, words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        call()


def test_halves_of_the_held_out_images_are_apart_and_together_all_of_them() -> None:
    images = torch.randint(0, 256, (21, 3, 8, 8), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    space = Space.of(Pixels(), images[:5], images[5:16])
    made = extract(space.extractor, images[16:])
    found = space.distances(made, draws=20, seed=3)
    one, other = halves(space.held_out)
    assert torch.equal(torch.cat([one, other]).sort(0).values, space.held_out.sort(0).values)
    every, second = (kernel_distance(made, x, draws=20, seed=3) for x in (space.held_out, other))
    first = kernel_distance(made, one, draws=0)
    assert found["kd_pixels"] == every.value and found["kd_pixels_first"] == first.value
    assert [found[name] for name in reported("kd_pixels")] == [
        second.value, second.low, second.high]
