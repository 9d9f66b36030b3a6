"""Boomerang keeps of an image what the closed forms say, and the level for a share is found."""

from dataclasses import replace

import pytest
import torch
from closed_forms import Down, down, kappa
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts import Boomerang

SHAPE = (4, 1, 1)
MEAN = torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64)
VARIANCES = torch.tensor([10.0, 1.0, 0.1, 0.1], dtype=torch.float64)
FAR = torch.tensor([9.0, -7.0, 5.0, 3.0], dtype=torch.float64)  # up to 16 sd outside the source
LEVEL = 300


def network(schedule: Schedule, eta: float, level: int = LEVEL) -> Down:
    """What denoising on every level does, for a network that knows MEAN and VARIANCES."""
    law = Gaussian(MEAN, torch.zeros(4, 0), VARIANCES)
    return down(GaussianEps(schedule, SHAPE, law), range(level + 1), eta)


def returned(
    schedule: Schedule, through: Down, mean: Tensor, covariance: Tensor, level: int = LEVEL
) -> tuple[Tensor, Tensor]:
    """Mean and covariance after one pass, up and down."""
    a, s = schedule.a(level), schedule.s(level)
    return through.of(a * mean, a**2 * covariance + s**2 * torch.eye(4).double())


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_content_is_kept_by_kappa(schedule: Schedule, eta: float) -> None:
    """Moments after one pass and after three, of an image far outside the network's domain."""
    through, share = network(schedule, eta), kappa(VARIANCES, schedule, LEVEL) ** (1 + eta**2)
    mean, covariance = FAR, torch.zeros(4, 4).double()
    for passes in (1, 2, 3):
        mean, covariance = returned(schedule, through, mean, covariance)
        torch.testing.assert_close(mean - MEAN, share ** (passes / 2) * (FAR - MEAN), rtol=0.01,
                                   atol=1e-3)
        wanted = VARIANCES * (1 - share**passes)
        # Ancestral steps of finite length make a little less than the variance there is.
        torch.testing.assert_close(covariance, wanted.diag(), rtol=0.03, atol=1e-6)
    for _ in range(60):  # an AR(1) chain that forgets where it began
        mean, covariance = returned(schedule, through, mean, covariance)
    torch.testing.assert_close(covariance.diagonal(), VARIANCES, rtol=0.03, atol=0)


def test_the_rows_of_the_table(schedule: Schedule) -> None:
    """Retained: sqrt(kappa) by the ODE, kappa by ancestral sampling, 1 by inversion."""
    share = kappa(VARIANCES, schedule, LEVEL)
    assert share[:3].tolist() == pytest.approx([0.87, 0.39, 0.06], abs=0.01)
    a = schedule.a(LEVEL)
    for eta, kept in ((0.0, share.sqrt()), (1.0, share)):
        found = a * network(schedule, eta).matrix.diagonal()
        torch.testing.assert_close(found, kept, rtol=0.01, atol=1e-3)


def test_less_is_kept_the_higher_the_level_and_the_noisier_the_way_down(schedule: Schedule) -> None:
    kept = torch.stack([torch.stack([
        schedule.a(level) * network(schedule, eta, level).matrix.diagonal()
        for level in (50, 150, 300, 450)]) for eta in (0.0, 0.5, 1.0)])
    assert (kept.diff(dim=0) < 0).all() and (kept.diff(dim=1) < 0).all()
    assert ((kept > 0) & (kept < 1)).all()


def test_starts_are_noised_images_with_their_parents(world) -> None:
    starts = Boomerang().draw(world.context, world.streams(402))
    assert starts.eta == 1.0 and starts.level == 500 and not starts.passed
    assert starts.parents[[0, 399, 400, 401], 0].tolist() == [0, 399, 0, 1]
    schedule, noise = world.context.schedule, world.streams(402).normal(3, 2, 2)
    wanted = (schedule.a(500) * world.images[starts.parents[:, 0]] + schedule.s(500) * noise)
    torch.testing.assert_close(starts.x, wanted.float())
    assert not torch.equal(starts.x[0], starts.x[400])  # two copies of one image
    again = Boomerang(eta=0.0).draw(world.context, world.streams(402))
    assert torch.equal(again.x, starts.x) and again.eta == 0.0
    alone = Boomerang().draw(world.context, world.streams(402)[[7]])
    assert torch.equal(alone.x[0], starts.x[7])


def test_level_zero_returns_the_images(world) -> None:
    starts = Boomerang().draw(world.pixels, world.streams(400))
    assert torch.equal(starts.x, world.images.float())


def test_images_stay_bytes_until_they_are_drawn(world) -> None:
    pixels = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    context = replace(world.pixels, images=References.of(pixels))
    starts = Boomerang().draw(context, world.streams(2))
    torch.testing.assert_close(starts.x, pixels.float() / 127.5 - 1)


def test_what_is_missing_is_named(world) -> None:
    bare = replace(world.context, images=None)
    with pytest.raises(UnseenError, match=r"level 500 need the clean fit images; give"):
        Boomerang().draw(bare, world.streams(1))
    with pytest.raises(UnseenError, match="boomerang: sample ids must be numbers"):
        Boomerang().draw(world.context, Streams(0, "p", ["a"]))
    with pytest.raises(UnseenError, match=r"eta 1\.5 is out of range"):
        Boomerang(eta=1.5)
