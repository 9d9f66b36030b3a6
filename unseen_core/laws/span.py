"""Start states in coordinates of what they are made of, so that candidates cost next to nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import BlendGaussian, Law
from unseen_core.laws.references import References

__all__ = ["Span", "Whole", "coordinates_of"]

_KEPT = 1e-10  # Eigenvalues of the Gram matrix below this share of the largest are rounding.


@dataclass(frozen=True, eq=False)
class Span:
    """The span of references, with one direction left over.

    With A (N, d) the references in rows and A Aᵀ = Y E Yᵀ, the columns of Q = Aᵀ Y E^-½ are an
    orthonormal basis of their span and L = Y E^½ are their coordinates, A = L Qᵀ. A prior's mean
    Aᵀ m and factor Aᵀ W lie in the same span, at m L and Wᵀ L. A state is written as r + 1
    numbers: its r coordinates, and the length of its part outside the span. Inner products with
    the references, lengths, weighted sums and great circles are then those of short vectors,
    exactly, as long as only one of the states that are combined has a part outside. The
    direction of that part is drawn when a state is lifted. Q is never formed.

    Attributes:
        rows: The references A.
        basis: Y E^-½, float64 (N, r).
        references: Their coordinates L as states, N of r + 1 numbers.
        mean: Coordinates of the prior's mean, float64 (r,).
        factor: Coordinates of the columns of its factor, float64 (rank, r).
        variance: The prior's variance v outside its factor.
    """

    rows: References
    basis: Tensor
    references: References
    mean: Tensor
    factor: Tensor
    variance: float

    @classmethod
    def of(cls, references: Tensor | References, prior: BlendGaussian | None = None) -> Span:
        """Build the span of references, for blends of them and, if given, draws of a prior.

        Args:
            references: N of them, or a tensor (N, ...).
            prior: A law fitted to some or all of the same references.

        Raises:
            UnseenError: The prior's weights belong to another number of references.
        """
        references = References.of(references)
        values, vectors = torch.linalg.eigh(references.gram)
        kept = values > _KEPT * values[-1]
        root, vectors = values[kept].sqrt(), vectors[:, kept]
        coordinates = vectors * root
        states = References.of(_with(coordinates, 0))
        if prior is None:
            none = coordinates.new_zeros(0, len(root))
            return cls(references, vectors / root, states, none.sum(0), none, 0.0)
        if len(prior.mean) != references.count:
            raise UnseenError(f"a prior of {len(prior.mean)} inverted images beside "
                              f"{references.count} of them; run fit again")
        return cls(references, vectors / root, states, prior.mean @ coordinates,
                   prior.factor.T @ coordinates, prior.variance.item())

    def draw(self, streams: Streams) -> Tensor:
        """Return draws of the prior as states, float64 (n, r + 1).

        The r coordinates of its noise are normal, the squared length outside is chi-squared
        with d - r degrees of freedom, independent of them.
        """
        rank, r = self.factor.shape
        # At least 16 numbers a draw, see Streams; the first ones are used.
        noise = streams.normal(max(16, rank + r))
        t = (self.mean + noise[:, :rank] @ self.factor
             + self.variance**0.5 * noise[:, rank : rank + r])
        outside = self.rows.dimension - r
        if self.variance == 0 or outside == 0:
            return _with(t, 0)
        square = 2 * gammaincinv(outside / 2, streams.uniform(16)[:, 0].numpy())
        return torch.cat([t, (self.variance * torch.from_numpy(square))[:, None].sqrt()], 1)

    def lift(self, states: Tensor, streams: Streams) -> Tensor:
        """Return states in full, Q t + a random direction outside the span, float64 (n, d).

        Args:
            states: float64 (n, r + 1).
            streams: One per state; those with a part outside the span draw its direction.
        """
        x = self.rows.combine(states[:, :-1] @ self.basis.T)
        outside = states[:, -1].nonzero()[:, 0]
        if len(outside):
            h = streams[outside.tolist()].normal(x.shape[1])
            h -= self.rows.combine(self.rows.products(h) @ self.basis @ self.basis.T)
            x[outside] += h.mul_((states[outside, -1] / h.norm(dim=1))[:, None])
        return x


@dataclass(frozen=True, eq=False)
class Whole:
    """Stands in for a span where there is none: states are written in full.

    A variance per coordinate (prior kinds ``diagonal``, ``dct``) makes the length outside a span
    depend on the direction, so draws of such a prior are made and judged in d dimensions.

    Attributes:
        references: As they are.
        prior: The law that is drawn from.
    """

    references: References
    prior: Law

    def draw(self, streams: Streams) -> Tensor:
        """Return draws of the prior, float64 (n, d)."""
        return self.prior.sample(streams)

    def lift(self, states: Tensor, streams: Streams) -> Tensor:
        """Return the states themselves."""
        return states


def coordinates_of(references: References, prior: Law | None = None) -> Span | Whole:
    """Return the coordinates in which blends of references and draws of a prior are exact.

    Args:
        references: Inverted images.
        prior: A law fitted to them, or None for blends alone.
    """
    if prior is None or isinstance(prior, BlendGaussian):
        return Span.of(references, prior)
    return Whole(references, prior)


def _with(t: Tensor, rest: float) -> Tensor:
    """Append the length outside the span."""
    return torch.cat([t, t.new_full((len(t), 1), rest)], 1)
