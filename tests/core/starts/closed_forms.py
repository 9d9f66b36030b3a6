"""Moments carried exactly through solvers: with a linear network they are matrices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import ancestral, denoise
from unseen_core.laws.gaussian import Gaussian


class OneAtATime(Streams):
    """Noise that is a unit vector in one draw, and zero in all others: row (draw, number)."""

    def __init__(self, draws: int, dimension: int) -> None:
        super().__init__(0, "units", [str(i) for i in range(draws * dimension)])
        self.draws, self.done = draws, 0

    def normal(self, *shape: int) -> Tensor:
        size = torch.Size(shape).numel()
        units = torch.zeros(self.draws, size, size, dtype=torch.float64)
        units[self.done] = torch.eye(size, dtype=torch.float64)
        self.done += 1
        return units.reshape(self.draws * size, *shape)


@dataclass(frozen=True)
class Down:
    """Images x0 = matrix x + shift + noise of covariance ``fresh``, of flat states x."""

    matrix: Tensor
    shift: Tensor
    fresh: Tensor

    def of(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of the images."""
        return (self.matrix @ mean + self.shift,
                self.matrix @ covariance @ self.matrix.T + self.fresh)


def down(model: GaussianEps, grid: Sequence[int], eta: float = 0.0) -> Down:
    """Return what denoising does: its answers to zero, to unit vectors and to unit noise."""
    d = len(model.law.mean)
    inputs = torch.cat([torch.zeros(1, d), torch.eye(d)]).double().reshape(-1, *model.shape)

    class Silent(Streams):
        def normal(self, *shape: int) -> Tensor:
            return torch.zeros(len(self), *shape, dtype=torch.float64)

    if eta == 0:
        ends, fresh = denoise(model, inputs, grid), torch.zeros(d, d, dtype=torch.float64)
    else:
        ends = ancestral(model, inputs, grid, eta=eta, streams=Silent(0, "", list("abcdefghijklmn"
                         )[:d + 1]))
        draws = len(grid) - 2  # the last step, to the clean level, has no noise
        units = OneAtATime(draws, d)
        answers = ancestral(model, torch.zeros(draws * d, *model.shape, dtype=torch.float64), grid,
                            eta=eta, streams=units)
        assert units.done == draws
        gains = answers.flatten(1) - ends[:1].flatten(1)
        fresh = gains.T @ gains
    ends = ends.flatten(1)
    return Down((ends[1:] - ends[0]).T, ends[0], fresh)


def dense(law: Gaussian) -> Tensor:
    """The covariance as a matrix."""
    return law.factor @ law.factor.T + law.diagonal.expand(len(law.mean)).diag()


def kappa(variances: Tensor, schedule: Schedule, level: int) -> Tensor:
    """Share a² λ / (a² λ + s²) of signal in a state's variance."""
    signal = schedule.a(level) ** 2 * variances
    return signal / (signal + schedule.s(level) ** 2)
