"""Skipped steps against the whole run on the Gaussian oracle, where both are exact."""

import pytest
import torch
from torch import Tensor

from unseen_core.analysis.steering.teleporting import JUMPS, Study, jump_law
from unseen_core.basics.images import to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.teleport import denoise_teleported, landing
from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.judging.features import Pixels
from unseen_core.judging.metrics import relative_error
from unseen_core.laws.gaussian import Gaussian

SHAPE = (3, 4, 4)
NAMES = [str(i) for i in range(6)]


def numbers(name: str, *shape: int) -> Tensor:
    """Standard normals that belong to ``name``, one draw per NAMES."""
    return Streams(0, name, NAMES).normal(*shape)


@pytest.fixture(scope="module")
def law() -> Gaussian:
    """A law with modes of variance 2 to 60 and a small remainder."""
    basis = torch.linalg.qr(numbers("basis", 48).T)[0]
    sd = torch.tensor([60.0, 20.0, 10.0, 6.0, 4.0, 2.0]).double().sqrt()
    return Gaussian(0.3 * numbers("mean", 48)[0], basis * sd, torch.tensor(0.05))


def test_the_end_is_that_of_the_whole_run_from_every_level(schedule: Schedule, law) -> None:
    model, x = GaussianEps(schedule, SHAPE, law), numbers("x", *SHAPE)
    grid = schedule.grid(150, schedule.top)
    whole = denoise(model, x, grid)
    exact = law.transport(x.flatten(1), schedule, schedule.top, 0).reshape(x.shape)
    error = relative_error(whole, exact).max().item()
    assert error < 1e-3
    for land in (*grid[:: len(grid) // 8], grid[-1]):
        found = denoise_teleported(model, x, grid, law=law, land=land)
        assert relative_error(found.images, whole).max() < 3 * error + 1e-9
        assert (found.land, found.calls) == (land, grid.index(land))
        assert found.calls + found.saved == len(grid) - 1
        assert found.share == found.saved / (len(grid) - 1)
    assert torch.equal(found.images, whole)


@pytest.mark.parametrize("jump", JUMPS[1:])
def test_a_wrong_law_ends_elsewhere(schedule: Schedule, law, jump: str) -> None:
    model, x = GaussianEps(schedule, SHAPE, law), numbers("x", *SHAPE)
    grid = schedule.grid(60, schedule.top)
    whole = denoise(model, x, grid)
    errors = [relative_error(denoise_teleported(
        model, x, grid, law=jump_law(law, jump), land=landing(grid, share)).images, whole).min()
        for share in (0.3, 0.5, 0.7)]
    assert 1e-3 < errors[0] < errors[1] < errors[2]
    right = denoise_teleported(model, x, grid, law=jump_law(law, "law"), land=landing(grid, 0.7))
    assert relative_error(right.images, whole).max() < errors[2] / 20


def test_no_jump_leaves_states_as_they_are(schedule: Schedule, law) -> None:
    x = numbers("x", 48)
    moved = jump_law(law, "none").transport(x, schedule, 1000, 300)
    assert torch.allclose(moved, x, rtol=1e-12)
    # The mean alone: what is left of the deviation falls as the noise does.
    level, top = 300, 1000
    alone = jump_law(law, "mean").transport(x, schedule, top, level)
    expected = schedule.a(level) * law.mean + schedule.s(level) / schedule.s(top) * (
        x - schedule.a(top) * law.mean)
    assert torch.allclose(alone, expected)


def test_shares_become_levels_of_the_grid() -> None:
    levels = (0, 5, 20, 100, 1000)
    assert [landing(levels, share) for share in (0, 0.25, 0.3, 0.5, 1)] == [1000, 100, 100, 20, 0]


def test_a_study_tells_changed_images_from_the_same() -> None:
    full = numbers("full", *SHAPE).mul(0.4)
    real = to_uint8(Streams(1, "real", [str(i) for i in range(40)]).normal(*SHAPE) * 0.4)
    study = Study(Pixels(), full, real, draws=20, seed=0)
    same, other = study.row(full), study.row(full + 0.8)
    assert same["relative_error"] == 0 and same["changed"] is False
    for name in ("kernel", "frechet"):
        assert same[f"{name}_difference"] == same[f"{name}_difference_high"] == 0
        assert other[f"{name}_difference_low"] > 0
        assert other[name] - same[name] == pytest.approx(other[f"{name}_difference"])
    assert other["changed"] is True and other["n"] == 6 and other["held_out"] == 40


def test_mistakes_are_one_line(schedule: Schedule, law) -> None:
    model, x, grid = GaussianEps(schedule, SHAPE, law), numbers("x", *SHAPE), (0, 10, 100)
    with pytest.raises(UnseenError, match="level 50 is not on the grid"):
        denoise_teleported(model, x, grid, law=law, land=50)
    with pytest.raises(UnseenError, match="share of 1"):
        landing(grid, 1.5)
    with pytest.raises(UnseenError, match="jump 'far'"):
        jump_law(law, "far")
