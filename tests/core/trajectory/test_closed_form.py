"""Exact networks, in float64: the closed forms are what the measures find."""

import pytest
import torch
from torch import Tensor

from unseen_core.analysis.trajectory import (
    Spectrum,
    closed_form,
    cosines,
    dimension,
    emergence_level,
    explained,
    half_levels,
    kick,
    mode_groups,
    predicted_gain,
    predicted_levels,
    record,
    record_inversion,
    residuals,
)
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

SHAPE = (1, 3, 4)
D = 12
VARIANCES = torch.tensor([50.0, 4.0, 1.0, 0.1], dtype=torch.float64)


def normals(name: str, *shape: int) -> Tensor:
    """Standard normals, float64, that belong to ``name``."""
    return Streams(0, name, ["all"]).normal(*shape)[0]


def law_of(variances: Tensor, remainder: float = 0.0) -> tuple[Gaussian, Tensor]:
    """A law with these variances along turned directions, and the directions."""
    directions = torch.linalg.qr(normals("directions", D, D)).Q[:, : len(variances)]
    factor = directions * (variances - remainder).sqrt()
    return Gaussian(torch.full((D,), 0.3), factor, torch.tensor(remainder)), directions


@pytest.fixture(scope="module")
def runs(schedule: Schedule):
    """Sixteen runs of an exact network on a fine grid, and their closed form."""
    law, directions = law_of(VARIANCES)
    oracle = GaussianEps(schedule, SHAPE, law)
    x = normals("start", 16, *SHAPE)
    grid = schedule.grid(400, schedule.top)
    return law, directions, record(oracle, x, grid), closed_form(oracle, x, grid)


def test_the_closed_form_is_the_integral(runs) -> None:
    _, _, measured, exact = runs
    assert measured.levels == exact.levels and measured.levels[0] == 1000
    scale = exact.states.norm(dim=2)
    assert ((measured.states - exact.states).norm(dim=2) / scale).max() < 2e-3
    torch.testing.assert_close(measured.clean[-1], measured.states[-1], rtol=0, atol=0)


def test_predicted_images_are_the_wiener_filter_of_the_state(runs, schedule: Schedule) -> None:
    law, directions, _, exact = runs
    for n in (0, 100, 300, len(exact.levels) - 2):
        level = exact.levels[n]
        a, sigma = schedule.a(level), schedule.sigma(level)
        c = (exact.states[n] / a - law.mean) @ directions
        wiener = law.mean + (c * VARIANCES / (VARIANCES + sigma**2)) @ directions.T
        torch.testing.assert_close(exact.clean[n], wiener, rtol=1e-9, atol=1e-9)


def test_content_off_the_span_ends_at_nothing(runs) -> None:
    law, directions, measured, exact = runs

    def off(x: Tensor) -> Tensor:
        y = x - law.mean
        return (y - y @ directions @ directions.T).norm(dim=1).max()

    assert off(exact.states[0]) > 1
    assert off(exact.states[-1]) < 1e-12
    assert off(measured.states[-1]) < 0.02


def test_no_more_dimensions_than_variances_and_the_mean(runs, schedule: Schedule) -> None:
    # Variances 50, 4, 1, .1 and 0, and the mean; points are centred, so an affine dimension.
    _, _, _, exact = runs
    assert dimension(explained(exact.states), 1 - 1e-10).max() <= 6
    law, _ = law_of(VARIANCES[:1])
    oracle = GaussianEps(schedule, SHAPE, law)
    few = closed_form(oracle, normals("few", 3, *SHAPE), schedule.grid(40, 1000))
    assert dimension(explained(few.states), 1 - 1e-10).max() <= 3
    assert (dimension(explained(exact.states), 0.9) < 6).all()
    shares = explained(few.states)
    torch.testing.assert_close(shares[:, -1], torch.ones(3, dtype=torch.float64))
    assert (shares.diff(dim=1) > -1e-12).all()


def test_the_rotation_is_too_long_by_its_closed_form(schedule: Schedule) -> None:
    law = Gaussian(torch.zeros(D), torch.zeros(D, 0), torch.tensor(4.0))
    oracle = GaussianEps(schedule, SHAPE, law)
    run = closed_form(oracle, normals("one", 5, *SHAPE), schedule.grid(30, 1000))
    found = residuals(run.states, run.levels, schedule)
    assert found.plane.max() < 1e-20  # one variance: a straight ray
    for n, level in enumerate(run.levels):
        a, s = schedule.a(level), schedule.s(level)
        ratio = (2 * a + s) / (4 * a**2 + s**2).sqrt()  # of a mode of variance 4, from pure noise
        # The start is x_T at a_T = .0063, not noise: that much is left over.
        torch.testing.assert_close(found.size[n], ratio.expand(5), rtol=0.01, atol=0)
        torch.testing.assert_close(found.rotation[n], ((ratio - 1) ** 2).expand(5), rtol=0.1,
                                   atol=1e-4)


def test_residuals_agree_with_least_squares(runs, schedule: Schedule) -> None:
    _, _, _, exact = runs
    found = residuals(exact.states, exact.levels, schedule)
    n, seed = 120, 3
    x = exact.states[:, seed]

    def outside(y: Tensor, basis: Tensor) -> float:
        left = y - basis.T @ torch.linalg.lstsq(basis.T, y[:, None]).solution[:, 0]
        return (left.square().sum() / y.square().sum()).item()

    assert found.plane[n, seed].item() == pytest.approx(outside(x[n], x[[0, -1]]), abs=1e-10)
    assert found.pair[n, seed].item() == pytest.approx(outside(x[-1], x[[0, n]]), abs=1e-10)
    assert found.span[1, seed].item() == pytest.approx(outside(x[-1], x[:2]), abs=1e-10)
    # At the start there is x_T alone, and every plane holds what spans it.
    torch.testing.assert_close(found.pair[0], found.span[0], rtol=1e-9, atol=1e-12)
    for share in (found.plane[0], found.plane[-1], found.rotation[-1], found.pair[-1]):
        assert share.max() < 1e-20 or share is found.rotation[-1]
    assert (found.span.diff(dim=0) < 1e-12).all()


