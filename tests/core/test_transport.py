"""Accuracy of the solvers: discrete factors, order, budgets. Equations of the closed-form law.

Along a direction of clean variance λ the exact network answers φ(σ) e, φ = σ / (σ² + λ), where e is
the deviation of the scaled state from the mean: every scheme becomes a scalar recursion.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule, Spacing
from unseen_core.diffusion.oracle import GaussianEps, MixtureEps
from unseen_core.diffusion.transport import METHODS, Method, denoise, integrate, invert
from unseen_core.laws.gaussian import Gaussian

SHAPE = (1, 2, 2)
VARIANCES = torch.tensor([4.0, 1.0, 0.1, 0.0], dtype=torch.float64)
# Inserted levels (4, 203) make neighbouring steps very unequal.
GRID = (0, 1, 4, 5, 20, 60, 130, 200, 203, 330, 500)


def rotated_law() -> tuple[Gaussian, Tensor]:
    """A law with the eigenvalues VARIANCES in turned directions, and those directions."""
    directions = torch.linalg.qr(Streams(0, "directions", list("abcd")).normal(4))[0]
    factor = directions[:, :3] * VARIANCES[:3].sqrt()
    return Gaussian(torch.full((4,), 0.3), factor, torch.tensor(0.0)), directions


def axis_law(variances: Tensor) -> Gaussian:
    """The law N(0.3, diag(variances))."""
    d = len(variances)
    return Gaussian(torch.full((d,), 0.3), torch.zeros(d, 0), variances)


def expected_deviation(
    schedule: Schedule, levels: tuple[int, ...], method: Method, start: Tensor
) -> Tensor:
    """The scheme's own recursion for the scaled deviation, per mode of VARIANCES."""
    sigma = schedule.sigma(levels)
    seen = schedule.sigma([max(k, 1) for k in levels])
    e, answers = start, []
    for i in range(len(levels) - 1):
        answers.append(seen[i] / (seen[i] ** 2 + VARIANCES) * e)
        h = sigma[i + 1] - sigma[i]
        e = e + h * answers[i]
        if i == 0 or method == "ddim":
            continue
        change = answers[i] - answers[i - 1]
        last = sigma[i] - sigma[i - 1]
        if method == "ab2" or (method != "ddim" and levels[i - 1] == 0):
            e = e + h * min(h / last, 4) / 2 * change
        elif method in ("dpm2m", "dpm3m") and min(levels[i - 1 : i + 2]) > 0:
            steep = i > 1 and step_ratio(sigma[i - 2 : i + 2]) > 4
            third = method == "dpm3m" and i > 1 and levels[i - 2] > 0 and not steep
            order = 3 if third else 2
            e = e - h * answers[i] + interpolated(sigma[i + 1 - order : i + 2], answers[-order:])
    return e


def step_ratio(sigma: Tensor) -> float:
    """The largest ratio of a step in log sigma to the one before it."""
    steps = sigma.log().diff().abs()
    return (steps[1:] / steps[:-1]).max().item()


def interpolated(sigma: Tensor, answers: list[Tensor]) -> Tensor:
    """The integral, over the last step, of Lagrange's polynomial in log sigma: by quadrature."""
    nodes, ends = sigma[:-1].log(), sigma[-2:].log()
    places, shares = np.polynomial.legendre.leggauss(20)
    total = torch.zeros_like(answers[0])
    for place, share in zip(places, shares, strict=True):
        log = ends.mean() + place * ends.diff() / 2
        for j, answer in enumerate(answers):
            others = torch.cat([nodes[:j], nodes[j + 1 :]])
            lagrange = ((log - others) / (nodes[j] - others)).prod()
            total = total + share * ends.diff() / 2 * log.exp() * lagrange * answer
    return total


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", [1, -1], ids=["up", "down"])
def test_loop_equals_its_discrete_factors(schedule: Schedule, method: Method, way: int) -> None:
    law, directions = rotated_law()
    levels = GRID[::way]
    start = torch.tensor([1.0, -0.7, 0.4, 0.2], dtype=torch.float64)
    x = schedule.a(levels[0]) * (law.mean + directions @ start)
    model = GaussianEps(schedule, SHAPE, law)
    end = integrate(model, x.reshape(1, *SHAPE), levels, method=method).flatten()
    measured = directions.T @ (end / schedule.a(levels[-1]) - law.mean)
    expected = expected_deviation(schedule, levels, method, start)
    assert torch.allclose(measured, expected, rtol=1e-9, atol=1e-11)


