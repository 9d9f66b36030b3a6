"""Start states in coordinates of what they are made of, so that candidates cost next to nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from unseen_core.gaussian import Gaussian
from unseen_core.rng import Streams

__all__ = ["Span", "Whole", "coordinates_of"]

_KEPT = 1e-10  # Eigenvalues of the Gram matrix below this share of the largest are rounding.


@dataclass(frozen=True, eq=False)
class Span:
    """The span of references, prior mean and prior factor, with one direction left over.

    With A (n, d) these vectors in rows and A Aᵀ = Y E Yᵀ, the columns of Q = Aᵀ Y E^-½ are an
    orthonormal basis of their span and L = Y E^½ are their coordinates, A = L Qᵀ. A state is
    written as r + 1 numbers: its r coordinates, and the length of its part outside the span.
    Inner products with the references, lengths, weighted sums and great circles are then those
    of short vectors, exactly, as long as only one of the states that are combined has a part
    outside. The direction of that part is drawn when a state is lifted. Q is never formed.

    Attributes:
        rows: The vectors A in blocks, float64 (N, d) references, then (1, d) and (rank, d) of
            the prior.
        basis: Y E^-½, float64 (n, r).
        coordinates: L, float64 (n, r).
        variance: The prior's variance v outside its factor.
    """

    rows: tuple[Tensor, ...]
    basis: Tensor
    coordinates: Tensor
    variance: float

    @classmethod
    def of(cls, references: Tensor, prior: Gaussian | None = None) -> Span:
        """Build the span of references and, if given, of a prior.

        Args:
            references: float64 (N, d).
            prior: A law of d dimensions with one remainder variance.
        """
        rows = (references,) if prior is None else (references, prior.mean[None], prior.factor.T)
        gram = torch.cat([torch.cat([a @ b.T for b in rows], 1) for a in rows])
        values, vectors = torch.linalg.eigh(gram)
        kept = values > _KEPT * values[-1]
        root, vectors = values[kept].sqrt(), vectors[:, kept]
        return cls(rows, vectors / root, vectors * root,
                   0.0 if prior is None else prior.diagonal.item())

    @property
    def references(self) -> Tensor:
        """The references as states, float64 (N, r + 1)."""
        return _with(self.coordinates[: len(self.rows[0])], 0)

    def draw(self, streams: Streams) -> Tensor:
        """Return draws of the prior as states, float64 (n, r + 1).

        The r coordinates of its noise are normal, the squared length outside is chi-squared
        with d - r degrees of freedom, independent of them (M26).
        """
        _, mean, factor = self.coordinates.split([len(part) for part in self.rows])
        rank, r = factor.shape
        # At least 16 numbers a draw, see Streams; the first ones are used.
        noise = streams.normal(max(16, rank + r))
        t = mean + noise[:, :rank] @ factor + self.variance**0.5 * noise[:, rank : rank + r]
        outside = self.rows[0].shape[1] - r
        if self.variance == 0 or outside == 0:
            return _with(t, 0)
        square = 2 * gammaincinv(outside / 2, streams.uniform(16)[:, 0].numpy())
        return torch.cat([t, (self.variance * torch.from_numpy(square))[:, None].sqrt()], 1)

    def lift(self, states: Tensor, streams: Streams) -> Tensor:
        """Return states in full (M28), float64 (n, d).

        Args:
            states: float64 (n, r + 1).
            streams: One per state; those with a part outside the span draw its direction.
        """
        x = self._combine(states[:, :-1] @ self.basis.T)
        outside = states[:, -1].nonzero()[:, 0]
        if len(outside):
            h = streams[outside.tolist()].normal(x.shape[1])
            within = torch.cat([h @ part.T for part in self.rows], 1) @ self.basis
            h -= self._combine(within @ self.basis.T)
            x[outside] += h * (states[outside, -1] / h.norm(dim=1))[:, None]
        return x

    def _combine(self, weights: Tensor) -> Tensor:
        """Return weighted sums of the rows of A, float64 (n, d)."""
        split = weights.split([len(part) for part in self.rows], dim=1)
        return sum(w @ part for w, part in zip(split, self.rows, strict=True))


@dataclass(frozen=True, eq=False)
class Whole:
    """Stands in for a span where there is none: states are written in full.

    A variance per coordinate (prior kinds ``diagonal``, ``dct``) makes the length outside a span
    depend on the direction, so draws of such a prior are made and judged in d dimensions.

    Attributes:
        references: float64 (N, d).
        prior: The law that is drawn from.
    """

    references: Tensor
    prior: Gaussian

    def draw(self, streams: Streams) -> Tensor:
        """Return draws of the prior, float64 (n, d)."""
        return self.prior.sample(streams)

    def lift(self, states: Tensor, streams: Streams) -> Tensor:
        """Return the states themselves."""
        return states


def coordinates_of(references: Tensor, prior: Gaussian | None = None) -> Span | Whole:
    """Return the coordinates in which blends of references and draws of a prior are exact.

    Args:
        references: float64 (N, d).
        prior: A law of d dimensions, or None for blends alone.
    """
    if prior is not None and prior.diagonal.ndim:
        return Whole(references, prior)
    return Span.of(references, prior)


def _with(t: Tensor, rest: float) -> Tensor:
    """Append the length outside the span."""
    return torch.cat([t, t.new_full((len(t), 1), rest)], 1)
