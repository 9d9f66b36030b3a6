"""Inner products of latents, and the moments of their law that follow from them alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import check_features
from unseen_core.laws.fitting import centre

__all__ = ["Moments", "centre", "column_blocks", "gram"]

_COLUMNS = 8192  # A float64 copy of this many columns at a time.


@dataclass(frozen=True)
class Moments:
    """Moments of a law in d dimensions, estimated without bias from n latents.

    With S the unbiased sample covariance, Q = Σ |x_i - m̂|⁴ / (n - 1):

    * tr Σ: tr S;
    * tr Σ²: (n - 1) [(n - 1)(n - 2) tr S² + (tr S)² - n Q] / [n (n - 2)(n - 3)], which is the
      U-statistic over distinct latents (Himeno & Yamada 2014, J. Multivar. Anal. 130:27). The
      plain tr S² exceeds it by about (tr S)² / n, which is all there is to see when n << d;
    * |m|²: |m̂|² - tr S / n, so it may be negative;
    * mᵀ Σ m: m̂ᵀ S m̂ - tr Σ² / n, unbiased where mean and covariance of a sample are
      independent, as under normality.

    Attributes:
        count: Number of latents n.
        dimension: d.
        trace: tr Σ, in squared units of the state.
        trace_square: tr Σ², at least (tr Σ)² / d, its least possible value.
        mean_square: |m|².
        mean_along: mᵀ Σ m, at least 0.
    """

    count: int
    dimension: int
    trace: float
    trace_square: float
    mean_square: float
    mean_along: float

    @classmethod
    def of(cls, products: Tensor, dimension: int) -> Moments:
        """Estimate the moments from the Gram matrix (n, n) of latents as they are, n >= 4.

        Raises:
            UnseenError: If all latents are equal.
        """
        n = len(products)
        inner = centre(products)
        lengths = inner.diagonal()
        trace = (lengths.sum() / (n - 1)).item()
        if trace <= 1e-12 * products.trace().item() / n:
            raise UnseenError("latents: all are equal, so they have no spread; invert distinct "
                              "images")
        square = (inner.square().sum() / (n - 1) ** 2).item()
        fourth = (lengths.square().sum() / (n - 1)).item()
        trace_square = (n - 1) / (n * (n - 2) * (n - 3)) * (
            (n - 1) * (n - 2) * square + trace**2 - n * fourth)
        trace_square = max(trace_square, trace**2 / dimension)
        along = (products.mean(1) - products.mean()).square().sum().item() / (n - 1)
        return cls(n, dimension, trace, trace_square, products.mean().item() - trace / n,
                   max(along - trace_square / n, 0.0))

    @property
    def effective_rank(self) -> float:
        """Participation ratio (tr Σ)² / tr Σ² of the eigenvalues, 1 to d."""
        return self.trace**2 / self.trace_square


def column_blocks(latents: Tensor) -> Iterator[Tensor]:
    """Yield float64 copies (n, <= 8192) of the columns of flattened latents, in order."""
    for block in latents.flatten(1).split(_COLUMNS, 1):
        yield block.double()


def gram(latents: Tensor, others: Tensor | None = None) -> Tensor:
    """Return all inner products in float64, (n, n) or, with others, (n + m, n + m).

    Args:
        latents: Shape (n, ...), finite.
        others: Shape (m, ...) of the same dimension, put below the latents; or None.

    Raises:
        UnseenError: If a set has fewer than 4 rows, holds a number that is not finite, or the
            dimensions differ.
    """
    sets = {"latents": latents.flatten(1)}
    if others is not None:
        sets["others"] = others.flatten(1)
    check_features(sets, least=4)
    n = sum(len(rows) for rows in sets.values())
    products = torch.zeros(n, n, dtype=torch.float64, device=latents.device)
    for blocks in zip(*(column_blocks(rows) for rows in sets.values()), strict=True):
        rows = torch.cat(blocks)
        products += rows @ rows.T
    return products
