"""The jump over the first levels ends where the whole run ends."""

from dataclasses import replace

import pytest
import torch
from closed_forms import dense, down

from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.starts import Teleport


@pytest.mark.parametrize("level", [100, 500, 900])
def test_a_jump_ends_where_the_whole_run_ends(world, level: int) -> None:
    schedule = world.context.schedule
    grid = schedule.grid(120, schedule.top, through=(level,))
    there = replace(world.context, level=level)
    starts = Teleport().draw(there, world.streams(30))
    assert starts.level == level and starts.parents.shape == (30, 0) and starts.eta == 0
    noise = world.streams(30).normal(3, 2, 2)
    whole = denoise(world.model, noise, grid)
    part = denoise(world.model, starts.x.double(), grid[: grid.index(level) + 1])
    torch.testing.assert_close(part, whole, rtol=0, atol=5e-3)
    assert (noise - whole).abs().mean() > 0.5  # something was carried


def test_the_jump_alone_makes_images_of_the_learnt_law(world) -> None:
    """At level 0 the map of noise is exact: the flow with the last level's little signal."""
    source, schedule = world.source, world.context.schedule
    starts = Teleport().draw(world.pixels, world.streams(5)).x.flatten(1).double()
    noise = world.streams(5).normal(3, 2, 2).flatten(1)
    variances, directions = torch.linalg.eigh(dense(source))
    a, s = schedule.a(schedule.top), schedule.s(schedule.top)
    gain = (variances / (a**2 * variances + s**2)).sqrt()
    wanted = source.mean + ((noise - a * source.mean) @ directions * gain) @ directions.T
    torch.testing.assert_close(starts, wanted, rtol=0, atol=1e-5)


def test_moments_at_a_level_are_those_of_noised_images(world) -> None:
    """Up to the mean that the last level still tells of: noise there is not quite the law."""
    source, schedule, level = world.source, world.context.schedule, 500
    units = torch.cat([torch.zeros(1, 12), torch.eye(12)]).double()
    ends = source.transport(units, schedule, schedule.top, level)
    matrix, mean = (ends[1:] - ends[0]).T, ends[0]
    wanted = source.at(schedule, level)
    torch.testing.assert_close(matrix @ matrix.T, dense(wanted), rtol=0, atol=1e-3)
    torch.testing.assert_close(mean, wanted.mean, rtol=0, atol=0.01)
    images, _ = down(world.model, world.grid).of(mean, matrix @ matrix.T)
    torch.testing.assert_close(images, source.mean, rtol=0, atol=0.02)


def test_from_the_last_level_nothing_is_carried(world) -> None:
    top = replace(world.context, level=1000)
    starts = Teleport().draw(top, world.streams(3))
    assert torch.equal(starts.x, world.streams(3).normal(3, 2, 2).float())


def test_what_is_missing_is_named(world) -> None:
    with pytest.raises(UnseenError, match="level 500 need the law of what the network has learnt"):
        Teleport().draw(replace(world.context, source=None), world.streams(1))
    law = Gaussian(torch.zeros(12), torch.ones(12, 1), torch.ones(12))
    with pytest.raises(UnseenError, match="no closed-form modes"):
        Teleport().draw(replace(world.context, source=law), world.streams(1))
