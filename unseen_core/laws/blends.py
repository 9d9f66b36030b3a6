"""Gaussians fitted to references that stay in their files: mean and factor are weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.fitting import Kind, centre, diagonal_variances, factor_weights
from unseen_core.laws.gaussian import Gaussian, Normals
from unseen_core.laws.references import References

__all__ = ["BlendGaussian", "Law", "fit_law", "law_from_state"]

_FIELDS = ("mean", "factor", "variance")


class Law(Protocol):
    """What a fitted prior can do, however it is kept."""

    @property
    def trace(self) -> float:
        """Total variance."""
        ...

    def sample(self, streams: Streams, noise: Normals = Streams.normal) -> Tensor:
        """Return draws, float64 (len(streams), d)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that `law_from_state` reads."""
        ...


@dataclass(frozen=True, eq=False)
class BlendGaussian:
    """The law N(Aᵀ m, Aᵀ W Wᵀ A + v I), A (N, d) the references in rows.

    Every kind of prior but ``diagonal`` and ``dct`` has this form: what is kept is of the size
    of N and not of the states.

    Attributes:
        references: Those it was fitted to.
        mean: m, float64 (N,).
        factor: W, float64 (N, r); r may be 0.
        variance: v >= 0, float64 ().

    Raises:
        UnseenError: Shapes that disagree, a negative variance, or values that are not finite.
    """

    references: References
    mean: Tensor
    factor: Tensor
    variance: Tensor

    def __post_init__(self) -> None:
        """Keep float64 and check shapes and ranges once."""
        for name in _FIELDS:
            value = getattr(self, name).double()
            if not torch.isfinite(value).all():
                raise UnseenError(f"prior: {name} holds values that are not finite; refit it")
            object.__setattr__(self, name, value)
        shapes = tuple(tuple(getattr(self, name).shape) for name in _FIELDS)
        count, rank = self.references.count, self.factor.shape[-1] if self.factor.ndim else 0
        if shapes != ((count,), (count, rank), ()):
            raise UnseenError(f"prior: weights of shapes {shapes} do not belong to {count} "
                              "inverted images; run fit again")
        if self.variance < 0:
            raise UnseenError("prior: the variance is negative; refit it")

    @classmethod
    def fit(cls, references: References, *, kind: Kind, rank: int | None = None) -> BlendGaussian:
        """Fit the law of references; equal to `Gaussian.fit` of their rows.

        Args:
            references: At least 2, finite.
            kind: One of `Kind` but ``diagonal`` and ``dct``.
            rank: See `Gaussian.fit`.

        Raises:
            UnseenError: Fewer than two references, values that are not finite, another kind, or
                a rank that is missing or out of range.
        """
        _check(references)
        n = references.count
        weights, variance = factor_weights(centre(references.gram), references.mean, kind=kind,
                                           rank=rank)
        # Weights of the rows themselves, not of those less their mean.
        even = weights.new_full((n,), 1 / n)
        return cls(references, even, weights - weights.mean(0), variance)

    @property
    def trace(self) -> float:
        """Total variance, tr(Wᵀ A Aᵀ W) + d v."""
        inner = centre(self.references.gram)
        explained = ((inner @ self.factor) * self.factor).sum()
        return (explained + self.references.dimension * self.variance).item()

    def sample(self, streams: Streams, noise: Normals = Streams.normal) -> Tensor:
        """Draws Aᵀ (m + W η) + sqrt(v) ε, float64 (len(streams), d), ε and η by ``noise``.

        The numbers are those of `Gaussian.sample` for the same law.
        """
        weights, draws = self.mean.repeat(len(streams), 1), None
        # ε first, as Gaussian draws them.
        if self.variance > 0:
            draws = self.variance.sqrt() * noise(streams, self.references.dimension)
        if self.factor.shape[1]:
            weights += noise(streams, self.factor.shape[1]) @ self.factor.T
        blends = self.references.combine(weights)
        return blends if draws is None else draws.add_(blends)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, shape (n,), float64: that of `dense`, from inner products alone.

        With δ = x - mean and K = Wᵀ A Aᵀ W + v I, Woodbury's identity leaves
        (|δ|² - |K^-½ Wᵀ A δ|²) / v and log det K + (d - r) log v.

        Args:
            x: Shape (n, d).

        Raises:
            UnseenError: Shapes that disagree, or a remainder variance of 0 (no density).
        """
        d, rank = self.references.dimension, self.factor.shape[1]
        if x.ndim != 2 or x.shape[1] != d:
            raise UnseenError(f"log_prob: x has shape {tuple(x.shape)}, needs (n, {d})")
        if self.variance == 0:
            raise UnseenError("log_prob: remainder variance 0 has no density; fit kind shrunk")
        deviation = x.double() - self.references.combine(self.mean[None])
        inner = self.factor.T @ centre(self.references.gram) @ self.factor
        root = torch.linalg.cholesky(inner + self.variance * torch.eye(rank).to(inner))
        along = self.references.products(deviation) @ self.factor
        explained = torch.linalg.solve_triangular(root, along.T, upper=False)
        quadratic = (deviation.square().sum(1) - explained.square().sum(0)) / self.variance
        volume = (d - rank) * self.variance.log() + 2 * root.diagonal().log().sum()
        return -0.5 * (quadratic + volume + d * math.log(2 * math.pi))

    def dense(self) -> Gaussian:
        """Return the same law with mean (d,) and factor (d, r) in full."""
        return Gaussian(self.references.combine(self.mean[None])[0],
                        self.references.combine(self.factor.T).T, self.variance)

    def state(self) -> dict[str, Tensor]:
        """Tensors ``mean``, ``factor`` and ``variance``, contiguous, for a safetensors file."""
        return {name: getattr(self, name).contiguous() for name in _FIELDS}


def fit_law(references: References, *, kind: Kind) -> Gaussian | BlendGaussian:
    """Fit a prior to references that are read block by block.

    ``diagonal`` has a variance per coordinate and is a `Gaussian` of d numbers; the other kinds
    are blends. ``low-rank`` and ``dct`` need a rank and are not made here.

    Raises:
        UnseenError: As `BlendGaussian.fit` does.
    """
    if kind != "diagonal":
        return BlendGaussian.fit(references, kind=kind)
    _check(references)
    squares = torch.zeros_like(references.mean)
    for _, rows in references.blocks():
        squares += (rows - references.mean).square().sum(0)
    return Gaussian(references.mean, squares.new_empty(len(squares), 0),
                    diagonal_variances(squares, references.count))


def law_from_state(
    state: Mapping[str, Tensor], references: References
) -> Gaussian | BlendGaussian:
    """Return the law that its ``state`` described, fitted to ``references``.

    Raises:
        UnseenError: A missing tensor, or tensors that do not make a law of these references.
    """
    if "diagonal" in state:
        return Gaussian.from_state(state)
    missing = [name for name in _FIELDS if name not in state]
    if missing:
        raise UnseenError(f"prior: the file lacks {', '.join(missing)}; run fit again")
    return BlendGaussian(references, *(state[name] for name in _FIELDS))


def _check(references: References) -> None:
    """Refuse references that no covariance can be estimated from."""
    if references.count < 2:
        raise UnseenError(f"prior: needs at least 2 inverted images, has {references.count}; "
                          "raise the domain's fit parameter")
    if not torch.isfinite(references.gram).all():
        raise UnseenError("prior: inverted images hold values that are not finite; invert again")
