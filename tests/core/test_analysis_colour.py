"""Control of low frequencies: on the Gaussian oracle slope and spread are exactly the predicted."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unseen_core.analysis.steering.colour import (
    CONTROLS,
    Control,
    best_level,
    linearity,
    predicted_control,
    spread_row,
)
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.frequency import dct
from unseen_core.laws.gaussian import Gaussian

SHAPE = (3, 4, 6)
D = 72


def numbers(name: str, n: int, *shape: int) -> Tensor:
    """Standard normals that belong to ``name``."""
    return Streams(0, name, [str(i) for i in range(n)]).normal(*shape)


def law_of(coupled: bool) -> Gaussian:
    """Variances 30, 20 and 10 of the channels' means, alone or with a common part of 15."""
    basis = Control.of("colour", SHAPE).basis
    inner = torch.diag(torch.tensor([30.0, 20.0, 10.0]).double() - 0.3)
    if coupled:
        inner = inner + 15
    return Gaussian(torch.full((D,), 0.2), basis @ torch.linalg.cholesky(inner), torch.tensor(0.3))


def exact(law: Gaussian, x: Tensor, schedule: Schedule, level: int) -> Tensor:
    """The clean images that a perfect network makes of states (n, d)."""
    return law.transport(x, schedule, level, 0)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_reads_what_it_wrote_and_leaves_the_rest(name: str) -> None:
    control, images = Control.of(name, SHAPE), numbers("images", 5, *SHAPE)
    wanted = numbers("wanted", 5, 3)
    changed = control.write(images.flatten(1), wanted).reshape(images.shape)
    assert torch.allclose(control.read(changed), wanted)
    before, after = dct(images), dct(changed)
    place = (0, 0) if name == "colour" else (0, 1)  # half a wave across
    assert torch.allclose(after[..., place[0], place[1]], wanted * 24**0.5)
    difference = (after - before).abs()
    difference[..., place[0], place[1]] = 0
    assert difference.max() < 1e-12
    if name == "colour":
        assert torch.allclose(changed.mean((2, 3)), wanted)


@pytest.mark.parametrize("level", [50, 400, 1000])
def test_the_slope_is_the_root_of_kappa(schedule: Schedule, level: int) -> None:
    law, control = law_of(coupled=False), Control.of("colour", SHAPE)
    mean, covariance = control.moments(law)
    assert torch.allclose(covariance, torch.diag(torch.tensor([30.0, 20.0, 10.0]).double()))
    assert torch.allclose(mean, torch.full((3,), 0.2 * 24**0.5).double())
    wanted = numbers("wanted", 20, 3)
    leak = control.write(numbers("leak", 20, D), wanted)
    found = control.read(exact(law, schedule.a(level) * leak, schedule, level))
    a, s = schedule.a(level), schedule.s(level)
    for channel, predicted in enumerate(predicted_control(schedule, level, covariance, 1.0, 24**0.5
                                                          )[:3]):
        variance = covariance[channel, channel]
        root = (a**2 * variance / (a**2 * variance + s**2)).sqrt().item()
        fit = linearity(wanted[:, channel : channel + 1], found[:, channel : channel + 1], draws=50)
        # Without noise, and with channels apart, the image is a line of what was set.
        assert fit.slope.value == pytest.approx(root, rel=1e-9)
        assert fit.r2.value == pytest.approx(1)
        assert predicted.alone == pytest.approx(root) and predicted.slope == pytest.approx(root)


def exact_normals(name: str, n: int, count: int) -> Tensor:
    """Numbers (n, count) whose sample mean is 0 and sample covariance the identity."""
    z = numbers(name, n, count)
    return torch.linalg.qr(z - z.mean(0))[0] * (n - 1) ** 0.5


