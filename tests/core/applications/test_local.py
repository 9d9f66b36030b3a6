"""Local samples: moments on a Gaussian model, nodes of the grid, and what is left of an image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unseen_core.applications import (
    boomerang,
    expected_move,
    grid_through,
    level_of,
    mean_interval,
)
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import Pixels

SHAPE, COUNT = (3, 2, 2), 800


@pytest.fixture(scope="module")
def model(schedule):
    """A network that has learnt one wide direction, and little else."""
    wide = torch.zeros(12, 1, dtype=torch.float64)
    wide[0] = 2.0
    law = Gaussian(torch.full((12,), 0.3), wide, torch.tensor(0.05))
    return GaussianEps(schedule, SHAPE, law)


def around(model, image, level, *, eta, passes=1, batch=COUNT, seed=0, count=COUNT, steps=60):
    grid = grid_through(model.schedule, [level], steps=steps, spacing="karras")
    streams = Streams(seed, "test", [str(i) for i in range(count)])
    return boomerang(model, Pixels(), image.expand(count, *SHAPE), level, grid, eta=eta,
                     method="dpm3m", streams=streams, batch=batch, passes=passes)


@pytest.fixture(scope="module")
def far():
    """An image far outside what the network has learnt, along every direction."""
    return torch.linspace(-4, 4, 12, dtype=torch.float64).reshape(SHAPE)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("passes", [1, 2])
def test_the_share_that_is_kept_is_that_of_the_closed_form(model, far, eta, passes):
    level = 300
    a, s = model.schedule.a(level), model.schedule.s(level)
    variances = torch.full((12,), 0.05, dtype=torch.float64)
    variances[0] += 4.0
    kept = (a**2 * variances / (a**2 * variances + s**2)) ** (passes * (1 + eta**2) / 2)
    # Few steps with fresh noise leave too little of it.
    x = around(model, far, level, eta=eta, passes=passes, steps=60 + 240 * int(eta)).flatten(1)
    mean = model.law.mean + kept * (far.flatten() - model.law.mean)
    spread = variances * (1 - kept**2)
    assert torch.allclose(x.mean(0), mean, atol=5 * (4.05 / COUNT) ** 0.5, rtol=0.02)
    assert torch.allclose(x.var(0), spread, rtol=0.25)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_how_far_samples_move_is_as_expected(model, far, eta):
    for level in (100, 500):
        moved = (around(model, far, level, eta=eta) - far).square().mean().item()
        expected = expected_move(model.law, far[None], model.schedule, level, eta).item()
        assert moved == pytest.approx(expected, rel=0.06)
    assert expected_move(model.law, far[None], model.schedule, 0, eta).item() == 0
    whole = expected_move(model.law, far[None], model.schedule, 1000, eta).item()
    offset = (far.flatten() - model.law.mean).square().mean() + model.law.trace / 12
    assert whole == pytest.approx(offset.item(), rel=0.02)


def test_level_zero_returns_the_images_and_fraction_one_forgets_them(model, far):
    assert around(model, far, 0, eta=1.0, count=3).equal(far.expand(3, *SHAPE))
    x = around(model, far, 1000, eta=1.0).flatten(1).mean(0)
    assert (x - model.law.mean).abs().max() < 0.2 < (far.flatten() - model.law.mean).abs().max()


def test_copies_differ_and_depend_on_their_names_alone(model, far):
    x = around(model, far, 400, eta=1.0, count=4, steps=8)
    assert (x[0] - x[1]).abs().max() > 0.01
    again = around(model, far, 400, eta=1.0, count=4, steps=8, batch=3)
    assert torch.allclose(x, again, atol=1e-12)
    assert not x.equal(around(model, far, 400, eta=1.0, count=4, steps=8, seed=1))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_every_level_becomes_a_node(schedule, levels):
    grid = grid_through(schedule, levels, steps=12, spacing="karras")
    assert grid[0] == 0 and grid[-1] == 1000 and set(levels) <= set(grid)
    assert len(grid) - 1 <= 14


def test_fractions_are_of_the_whole_schedule(schedule):
    assert [level_of(p, schedule) for p in (0, 0.05, 0.3, 1)] == [0, 50, 300, 1000]
    with pytest.raises(UnseenError, match=r"fraction 1.2"):
        level_of(1.2, schedule)


def test_a_level_beside_the_grid_is_refused(model, far):
    streams = Streams(0, "test", ["0"])
    settings = {"eta": 1.0, "method": "dpm3m", "streams": streams, "batch": 1}
    with pytest.raises(UnseenError, match="level 301 is not on the grid"):
        boomerang(model, Pixels(), far[None], 301, (0, 100, 300, 500), **settings)
    with pytest.raises(UnseenError, match="0 passes"):
        boomerang(model, Pixels(), far[None], 300, (0, 300), **settings, passes=0)


def test_students_interval_is_that_of_the_tables():
    found = mean_interval(torch.tensor([1.0, 2.0, 3.0]))
    # t of 2 degrees of freedom at 97.5 %: 4.3027; standard error 1 / sqrt(3).
    assert found.value == 2 and found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)
    with pytest.raises(UnseenError, match="two or more"):
        mean_interval(torch.tensor([1.0]))
