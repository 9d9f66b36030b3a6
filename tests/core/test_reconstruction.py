"""Round trips on the Gaussian oracle; the bandwidth against its closed form."""

import numpy as np
import pytest
import torch

from unseen_core.analysis.latents.bandwidth import bandwidth
from unseen_core.analysis.latents.reconstruction import reconstruction
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import ancestral, denoise, invert
from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import psnr
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import Pixels

SHAPE = (3, 4, 4)
NAMES = [str(i) for i in range(9)]


def oracle(schedule: Schedule, variance: float = 0.3) -> GaussianEps:
    """The exact network of N(0, variance I)."""
    law = Gaussian(torch.zeros(48), torch.zeros(48, 0), torch.tensor(variance))
    return GaussianEps(schedule, SHAPE, law)


def images() -> torch.Tensor:
    """Nine images, float64."""
    return 0.5 * Streams(0, "images", NAMES).normal(*SHAPE)


def test_rows_are_the_round_trips_of_the_pipeline(schedule: Schedule) -> None:
    model, x, levels = oracle(schedule), images(), (300, 700)
    rows = reconstruction(model, Pixels(), x, levels, (12, 40), method="dpm3m", spacing="karras")
    assert [(row["steps"], row["level"]) for row in rows] == [
        (12, 300), (12, 700), (40, 300), (40, 700)]
    grid = schedule.grid(12, 700, through=(300,))[: rows[0]["calls"] + 1]
    assert grid[-1] == 300
    back = denoise(model, invert(model, x, grid), grid)
    assert rows[0]["psnr"] == pytest.approx(psnr((back + 1) / 2, (x + 1) / 2).median().item())
    assert rows[0]["mae"] == pytest.approx(
        ((back - x).abs() / 2).flatten(1).mean(1).median().item())
    for coarse, fine in ((0, 2), (1, 3)):
        assert rows[fine]["relative"] < rows[coarse]["relative"] / 3
        assert rows[fine]["mse"] < rows[coarse]["mse"] / 9


def test_bandwidth_is_that_of_the_closed_form(schedule: Schedule) -> None:
    variance, level = 0.3, 600
    model, x = oracle(schedule, variance), images()
    grid = schedule.grid(100, level, spacing="uniform")
    latent = invert(model, x, grid, method="ddim")
    etas = (0.0, 0.2, 0.3, 0.4)
    kept = []
    for eta in etas:
        streams = Streams(1, f"noise{eta}", [str(i) for i in range(len(x) * 60)])
        many = ancestral(model, latent.repeat(60, 1, 1, 1), grid, eta=eta, streams=streams)
        # Regression on the original: what is left of each deviation, the noise averaged out.
        mean = many.reshape(60, len(x), -1).mean(0)
        flat = x.flatten(1)
        kept.append(((mean * flat).sum(1) / flat.square().sum(1)).numpy())
    found = bandwidth(etas, np.array(kept))
    a, s = schedule.a(level).item(), schedule.s(level).item()
    kappa = a**2 * variance / (a**2 * variance + s**2)
    exact = np.sqrt(2 * np.log(0.9) / np.log(kappa))
    assert 0.1 < exact < 0.5
    assert found.value == pytest.approx(exact, rel=0.08)
    assert found.low <= found.value <= found.high


def test_bandwidth_interpolates_and_ignores_a_late_rise() -> None:
    kept = np.array([[1.0], [0.95], [0.85], [1.0]])
    assert bandwidth((0, 0.1, 0.2, 0.3), kept).value == pytest.approx(0.15)
    assert bandwidth((0, 0.1), np.array([[1.0], [0.99]])).value == 0.1
    spread = np.array([[1.0] * 6, [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    wide = bandwidth((0, 0.1, 0.2), spread)
    assert wide.low < wide.value < wide.high


@pytest.mark.parametrize(("etas", "shape"), [
    ((0.1, 0.2), (2, 3)), ((0.0,), (1, 3)), ((0.0, 0.2, 0.1), (3, 3)), ((0.0, 0.1), (3, 2)),
    ((0.0, 0.1), (2, 0)),
])
def test_mistakes_are_named(etas: tuple[float, ...], shape: tuple[int, int]) -> None:
    with pytest.raises(UnseenError, match=r"etas|kept"):
        bandwidth(etas, np.ones(shape))
