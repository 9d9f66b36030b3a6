"""Behaviour of the loop: library agreement, requested levels, batches, no clipping, mistakes."""

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.diffusion.oracle import GaussianEps, MixtureEps
from unseen_core.diffusion.transport import METHODS, Method, ancestral, denoise, integrate, invert
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

SHAPE = (3, 2, 2)
NAMES = [str(i) for i in range(8)]


def mixture(schedule: Schedule) -> MixtureEps:
    """Three overlapping clouds in 12 dimensions."""
    means = 0.5 * Streams(0, "means", list("abc")).normal(12)
    return MixtureEps(schedule, SHAPE, torch.ones(3) / 3, means, torch.tensor([0.1, 0.3, 0.2]))


def states(scale: float = 1.0) -> Tensor:
    """Eight states, float64."""
    return scale * Streams(0, "states", NAMES).normal(*SHAPE)


@pytest.mark.parametrize("timestep", [999, 500, 20, 0])
def test_one_step_equals_diffusers(schedule: Schedule, timestep: int) -> None:
    theirs = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    theirs.set_timesteps(50)  # steps of 20; from below 20 straight to clean
    model, x = mixture(schedule), states()
    level = timestep + 1
    expected = theirs.step(model(x, level), timestep, x).prev_sample
    ours = integrate(model, x, (level, max(level - 20, 0)), method="ddim")
    assert (ours - expected).abs().max() < 1e-5


def test_clipping_would_be_seen(schedule: Schedule) -> None:
    theirs = DDIMScheduler(clip_sample=True, set_alpha_to_one=True)
    theirs.set_timesteps(50)
    model, x = mixture(schedule), states(2.0)
    clipped = theirs.step(model(x, 501), 500, x).prev_sample
    assert (integrate(model, x, (501, 481), method="ddim") - clipped).abs().max() > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_states_far_outside_the_image_range_are_not_clipped(
    schedule: Schedule, method: Method
) -> None:
    law = Gaussian(torch.zeros(12), torch.zeros(12, 0), torch.tensor(0.3))
    model, grid = GaussianEps(schedule, SHAPE, law), schedule.grid(20, 700)
    small, large = states(0.1), states(100.0)
    z = invert(model, large, grid, method=method)
    assert torch.allclose(z, 1000 * invert(model, small, grid, method=method), rtol=1e-9)
    down = denoise(model, large, grid, method=method)
    assert torch.allclose(down, 1000 * denoise(model, small, grid, method=method), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_one_trajectory_serves_every_requested_level(schedule: Schedule, method: Method) -> None:
    model, images = mixture(schedule), states(0.5).float()
    wanted = (300, 500, 700)
    grid = schedule.grid(30, 900, through=wanted)
    seen: dict[int, Tensor] = {}
    end = invert(model, images, grid, method=method, observe=lambda k, x: seen.update({k: x}))
    assert tuple(seen) == grid[1:] and torch.equal(seen[900], end)
    for level in wanted:
        prefix = grid[: grid.index(level) + 1]
        assert seen[level].dtype == images.dtype
        assert torch.equal(seen[level], invert(model, images, prefix, method=method))


def test_denoise_is_the_loop_read_downwards(schedule: Schedule) -> None:
    model, x, grid = mixture(schedule), states(), schedule.grid(10, 500)
    assert torch.equal(denoise(model, x, grid), integrate(model, x, grid[::-1]))
    assert torch.equal(denoise(model, x, (0,)), x), "from level 0 there is nothing to do"


def test_float32_states_are_carried_in_float64(schedule: Schedule) -> None:
    model, x, grid = mixture(schedule), states(0.5), schedule.grid(40, 900)
    narrow = invert(model, x.float(), grid)
    assert narrow.dtype == torch.float32
    assert (narrow - invert(model, x, grid)).abs().max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_results_do_not_depend_on_the_batch(schedule: Schedule, method: Method) -> None:
    model, x, grid = mixture(schedule), states(0.5), schedule.grid(15, 500)
    whole = invert(model, x, grid, method=method)
    parts = torch.cat([invert(model, part, grid, method=method) for part in x.split(3)])
    assert (whole - parts).abs().max() < 1e-12


def test_ancestral_results_do_not_depend_on_the_batch(schedule: Schedule) -> None:
    model, x, grid = mixture(schedule), states(), schedule.grid(15, 500)
    whole = ancestral(model, x, grid, eta=0.7, streams=Streams(1, "eta", NAMES))
    streams = Streams(1, "eta", NAMES)
    parts = [
        ancestral(model, x[rows], grid, eta=0.7, streams=streams[rows])
        for rows in (slice(0, 3), slice(3, 8))
    ]
    assert (whole - torch.cat(parts)).abs().max() < 1e-12


def test_a_real_network_does_not_depend_on_batch_or_threads(schedule: Schedule) -> None:
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    model = UNetEps(network, schedule)
    assert model.shape == (3, 16, 16)
    images = Streams(0, "unet", NAMES).uniform(3, 16, 16).float() * 2 - 1
    grid = schedule.grid(6, 300)
    latents = invert(model, images, grid)
    back = denoise(model, latents, grid)
    assert latents.dtype == back.dtype == torch.float32

    def check(size: int) -> None:
        up = torch.cat([invert(model, part, grid) for part in images.split(size)])
        assert (up - latents).abs().max() < 1e-5
        down = torch.cat([denoise(model, part, grid) for part in latents.split(size)])
        assert (down - back).abs().max() < 1e-5

    check(1)
    check(4)
    torch.set_num_threads(2)
    try:
        assert (invert(model, images, grid) - latents).abs().max() < 1e-5
    finally:
        torch.set_num_threads(1)


def test_mistakes_are_named(schedule: Schedule) -> None:
    model, x = mixture(schedule), states()
    with pytest.raises(UnseenError, match="'euler'"):
        integrate(model, x, (0, 1), method="euler")  # type: ignore[arg-type]
    for levels in ((0,), (0, 5, 5), (0, 9, 4)):
        with pytest.raises(UnseenError, match="grid"):
            integrate(model, x, levels)
    with pytest.raises(UnseenError, match="level 0, not 20"):
        invert(model, x, (20, 40))
    with pytest.raises(UnseenError, match="level 0, not 20"):
        denoise(model, x, (20, 40))
    streams = Streams(0, "eta", NAMES)
    for eta, levels in ((1.5, (0, 5)), (-0.1, (0, 5)), (0.5, (1, 5))):
        with pytest.raises(UnseenError, match="eta"):
            ancestral(model, x, levels, eta=eta, streams=streams)
    with pytest.raises(UnseenError, match="streams"):
        ancestral(model, x, (0, 5), eta=0.5, streams=streams[:1])
