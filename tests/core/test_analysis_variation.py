"""Principal directions of one trajectory, grids along them, and the search on the oracle."""

import pytest
import torch
from torch import Tensor

from unseen_core.analysis.steering.search import search
from unseen_core.analysis.steering.variation import Axes, principal_axes, random_axes, variations
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

SHAPE = (3, 4, 4)


def numbers(name: str, n: int, *shape: int) -> Tensor:
    """Standard normals that belong to ``name``."""
    return Streams(0, name, [str(i) for i in range(n)]).normal(*shape)


def orthonormal(name: str, n: int) -> Tensor:
    """``n`` orthonormal directions, (n, *SHAPE)."""
    return torch.linalg.qr(numbers(name, n, 48).T)[0].T.reshape(n, *SHAPE)


def test_axes_are_those_of_a_trajectory_in_a_plane() -> None:
    plane, angle = orthonormal("plane", 2), torch.linspace(0, 3, 12).double()
    states = 5 + (4 * angle.cos())[:, None, None, None] * plane[0] + angle.sin()[
        :, None, None, None] * plane[1]
    axes = principal_axes(states, 4)
    assert axes.variances[2:].max() < 1e-12
    assert axes.total == pytest.approx(axes.variances[:2].sum().item())
    covariance = torch.cov(torch.stack([4 * angle.cos(), angle.sin()]))
    assert torch.allclose(axes.variances[:2], torch.linalg.eigvalsh(covariance).flip(0))
    found = axes.directions[:2].flatten(1)
    assert torch.allclose(found @ plane.flatten(1).T @ plane.flatten(1), found, atol=1e-9)


def test_a_grid_has_the_image_in_the_middle_and_its_ends_at_the_reach() -> None:
    axes = Axes(orthonormal("axes", 3), torch.tensor([9.0, 4.0, 1.0]).double(), 14.0)
    image = numbers("image", 1, *SHAPE)[0]
    grid = variations(image, axes, (1, 2), reach=5.0, points=7)
    assert grid.shape == (49, *SHAPE) and torch.allclose(grid[24], image)
    assert torch.allclose(grid[45], image + 5 * 2 * axes.directions[1])
    assert torch.allclose(grid[27], image + 5 * 1 * axes.directions[2])
    control = random_axes(axes, Streams(0, "r", ["0", "1", "2"]))
    flat = control.directions.flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(3).double(), atol=1e-12)
    far = variations(image, control, (1, 2))
    assert torch.allclose((far - image).flatten(1).norm(dim=1), (grid - image).flatten(1).norm(
        dim=1))


def test_the_search_finds_the_known_optimum_in_one_round(schedule: Schedule) -> None:
    basis = orthonormal("modes", 10).flatten(1)
    law = Gaussian(0.1 * numbers("mean", 1, 48)[0],
                   basis.T * torch.linspace(6, 1, 10).double(), torch.tensor(0.2))
    model, grid = GaussianEps(schedule, SHAPE, law), schedule.grid(20, 500)
    start, directions = numbers("start", 1, *SHAPE)[0], orthonormal("directions", 4)
    target = numbers("target", 1, *SHAPE)[0]
    found = search(model, start, grid, directions, lambda x: (x - target).flatten(1), step=0.5)
    # A Gaussian network is linear: least squares on what it makes of each direction.
    both = denoise(model, torch.cat([start[None], start + directions]), grid).flatten(1)
    gains = both[1:] - both[0]
    best = torch.linalg.lstsq(gains.T, (target.flatten() - both[0])[:, None]).solution[:, 0]
    assert torch.allclose(found.coefficients, best, rtol=1e-3, atol=1e-4)
    least = (both[0] + best @ gains - target.flatten()).norm().item()
    assert found.path[1] == pytest.approx(least, rel=1e-5)
    assert all(low < high for high, low in zip(found.path, found.path[1:], strict=False))
    assert found.images % (2 * 4 + 3) == 1 and found.images > 1
    assert torch.allclose(found.image, (both[0] + found.coefficients @ gains).reshape(SHAPE),
                          atol=1e-9)


def test_the_search_reaches_a_target_that_can_be_reached(schedule: Schedule) -> None:
    law = Gaussian(torch.zeros(48), torch.zeros(48, 0), torch.tensor(0.5))
    model, grid = GaussianEps(schedule, SHAPE, law), schedule.grid(10, 300)
    start, directions = numbers("start", 1, *SHAPE)[0], orthonormal("directions", 3)
    hidden = torch.tensor([1.0, -2.0, 0.5]).double()
    target = denoise(model, start[None] + torch.einsum("q,qchw->chw", hidden, directions), grid)[0]
    found = search(model, start, grid, directions, lambda x: (x - target).flatten(1), step=0.5)
    assert found.path[-1] < 1e-2 * found.path[0]
    assert torch.allclose(found.coefficients, hidden, atol=1e-2)


def test_mistakes_are_named(schedule: Schedule) -> None:
    axes = Axes(orthonormal("axes", 2), torch.ones(2).double(), 2.0)
    model = GaussianEps(schedule, SHAPE, Gaussian(torch.zeros(48), torch.zeros(48, 0),
                                                  torch.tensor(0.5)))
    with pytest.raises(UnseenError, match="7 directions"):
        principal_axes(numbers("few", 5, *SHAPE), 7)
    with pytest.raises(UnseenError, match="not among 2"):
        variations(axes.directions[0], axes, (1, 2))
    with pytest.raises(UnseenError, match="1 streams for 2"):
        random_axes(axes, Streams(0, "r", ["0"]))
    with pytest.raises(UnseenError, match="must be"):
        Axes(axes.directions, torch.ones(3).double(), 2.0)
    with pytest.raises(UnseenError, match="step 0"):
        search(model, axes.directions[0], (0, 10), axes.directions, lambda x: x.flatten(1), step=0)