def test_ddim_loop_equals_the_product_of_unscaled_factors(schedule: Schedule) -> None:
    variances = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    law = axis_law(variances)
    levels = (1, *range(20, 501, 20))
    a, s = schedule.a(levels), schedule.s(levels)
    deviation = variances.sqrt()
    start = (a[0] * law.mean + deviation).reshape(1, 1, 1, 3)
    for i in range(len(levels) - 1):
        both = a[i] * a[i + 1] * variances + s[i] * s[i + 1]
        deviation = deviation * both / (a[i] ** 2 * variances + s[i] ** 2)
    end = integrate(GaussianEps(schedule, (1, 1, 3), law), start, levels, method="ddim").flatten()
    assert (end - a[-1] * law.mean - deviation).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("method", "order", "tolerance"), [("ddim", 1, 0.01), ("ab2", 2, 0.02), ("dpm2m", 2, 0.12)]
)
@pytest.mark.parametrize("way", [1, -1], ids=["up", "down"])
def test_order_of_accuracy(
    schedule: Schedule, method: Method, order: int, tolerance: float, way: int
) -> None:
    # From level 20: at the clean end sigma grows like a square root and hides the order.
    variances = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    law = axis_law(variances)
    model = GaussianEps(schedule, (1, 1, 3), law)
    errors = []
    for steps in (120, 240, 480):
        levels = tuple(20 + 480 * i // steps for i in range(steps + 1))[::way]
        start = law.at(schedule, levels[0])
        x = (start.mean + start.diagonal.sqrt())[None]
        exact = law.transport(x, schedule, levels[0], levels[-1])
        errors.append(
            integrate(model, x.reshape(1, 1, 1, 3), levels, method=method).flatten(1) - exact
        )
    for coarse, fine in pairwise(errors):
        ratio = (coarse / fine).abs()
        assert ((ratio - 2**order).abs() < tolerance * 2**order).all(), ratio


class Parabola:
    """A network whose answer is a parabola in log sigma, whatever the state."""

    def __init__(self, schedule: Schedule) -> None:
        """Keep the schedule."""
        self.schedule, self.shape = schedule, SHAPE

    def __call__(self, x: Tensor, level: int) -> Tensor:
        """1 + 2 l - 3 l^2 with l = log sigma."""
        log = self.schedule.sigma(level).log()
        return torch.ones_like(x) * (1 + 2 * log - 3 * log.square())


@pytest.mark.parametrize("way", [1, -1], ids=["up", "down"])
def test_third_order_is_exact_for_a_parabola(schedule: Schedule, way: int) -> None:
    # The order itself cannot be seen in the test above: the first step is Euler's.
    levels = tuple(range(100, 901, 100))[::way]
    seen: dict[str, list[Tensor]] = {"dpm2m": [], "dpm3m": []}
    for method, states in seen.items():
        integrate(Parabola(schedule), torch.zeros(1, *SHAPE, dtype=torch.float64), levels,
                  method=method, observe=lambda k, x, to=states: to.append(x / schedule.a(k)))
    sigma = schedule.sigma(levels)
    log = sigma.log()
    # The integral of 1 + 2 l - 3 l^2 over sigma is sigma (-7 + 8 l - 3 l^2).
    exact = (sigma * (-7 + 8 * log - 3 * log.square())).diff()[2:]
    errors = {method: (torch.stack(states).diff(dim=0)[1:, 0, 0, 0, 0] / exact - 1).abs().max()
              for method, states in seen.items()}
    assert errors["dpm3m"] < 1e-10 and errors["dpm2m"] > 1e-3, errors


@pytest.mark.parametrize(
    ("method", "spacing", "latent", "round_trip"),
    [
        ("ab2", "quadratic", (2e-2, 6e-3, 2e-3), (1e-2, 4e-3, 1e-3)),
        ("ddim", "quadratic", (8e-2, 4e-2, 2e-2), (2e-1, 1e-1, 5e-2)),
        ("dpm2m", "karras", (6e-3, 2e-3, 8e-4), (1.2e-2, 3e-3, 7e-4)),
        ("dpm3m", "karras", (6e-3, 2e-3, 8e-4), (1.2e-2, 3e-3, 7e-4)),
    ],
)
def test_budgets_from_clean_to_level_500(
    schedule: Schedule,
    method: Method,
    spacing: Spacing,
    latent: tuple[float, ...],
    round_trip: tuple[float, ...],
) -> None:
    variances = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    law = axis_law(variances)
    model = GaussianEps(schedule, (1, 1, 3), law)
    x = (law.mean + variances.sqrt()).reshape(1, 1, 1, 3)
    exact = law.transport(x.flatten(1), schedule, 0, 500).reshape(x.shape)
    for calls, relative, absolute in zip((20, 40, 80), latent, round_trip, strict=True):
        grid = schedule.grid(calls, 500, spacing=spacing)
        z = invert(model, x, grid, method=method)
        assert ((z - exact) / exact).abs().max() < relative
        assert (denoise(model, z, grid, method=method) - x).abs().max() < absolute


def test_second_order_rule_beats_the_others_at_level_900(schedule: Schedule) -> None:
    variances = torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64)
    law = axis_law(variances)
    model = GaussianEps(schedule, (1, 1, 3), law)
    x = (law.mean + variances.sqrt()).reshape(1, 1, 1, 3)
    exact = law.transport(x.flatten(1), schedule, 0, 900).reshape(x.shape)

    def error(method: Method, spacing: Spacing) -> float:
        grid = schedule.grid(40, 900, spacing=spacing)
        return ((invert(model, x, grid, method=method) - exact) / exact).abs().max().item()

    ours = error("dpm2m", "karras")
    assert ours < 7e-3
    assert ours < error("ab2", "quadratic") and ours < error("ddim", "quadratic")


