"""Noise with the statistics of a style: its law, and why a frozen network must fail on it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from closed_forms import dense, down
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts import StyleNoise
from unseen_core.starts.prior import style_law

VARIANCES = torch.tensor([4.0, 1.0, 0.3, 0.05], dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)


def test_the_law_is_that_of_numpy(world) -> None:
    flat = world.flat.numpy()
    for block in (2**27, 8 * 12 * 33):  # at once, and 33 rows at a time
        law = style_law(References.of(world.latents, block=block))
        np.testing.assert_allclose(law.mean.numpy(), flat.mean(0), rtol=1e-12)
        np.testing.assert_allclose(law.diagonal.numpy(), flat.var(0, ddof=1), rtol=1e-10)
        assert law.factor.shape == (12, 0)
    with pytest.raises(UnseenError, match="needs at least 2 fit images, has 1"):
        style_law(References.of(world.latents[:1]))


def test_starts_are_at_full_strength_whatever_the_level(world) -> None:
    law = style_law(References.of(world.images))
    for level in (500, 900):
        starts = StyleNoise().draw(replace(world.context, level=level), world.streams(4))
        assert torch.equal(starts.x.flatten(1), law.sample(world.streams(4)).float())
        assert starts.level == level and starts.parents.shape == (4, 0) and starts.eta == 0


@pytest.mark.parametrize("level", [500, 900, 1000])
def test_a_frozen_network_loses_contrast_and_overdrives_the_mean(
    schedule: Schedule, level: int
) -> None:
    """Mean and variance of a frozen network's images, mode by mode."""
    law = Gaussian(MEAN, torch.zeros(4, 0), VARIANCES)
    style = Gaussian(torch.tensor([-0.6, 0.5, 0.0, 0.9]), torch.zeros(4, 0),
                     torch.tensor([0.2, 0.25, 0.3, 0.1]))
    through = down(GaussianEps(schedule, (4, 1, 1), law), schedule.grid(80, level))
    mean, covariance = through.of(style.mean, dense(style))
    a, s = schedule.a(level), schedule.s(level)
    gain = VARIANCES / (a**2 * VARIANCES + s**2)
    torch.testing.assert_close(mean, MEAN + gain.sqrt() * (style.mean - a * MEAN), rtol=2e-2,
                               atol=1e-3)
    torch.testing.assert_close(covariance.diagonal(), style.diagonal * gain, rtol=2e-2, atol=1e-4)
    assert (covariance.diagonal() < 0.5 * VARIANCES).all()
    if level == 1000:
        offset: Tensor = (mean - MEAN) / style.mean.where(style.mean != 0, torch.ones(4))
        assert offset[0] > 1.9  # sqrt(lambda) = 2 times what was asked for