def test_a_perfect_network_shows_slope_and_r2_of_the_joint_law(schedule: Schedule) -> None:
    law, control, level = law_of(coupled=True), Control.of("colour", SHAPE), 600
    a, s = schedule.a(level), schedule.s(level)
    _, covariance = control.moments(law)
    z = exact_normals("z", 40, 6)
    wanted, noise = 0.8 * z[:, :3], z[:, 3:]
    x = control.write(numbers("rest", 40, D), a * wanted + s * noise / control.scale)
    found = control.read(exact(law, x, schedule, level))
    predictions = predicted_control(schedule, level, covariance, 0.8, control.scale)
    parts = [slice(0, 1), slice(1, 2), slice(2, 3), slice(None)]
    for part, predicted in zip(parts, predictions, strict=True):
        fit = linearity(wanted[:, part], found[:, part], draws=50)
        assert fit.slope.value == pytest.approx(predicted.slope)
        assert fit.r2.value == pytest.approx(predicted.r2)
        assert 0.2 < predicted.r2 < 0.9
    assert predictions[2].alone > predictions[2].slope + 0.02  # coupled channels hold each other


@pytest.mark.parametrize("level", [300, 700])
def test_noise_lacks_the_spread_of_l5(schedule: Schedule, level: int) -> None:
    law, control, n = law_of(coupled=True), Control.of("colour", SHAPE), 40
    mean, covariance = control.moments(law)
    z = exact_normals("z", n, 6)
    x = control.write(numbers("x", n, D), z[:, :3] / control.scale)
    true = (mean + z[:, 3:] @ torch.linalg.cholesky(covariance).T) / control.scale
    real = control.write(numbers("real", n, D), true).reshape(-1, *SHAPE)
    images = exact(law, x, schedule, level).reshape(-1, *SHAPE)
    row = spread_row(control, images, real, law, schedule, level)
    assert row["sd_ratio"] == pytest.approx(row["predicted_sd_ratio"])
    assert row["sd_ratio_low"] < row["sd_ratio"] < row["sd_ratio_high"]
    assert row["shift"] == pytest.approx(row["predicted_shift"])
    assert 0.1 < row["predicted_sd_ratio"] < (0.5 if level == 300 else 0.9)
    # One mode: without what is left of the images at the level.
    a, s = schedule.a(level), schedule.s(level)
    single = law_of(coupled=False)
    lone = Gaussian(single.mean, single.factor[:, :1], single.diagonal)
    variances = torch.tensor([30.0, 0.3, 0.3]).double()
    row = spread_row(control, images, real, lone, schedule, level)
    left = (variances / (a**2 * variances + s**2)).sum() / variances.sum()
    assert row["predicted_sd_ratio"] == pytest.approx(left.sqrt().item())


def test_linearity_is_least_squares_with_intervals_as_wide_as_they_should_be() -> None:
    wanted = numbers("w", 200, 1)
    found = 0.5 * wanted + 0.5 * numbers("n", 200, 1)
    fit = linearity(wanted, found)
    x, y = wanted[:, 0].numpy(), found[:, 0].numpy()
    assert fit.slope.value == pytest.approx(np.polyfit(x, y, 1)[0])
    assert fit.r2.value == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    error = 0.5 / (x.std() * len(x) ** 0.5)
    assert fit.slope.high - fit.slope.low == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert fit.slope.low < 0.5 < fit.slope.high
    # Pooled columns share a slope, whatever their own means are.
    shifted = linearity(wanted.repeat(1, 2), torch.cat([found, found + 7], 1))
    assert shifted.slope.value == pytest.approx(fit.slope.value)
    assert set(fit.row()) == {"slope", "slope_low", "slope_high", "r2", "r2_low", "r2_high"}


def test_the_best_level_is_found_and_so_is_the_highest_good_one() -> None:
    def row(level: int, r2: float, slope: float, high: float) -> dict[str, float]:
        return {"level": level, "r2": r2, "slope": slope, "r2_high": high}

    rows = [row(100, 0.999, 1.05, 1.0), row(300, 0.998, 1.01, 0.9995), row(500, 0.96, 0.9, 0.97),
            row(700, 0.6, 0.6, 0.7)]
    assert best_level(rows) == (300, 500)
    assert best_level(rows[-1:]) == (700, None)


def test_mistakes_are_named() -> None:
    with pytest.raises(UnseenError, match="control 'warmth'"):
        Control.of("warmth", SHAPE)
    with pytest.raises(UnseenError, match="n at least 3"):
        linearity(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(UnseenError, match="one value"):
        linearity(torch.ones(5, 3), torch.ones(5, 3))
