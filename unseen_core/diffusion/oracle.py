"""Noise predictors that are exact for known image laws: the oracles of the tests."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import Condition, Level

__all__ = ["GaussianEps", "MixtureEps"]


@dataclass(frozen=True, eq=False)
class GaussianEps:
    """Noise prediction of a perfect network for images of law N(μ, Σ).

    eps(x, level) = s (a² Σ + s² I)⁻¹ (x - a μ)  (Wang & Vastola, arXiv 2303.02490), by the
    eigenvectors of the factor; the remainder variance may be 0. Like a network it has no level 0:
    a clean image x is shown at level 1, as a_1 x, so that there too the answer is linear in x - μ.

    Attributes:
        schedule: The network's schedule.
        shape: (c, h, w).
        law: The image law, c h w dimensions; its diagonal scalar wherever it has a factor.

    Raises:
        UnseenError: A law of another dimension, or a diagonal per coordinate with a factor.
    """

    schedule: Schedule
    shape: tuple[int, int, int]
    law: Gaussian
    _modes: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the dimension and find the eigenvectors once."""
        _check_dimension(self.shape, self.law.mean, "law")
        object.__setattr__(self, "_modes", self.law.modes())

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the noise in states ``x`` (b, c, h, w) at ``level``, float64, same shape."""
        deviation, sigma = _scaled(self.schedule, x, level, self.law.mean)
        directions, energies = self._modes
        noise = sigma**2 + self.law.diagonal
        answer = deviation / noise
        if len(energies):
            # Woodbury: along a direction of F, 1 / (noise + energy) in place of 1 / noise.
            shrink = energies / (noise * (noise + energies))
            answer = answer - ((deviation @ directions) * shrink) @ directions.T
        return (sigma * answer).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class MixtureEps:
    """Noise prediction of a perfect network for a mixture of Gaussians with diagonal covariance.

    eps(x, level) = s Σ_i w_i (a² v_i + s²)⁻¹ (x - a μ_i), where w_i is the posterior probability
    of component i. Non-linear, so that inversion and denoising have something to get wrong.
    Level 0 is treated as in `GaussianEps`. The components are its classes: bound to class i it is
    the perfect network for N(μ_i, diag v_i), and unbound that of all classes together.

    Attributes:
        schedule: The network's schedule.
        shape: (c, h, w).
        weights: Shape (m,), positive; normalised inside.
        means: μ_i, shape (m, d) with d = c h w.
        variances: v_i >= 0, shape (m,) or (m, d).
        told: The class of every state, (), or of each of b states, (b,); None: not told.

    Raises:
        UnseenError: Shapes that disagree, or weights that are not positive.
    """

    schedule: Schedule
    shape: tuple[int, int, int]
    weights: Tensor
    means: Tensor
    variances: Tensor
    told: Tensor | None = None

    def __post_init__(self) -> None:
        """Keep float64 and check shapes."""
        for name in ("weights", "means", "variances"):
            object.__setattr__(self, name, getattr(self, name).double())
        if self.means.ndim != 2 or self.weights.shape != self.means.shape[:1]:
            raise UnseenError(
                f"MixtureEps: weights {tuple(self.weights.shape)} and means "
                f"{tuple(self.means.shape)} must be (m,) and (m, d)"
            )
        _check_dimension(self.shape, self.means[0], "means")
        if tuple(self.variances.shape) not in (self.weights.shape, self.means.shape):
            raise UnseenError(
                f"MixtureEps: variances {tuple(self.variances.shape)} must be (m,) or (m, d)"
            )
        if not (self.weights > 0).all() or (self.variances < 0).any():
            raise UnseenError("MixtureEps: weights must be positive and variances at least 0")

    def bound(self, condition: Condition) -> "MixtureEps":
        """Return the network told classes; see ``unseen_core.types.Conditional``.

        Args:
            condition: A class, int64 (b,), or None.

        Raises:
            UnseenError: If it is neither, or a class is out of range.
        """
        if condition is None:
            return replace(self, told=None)
        classes = torch.as_tensor(condition)
        fits = classes.dtype == torch.int64 and classes.ndim < 2
        if not fits or (classes < 0).any() or (classes >= len(self.weights)).any():
            raise UnseenError(f"MixtureEps: its classes are 0..{len(self.weights) - 1}, one or "
                              f"int64 (b,); got {condition}")
        return replace(self, told=classes)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the noise in states ``x`` (b, c, h, w) at ``level``, float64, same shape.

        Raises:
            UnseenError: If the classes of another number of states are bound.
        """
        if self.told is not None and self.told.ndim and len(self.told) != len(x):
            raise UnseenError(f"MixtureEps: {len(self.told)} classes are bound and {len(x)} states "
                              "were given; bind the classes of each batch")
        deviation, sigma = _scaled(self.schedule, x, level, self.means)
        variances = self.variances.reshape(len(self.weights), -1).expand_as(self.means)
        total = variances + sigma**2
        log_density = -0.5 * (deviation.square() / total + total.log()).sum(-1)
        posterior = torch.softmax(self.weights.log() + log_density, -1)
        if self.told is not None:
            posterior = one_hot(self.told.expand(len(x)), len(self.weights)).double()
        answer = (posterior[..., None] * deviation / total).sum(1)
        return (sigma * answer).reshape(x.shape)


def _check_dimension(shape: tuple[int, int, int], mean: Tensor, name: str) -> None:
    """Raise unless the mean has as many entries as an image."""
    needed = math.prod(shape)
    if len(mean) != needed:
        raise UnseenError(f"oracle: {name} has {len(mean)} dimensions, {shape} needs {needed}")


def _scaled(schedule: Schedule, x: Tensor, level: Level, means: Tensor) -> tuple[Tensor, Tensor]:
    """Deviations x / a - μ, (b, d) or (b, m, d), and the sigma at which the network answers."""
    flat = x.double().flatten(1) / schedule.a(level)
    if means.ndim == 2:
        flat = flat[:, None]
    return flat - means, schedule.sigma(schedule.timestep(level) + 1)
