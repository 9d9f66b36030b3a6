"""Stochastic denoising: its moments, its limits, its discrete and continuous formulas."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import ancestral, denoise
from unseen_core.laws.gaussian import Gaussian

SHAPE = (1, 8, 8)


def white_model(schedule: Schedule, variance: float) -> GaussianEps:
    """Exact network for N(0.3, variance I): 64 equal modes, so that one image holds 64 draws."""
    law = Gaussian(torch.full((64,), 0.3), torch.zeros(64, 0), torch.tensor(variance))
    return GaussianEps(schedule, SHAPE, law)


def discrete_moments(
    schedule: Schedule, grid: tuple[int, ...], eta: float, variance: float
) -> tuple[float, float]:
    """Product of the step factors on deviations from a μ, and the variance they add up to."""
    factor, added = 1.0, 0.0
    down = grid[::-1]
    for high, low in pairwise(down):
        a, s = schedule.a(high).item(), schedule.s(high).item()
        b, t = schedule.a(low).item(), schedule.s(low).item()
        fresh = eta**2 * t**2 / s**2 * (1 - a**2 / b**2)
        step = (a * b * variance + s * max(0.0, t**2 - fresh) ** 0.5) / (a**2 * variance + s**2)
        factor, added = factor * step, added * step**2 + fresh
    return factor, added


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("variance", [0.2, 2.0])
def test_moments_of_the_discrete_sampler(schedule: Schedule, eta: float, variance: float) -> None:
    model, grid = white_model(schedule, variance), schedule.grid(20, 600)
    names = [str(i) for i in range(400)]
    start = schedule.a(600) * 0.3 + 1.3
    out = ancestral(
        model,
        torch.full((400, *SHAPE), start.item(), dtype=torch.float64),
        grid,
        eta=eta,
        streams=Streams(0, "ancestral", names),
    )
    factor, added = discrete_moments(schedule, grid, eta, variance)
    count = out.numel()
    assert abs(out.mean() - 0.3 - factor * 1.3) < 5 * (added / count) ** 0.5
    assert abs(out.var() / added - 1) < 5 * (2 / count) ** 0.5


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_fine_grids_reach_the_continuous_moments(schedule: Schedule, eta: float) -> None:
    # Offset of x / a times kappa^((1 + eta²) / 2); a start variance V of x / a ends as
    # λ + (V - λ / kappa) kappa^(1 + eta²).
    variance, top = 1.0, 501
    factor, added = discrete_moments(schedule, tuple(range(top + 1)), eta, variance)
    sigma = schedule.sigma(top).item()
    kappa = variance / (variance + sigma**2)
    scaled = factor * schedule.a(top).item()
    assert abs(scaled / kappa ** ((1 + eta**2) / 2) - 1) < 0.02
    for start in (0.0, sigma**2, variance + sigma**2):
        expected = variance + (start - variance / kappa) * kappa ** (1 + eta**2)
        assert abs((scaled**2 * start + added) / expected - 1) < 0.02


def test_no_fresh_noise_is_ddim(schedule: Schedule) -> None:
    model, grid = white_model(schedule, 0.5), schedule.grid(20, 700)
    names = list("abcd")
    x = Streams(0, "start", names).normal(*SHAPE)
    streams = Streams(0, "unused", names)
    out = ancestral(model, x, grid, eta=0, streams=streams)
    assert (out - denoise(model, x, grid, method="ddim")).abs().max() < 1e-12
    untouched = Streams(0, "unused", names)
    assert torch.equal(streams.normal(3), untouched.normal(3))


def ddpm_step(schedule: Schedule, x: Tensor, clean: Tensor, level: int) -> tuple[Tensor, float]:
    """Mean and variance of q(x_{k-1} | x_k, x_0), Ho et al. 2020, eq. 7."""
    bar, below = schedule.alpha_bar[level].item(), schedule.alpha_bar[level - 1].item()
    beta = 1 - bar / below
    mean = below**0.5 * beta * clean + (bar / below) ** 0.5 * (1 - below) * x
    return mean / (1 - bar), (1 - below) / (1 - bar) * beta


def test_eta_one_is_the_ancestral_sampler(schedule: Schedule) -> None:
    model, names = white_model(schedule, 0.5), list("abcd")
    x = Streams(0, "start", names).normal(*SHAPE)
    out = ancestral(model, x, (0, 1, 2, 3), eta=1, streams=Streams(0, "noise", names))
    noise = Streams(0, "noise", names)
    for level in (3, 2, 1):
        clean = (x - schedule.s(level) * model(x, level)) / schedule.a(level)
        x, variance = ddpm_step(schedule, x, clean, level)
        if level > 1:
            x = x + variance**0.5 * noise.normal(*SHAPE)
    assert (out - x).abs().max() < 1e-10


def test_bandwidth_of_an_inverted_latent(schedule: Schedule) -> None:
    # An inverted latent lies 1/sqrt(kappa) out; of its offset kappa^(eta²/2) is kept.
    top, eta, variance = 501, 0.5, 1.0
    kappa = (variance / (variance + schedule.sigma(top) ** 2)).item()
    kept = discrete_moments(schedule, tuple(range(top + 1)), eta, variance)[0]
    without = discrete_moments(schedule, tuple(range(top + 1)), 0.0, variance)[0]
    assert abs(kept / without / kappa ** (eta**2 / 2) - 1) < 0.02
