"""How near a network comes to predictors in closed form, on its own runs and on noised images."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unseen_core.analysis.trajectory.record import clean_of
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import EpsModel, Level

__all__ = ["DeltaEps", "Misfit", "best_of", "closed_forms", "explained_variance", "misfit"]


@dataclass(frozen=True, eq=False)
class DeltaEps:
    """Noise prediction of a perfect network for a finite set of images: pure memory.

    ``MixtureEps`` with equal weights and no variance, by inner products, so that thousands of
    centres fit: the predicted image is their mean under softmax(-|x / a - c|² / (2 sigma²)).

    Attributes:
        schedule: The network's schedule.
        shape: (c, h, w).
        centres: Images in [-1, 1], (m, c h w), kept in float64.

    Raises:
        UnseenError: Centres of another shape, or none.
    """

    schedule: Schedule
    shape: tuple[int, int, int]
    centres: Tensor
    _lengths: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Keep float64 and check the shape."""
        object.__setattr__(self, "centres", self.centres.double())
        if self.centres.ndim != 2 or self.centres.shape[1] != torch.Size(self.shape).numel() or (
                not len(self.centres)):
            raise UnseenError(f"centres of shape {tuple(self.centres.shape)} for images "
                              f"{self.shape}; give flattened images, at least one")
        object.__setattr__(self, "_lengths", self.centres.square().sum(1))

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the noise in states ``x`` (b, c, h, w) at ``level`` >= 1, float64, same shape."""
        sigma = self.schedule.sigma(level)
        y = x.double().flatten(1) / self.schedule.a(level)
        odds = (y @ self.centres.T - self._lengths / 2) / sigma**2
        clean = odds.softmax(1) @ self.centres
        # In units of the state, x - a clean = s eps and s = a sigma.
        return ((y - clean) / sigma).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Misfit:
    """Sums of squares per image of what a network predicts and an approximation misses.

    Attributes:
        noise: |eps_net|² and |eps_net - eps|², float64 (2, n).
        clean: The same of predicted images.
    """

    noise: Tensor
    clean: Tensor


def closed_forms(
    law: Gaussian, centres: Tensor, schedule: Schedule, shape: tuple[int, int, int]
) -> dict[str, EpsModel]:
    """Return the closed forms that a network is compared with.

    ``gaussian`` knows mean and covariance of the images; ``mean`` the mean alone; ``delta`` the
    images themselves, and nothing between them.

    Args:
        law: Law of the images that the network has learnt.
        centres: Some of these images, flattened, (m, d).
        schedule: The network's.
        shape: (c, h, w).

    Raises:
        UnseenError: Shapes that disagree.
    """
    mean = Gaussian(law.mean, law.mean.new_zeros(len(law.mean), 0), law.mean.new_zeros(()))
    return {"gaussian": GaussianEps(schedule, shape, law),
            "mean": GaussianEps(schedule, shape, mean),
            "delta": DeltaEps(schedule, shape, centres)}


def misfit(
    model: EpsModel, others: Mapping[str, EpsModel], x: Tensor, level: Level
) -> dict[str, Misfit]:
    """Return what approximations miss of a network's answers to the same states.

    Args:
        model: The frozen network.
        others: Approximations by name.
        x: Noised images at ``level``, shape (n, c, h, w).
        level: 1 or higher.

    Raises:
        UnseenError: If the level is 0.
    """
    noise, clean = clean_of(model, x, level)
    found = {}
    for name, other in others.items():
        near_noise, near_clean = clean_of(other, x, level)
        found[name] = Misfit(*(torch.stack([true.square().sum(1), (true - near).square().sum(1)])
                               for true, near in ((noise, near_noise), (clean, near_clean))))
    return found


def explained_variance(squares: Tensor, *, draws: int = 200, seed: int = 0) -> Interval:
    """Return EV = 1 - sum |f_net - f|² / sum |f_net|² over images, with a 95 % interval.

    Of the noise it is near 1 at high levels whatever the approximation; predicted images tell
    approximations apart.

    Args:
        squares: |f_net|² and |f_net - f|² per image, (2, n).
        draws: Bootstrap draws over images.
        seed: Their seed.
    """
    values = squares.numpy()
    count = values.shape[1]
    rows = np.random.default_rng(seed).integers(count, size=(draws, count))
    whole, missed = values[:, rows].sum(2)
    low, high = np.quantile(1 - missed / whole, [0.025, 0.975])
    return Interval(float(1 - values[1].sum() / values[0].sum()), float(low), float(high))


def best_of(errors: Mapping[str, float]) -> str:
    """Return the name of the smallest error, the first of equal ones."""
    return min(errors, key=lambda name: errors[name])