def mixture(schedule: Schedule) -> tuple[MixtureEps, Tensor]:
    """Three overlapping clouds in 12 dimensions, and 24 images drawn from them."""
    means = 0.5 * Streams(0, "means", list("abc")).normal(12)
    variances = torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64)
    model = MixtureEps(schedule, (3, 2, 2), torch.tensor([0.5, 0.3, 0.2]), means, variances)
    component = torch.arange(24) % 3
    noise = Streams(0, "images", [str(i) for i in range(24)]).normal(12)
    images = means[component] + variances[component, None].sqrt() * noise
    return model, images.reshape(24, 3, 2, 2)


@pytest.mark.parametrize("stop", [500, 900])
@pytest.mark.parametrize(
    ("method", "spacing", "budget"),
    [
        ("ddim", "quadratic", (0.25, 0.13, 0.065)),
        ("ab2", "quadratic", (0.05, 6e-3, 8e-4)),
        ("dpm2m", "karras", (0.03, 6e-3, 8e-4)),
        ("dpm3m", "karras", (0.03, 6e-3, 8e-4)),
    ],
)
def test_inversion_and_denoising_undo_each_other_as_calls_grow(
    schedule: Schedule, method: Method, spacing: Spacing, budget: tuple[float, ...], stop: int
) -> None:
    model, images = mixture(schedule)
    errors = []
    for calls in (20, 40, 80):
        grid = schedule.grid(calls, stop, spacing=spacing)
        back = denoise(model, invert(model, images, grid, method=method), grid, method=method)
        errors.append(((back - images).square().mean() / images.square().mean()).sqrt().item())
    assert all(e < b for e, b in zip(errors, budget, strict=True)), errors
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2], errors


def heun(model: MixtureEps, x: Tensor, levels: tuple[int, ...]) -> Tensor:
    """The reference solver: two calls a step, second order, rising levels above clean."""
    schedule = model.schedule
    y = x / schedule.a(levels[0])
    for low, high in pairwise(levels):
        h = schedule.sigma(high) - schedule.sigma(low)
        first = model(y * schedule.a(low), low)
        second = model((y + h * first) * schedule.a(high), high)
        y = y + h / 2 * (first + second)
    return y * schedule.a(levels[-1])


def test_non_linear_latents_agree_with_an_independent_solver(schedule: Schedule) -> None:
    model, images = mixture(schedule)
    x = schedule.a(20) * images
    reference = heun(model, x, tuple(range(20, 701)))
    levels = (20, *(k for k in schedule.grid(80, 700) if k > 20))
    for method, tolerance in (("dpm3m", 1e-3), ("dpm2m", 2e-3), ("ab2", 1e-2), ("ddim", 0.15)):
        error = integrate(model, x, levels, method=method) - reference
        assert error.square().mean().sqrt() < tolerance * reference.square().mean().sqrt(), method
