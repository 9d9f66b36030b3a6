"""A Gaussian with a low-rank plus diagonal covariance, in as many dimensions as images have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.fitting import Kind, fit_moments

__all__ = ["Gaussian", "Kind", "Normals"]

_DENSE_LIMIT = 4096  # Largest d for which `distance` may form a (d, d) matrix.
_FIELDS = ("mean", "factor", "diagonal")
Normals = Callable[[Streams, int], Tensor]
"""Returns (n, count) numbers of variance 1, a stream per row."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """The law N(mean, F Fᵀ + diag(v)), whose covariance is never materialised.

    All tensors are kept in float64.

    Attributes:
        mean: Shape (d,).
        factor: F, shape (d, r); r may be 0.
        diagonal: v >= 0, shape (d,), or () for the same variance everywhere.

    Raises:
        UnseenError: Shapes that disagree, a negative variance, or values that are not finite.
    """

    mean: Tensor
    factor: Tensor
    diagonal: Tensor

    def __post_init__(self) -> None:
        """Keep float64 and check shapes and ranges once."""
        for name in _FIELDS:
            value = getattr(self, name).double()
            if not torch.isfinite(value).all():
                raise UnseenError(f"Gaussian: {name} holds values that are not finite; refit it")
            object.__setattr__(self, name, value)
        d = self.mean.numel()
        if (
            self.mean.ndim != 1
            or self.factor.ndim != 2
            or len(self.factor) != d
            or tuple(self.diagonal.shape) not in ((), (d,))
        ):
            raise UnseenError(
                f"Gaussian: mean {tuple(self.mean.shape)}, factor {tuple(self.factor.shape)} and "
                f"diagonal {tuple(self.diagonal.shape)} must be (d,), (d, r) and () or (d,)"
            )
        if (self.diagonal < 0).any():
            raise UnseenError("Gaussian: diagonal holds a negative variance; refit it")

    @classmethod
    def fit(
        cls, x: Tensor, *, kind: Kind, rank: int | None = None, shape: Sequence[int] | None = None
    ) -> Gaussian:
        """Fit the law of the rows of ``x``.

        Args:
            x: Shape (n, d), n >= 2, finite.
            kind: One of `Kind`; the estimators are documented in `unseen_core.laws.fitting`.
            rank: Number of modes kept for ``low-rank`` (required), their cap for ``spiked``,
                number of lowest frequencies per channel for ``dct`` (required). Others ignore it.
            shape: (c, h, w) with c h w = d, required by ``dct``; others ignore it.

        Raises:
            UnseenError: Fewer than two rows, values that are not finite, an unknown kind, or a
                rank or shape that is missing or out of range.
        """
        return cls(*fit_moments(x, kind=kind, rank=rank, shape=shape))

    @property
    def trace(self) -> float:
        """Total variance, tr(F Fᵀ) + Σ v."""
        remainder = self.diagonal * self._d if self.diagonal.ndim == 0 else self.diagonal.sum()
        return (self.factor.square().sum() + remainder).item()

    def at(self, schedule: Schedule, level: int) -> Gaussian:
        """Law of the noised states at ``level`` of images with this law, N(a μ, a² Σ + s² I)."""
        a, s = schedule.a(level), schedule.s(level)
        return Gaussian(a * self.mean, a * self.factor, a**2 * self.diagonal + s**2)

    def transport(self, x: Tensor, schedule: Schedule, source: int, target: int) -> Tensor:
        """Exact probability-flow map between two levels for images of this law.

        Deviations from a μ along a direction of clean variance λ are multiplied by
        sqrt((a'² λ + s'²) / (a² λ + s²))  (Wang & Vastola, arXiv 2303.02490).

        Args:
            x: States at level ``source``, shape (n, d).
            schedule: Gives a and s of both levels.
            source: Level of ``x``.
            target: Level of the result.

        Returns:
            States at level ``target``, shape and dtype of ``x``.

        Raises:
            UnseenError: A diagonal per coordinate together with a factor (no closed form), or a
                start at level 0 with directions of variance 0, whose map has no limit.
        """
        self._check_rows(x, "transport")
        if source == target:
            return x.clone()
        a, s = schedule.a(source), schedule.s(source)
        b, t = schedule.a(target), schedule.s(target)

        def gain(variance: Tensor) -> Tensor:
            before = a**2 * variance + s**2
            if (before == 0).any():
                raise UnseenError(
                    "transport: a law with directions of variance 0 has no map from level 0; "
                    "start at level 1 or fit a kind with a remainder"
                )
            return ((b**2 * variance + t**2) / before).sqrt()

        directions, energies = self.modes()
        deviation = x.double() - a * self.mean
        base = gain(self.diagonal)
        extra = gain(energies + self.diagonal.max()) - base.max()
        # With a factor the diagonal is scalar and max() is its value; without, extra is empty.
        moved = b * self.mean + base * deviation + ((deviation @ directions) * extra) @ directions.T
        return moved.to(x.dtype)

    def modes(self) -> tuple[Tensor, Tensor]:
        """Orthonormal directions (d, q) and the variances (q,) that F adds along them, kept.

        Raises:
            UnseenError: A diagonal per coordinate together with a factor: F Fᵀ and the diagonal
                share no eigenvectors.
        """
        if self.factor.shape[1] == 0:
            return self.factor, self.mean.new_empty(0)
        if self.diagonal.ndim:
            raise UnseenError(
                "Gaussian: a diagonal per coordinate with a factor has no closed-form modes; "
                "use a kind with one remainder variance"
            )
        return self._axes

    def sample(self, streams: Streams, noise: Normals = Streams.normal) -> Tensor:
        """Draws m + F η + sqrt(v) ε, float64 (len(streams), d), ε and η by ``noise``."""
        draws = self.mean.repeat(len(streams), 1)
        # ε first: laws with and without a factor then share it for one sample id.
        if (self.diagonal > 0).any():
            draws += self.diagonal.sqrt() * noise(streams, self._d).to(draws)
        if self.factor.shape[1]:
            draws += noise(streams, self.factor.shape[1]).to(draws) @ self.factor.T
        return draws

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats by the Woodbury identity, shape (n,), float64.

        Args:
            x: Shape (n, d).

        Raises:
            UnseenError: Shapes that disagree, or a remainder variance of 0 (no density).
        """
        self._check_rows(x, "log_prob")
        v = self.diagonal.expand(self._d)
        if not (v > 0).all():
            raise UnseenError("log_prob: remainder variance 0 has no density; fit kind shrunk")
        deviation = x.double() - self.mean
        scaled = self.factor / v[:, None]
        inner = torch.eye(self.factor.shape[1]).to(v) + self.factor.T @ scaled
        root = torch.linalg.cholesky(inner)
        explained = torch.linalg.solve_triangular(root, (deviation @ scaled).T, upper=False)
        quadratic = (deviation.square() / v).sum(1) - explained.square().sum(0)
        volume = v.log().sum() + 2 * root.diagonal().log().sum()
        return -0.5 * (quadratic + volume + self._d * math.log(2 * math.pi))

    def distance(self, other: Gaussian) -> float:
        """Squared Fréchet distance |Δm|² + tr A + tr B - 2 tr (A^½ B A^½)^½.

        With one remainder variance each, only the joint span of the two factors is dense;
        off it the covariances are multiples of the identity.

        Raises:
            UnseenError: Dimensions that differ, or a diagonal per coordinate with a factor
                when d is above 4096.
        """
        if self._d != other._d:
            raise UnseenError(f"distance: laws of {self._d} and {other._d} dimensions")
        shift = (self.mean - other.mean).square().sum().item()
        factors = torch.cat((self.factor, other.factor), 1)
        rest = (self.diagonal.sqrt() - other.diagonal.sqrt()).square()
        if factors.shape[1] == 0:
            return shift + rest.expand(self._d).sum().item()
        if self.diagonal.ndim == other.diagonal.ndim == 0:
            span = torch.linalg.qr(factors)[0]
        elif self._d <= _DENSE_LIMIT:
            span = torch.eye(self._d).to(factors)
        else:
            raise UnseenError(
                f"distance: a diagonal per coordinate with a factor needs d <= {_DENSE_LIMIT}, "
                f"not {self._d}; fit a kind with one remainder variance"
            )
        mine, theirs = (law._root_within(span) for law in (self, other))
        overlap = torch.linalg.svdvals(mine @ theirs).sum()
        within = mine.square().sum() + theirs.square().sum() - 2 * overlap
        # Past this point either the span is everything or both diagonals are scalars.
        outside = (self._d - span.shape[1]) * rest.max()
        return shift + max((within + outside).item(), 0.0)

    def state(self) -> dict[str, Tensor]:
        """Tensors ``mean``, ``factor`` and ``diagonal``, contiguous, for a safetensors file."""
        return {name: getattr(self, name).contiguous() for name in _FIELDS}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Gaussian:
        """The law that `state` described.

        Raises:
            UnseenError: A missing tensor, or tensors that do not make a law.
        """
        missing = [name for name in _FIELDS if name not in state]
        if missing:
            raise UnseenError(f"Gaussian: the file lacks {', '.join(missing)}; fit it again")
        return cls(*(state[name] for name in _FIELDS))

    @cached_property
    def _axes(self) -> tuple[Tensor, Tensor]:
        """Left singular vectors of the factor, and squared singular values."""
        directions, singular, _ = torch.linalg.svd(self.factor, full_matrices=False)
        return directions, singular.square()

    @property
    def _d(self) -> int:
        """Dimension of the law."""
        return len(self.mean)

    def _check_rows(self, x: Tensor, name: str) -> None:
        """Raise unless ``x`` is (n, d)."""
        if x.ndim != 2 or x.shape[1] != self._d:
            raise UnseenError(f"{name}: x has shape {tuple(x.shape)}, needs (n, {self._d})")

    def _root_within(self, span: Tensor) -> Tensor:
        """Symmetric root of the covariance restricted to an orthonormal span (d, q)."""
        inner = span.T @ self.factor
        noise = span.T @ (self.diagonal.expand(self._d)[:, None] * span)
        values, vectors = torch.linalg.eigh(inner @ inner.T + noise)
        return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