def test_inverted_states_come_in_the_same_order(schedule: Schedule) -> None:
    law, _ = law_of(VARIANCES, 0.05)  # without a remainder images do not tell of what is off it
    oracle, grid = GaussianEps(schedule, SHAPE, law), schedule.grid(100, 500)
    exact = closed_form(oracle, normals("up", 4, *SHAPE), grid)
    states = record_inversion(oracle, exact.states[-1].reshape(-1, *SHAPE), grid)
    torch.testing.assert_close(states[-1], exact.states[-1], rtol=0, atol=0)
    for n in (0, 50, -2):
        assert (states[n] - exact.states[n]).norm() < 0.02 * exact.states[n].norm()
    with pytest.raises(UnseenError, match="falling to 0"):
        residuals(states, grid, schedule)  # rises


def test_cosines_of_a_straight_and_of_a_turning_path() -> None:
    line = torch.arange(6.0)[:, None, None] * torch.ones(1, 2, 3)
    assert {lag: value.tolist() for lag, value in cosines(line, (1, 4, 5)).items()} == {
        1: pytest.approx([1, 1]), 4: pytest.approx([1, 1])}
    corner = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])[:, None]
    found = cosines(corner, (1, 2))
    assert found[1].item() == pytest.approx(0) and found[2].item() == pytest.approx(-1)


def test_half_of_a_mode_is_there_at_its_level(runs, schedule: Schedule) -> None:
    law, _, measured, exact = runs
    spectrum = Spectrum.of(law)
    torch.testing.assert_close(spectrum.variances, VARIANCES)
    groups = mode_groups(4)
    predicted = predicted_levels(spectrum.variances, groups, schedule)
    for run in (measured, exact):
        energy = spectrum.coordinates(run.clean).square().mean(1)
        found = half_levels(energy[:-1] / energy[-1], run.levels[:-1], schedule)
        # Between nodes nothing is lost; the integral has its own error near the clean end.
        assert found == pytest.approx(predicted, abs=0.1 if run is exact else 3)
    coarse = closed_form(GaussianEps(schedule, SHAPE, law), normals("start", 16, *SHAPE),
                         schedule.grid(8, 1000))
    energy = spectrum.coordinates(coarse.clean).square().mean(1)
    assert half_levels(energy[:-1] / energy[-1], coarse.levels[:-1], schedule) == pytest.approx(
        predicted, abs=0.1)
    assert predicted == sorted(predicted, reverse=True)
    for variance, level in zip(VARIANCES.tolist(), predicted, strict=True):
        exact_level = emergence_level(variance, schedule)
        assert level == pytest.approx(exact_level, abs=0.01)
        assert schedule.alpha_bar[round(exact_level)].item() == pytest.approx(
            1 / (1 + variance), rel=0.03)


def test_emergence_levels_of_the_linear_schedule(schedule: Schedule) -> None:
    table = {1000: 826, 100: 675, 10: 485, 1: 259, 0.1: 93, 0.01: 27}
    assert {v: round(emergence_level(v, schedule)) for v in table} == table


@pytest.mark.parametrize("level", [1000, 600, 300, 60])
def test_gains_are_those_of_finite_differences(schedule: Schedule, level: int) -> None:
    remainder = 0.02
    law, directions = law_of(VARIANCES, remainder)
    oracle, spectrum = GaussianEps(schedule, SHAPE, law), Spectrum.of(law)
    x = normals("kicked", 3, *SHAPE)
    off = spectrum.off_span(normals("off", 3, D))
    assert (off @ directions).abs().max() < 1e-12
    unit = torch.cat([spectrum.directions.T.expand(3, -1, -1), off[:, None]], 1)
    found = kick(oracle, x, schedule.grid(300, level), unit, size=0.7, batch=5)
    wanted = [predicted_gain(v, schedule, level) for v in (*VARIANCES.tolist(), remainder)]
    # The last step to clean is Euler's: relative errors are largest for small variances.
    for mode, gain in enumerate(wanted):
        torch.testing.assert_close(found.gain[:, mode], torch.full((3,), gain).double(),
                                   rtol=0.02, atol=1e-3)
    torch.testing.assert_close(found.response, found.gain.abs(), rtol=1e-6, atol=1e-9)
    forward = (found.moved - found.plain[:, None]) * unit
    torch.testing.assert_close(forward.sum(2) / 0.7, found.gain, rtol=1e-6, atol=1e-9)


def test_no_gain_off_the_span_of_a_law_without_remainder(schedule: Schedule) -> None:
    law, _ = law_of(VARIANCES)
    off = Spectrum.of(law).off_span(normals("off", 1, D))
    found = kick(GaussianEps(schedule, SHAPE, law), normals("x", 1, *SHAPE),
                 schedule.grid(200, 500), off, size=1.0, batch=9)
    assert found.gain.abs().max() < 0.01
    assert predicted_gain(0.0, schedule, 500) == 0
    assert predicted_gain(100.0, schedule, 1000) == pytest.approx(10, rel=0.01)
    with pytest.raises(UnseenError, match="is not a length"):
        kick(GaussianEps(schedule, SHAPE, law), normals("x", 1, *SHAPE), (0, 5), off, size=0.0,
             batch=9)
