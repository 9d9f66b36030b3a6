"""Estimators of a mean, a covariance factor and a remainder variance from few samples.

All but two kinds need the samples' inner products alone: their factor is Xᵀ W, X the centred rows
and W (n, r) weights (`factor_weights`), whether the rows are in memory (`fit_moments`) or not
(`unseen_core.laws.blends`). Every estimator works in float64; none forms a (d, d) matrix.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.laws.frequency import low_frequencies

__all__ = ["Kind", "centre", "dct_moments", "diagonal_variances", "factor_weights", "fit_moments",
           "ledoit_wolf_weight"]

Kind = Literal[
    "isotropic",
    "isotropic-reference",
    "diagonal",
    "empirical",
    "low-rank",
    "spiked",
    "shrunk",
    "dct",
]
_Moments: TypeAlias = tuple[Tensor, Tensor, Tensor]

_SPIKED_ROUNDS = 500  # The noise floor falls monotonically; a few rounds are the rule.


def fit_moments(
    x: Tensor, *, kind: Kind, rank: int | None = None, shape: Sequence[int] | None = None
) -> _Moments:
    """Mean (d,), factor (d, r) and diagonal () or (d,) of the rows of ``x``.

    Args:
        x: Shape (n, d), n >= 2, finite.
        kind: One of `Kind`.
        rank: Meaning depends on the kind; see `unseen_core.laws.gaussian.Gaussian.fit`.
        shape: (c, h, w), for ``dct``.

    Raises:
        UnseenError: Fewer than two rows, values that are not finite, an unknown kind, or a rank
            or shape that is missing or out of range.
    """
    if x.ndim != 2 or x.shape[1] < 1:
        raise UnseenError(f"Gaussian.fit: x has shape {tuple(x.shape)}, needs (n, d)")
    if len(x) < 2:
        raise UnseenError(f"Gaussian.fit: needs at least 2 samples, has {len(x)}; add images")
    if not torch.isfinite(x).all():
        raise UnseenError("Gaussian.fit: x holds values that are not finite; invert again")
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    if kind == "dct":
        return (mean, *dct_moments([centred], rank, shape))
    if kind == "diagonal":
        return mean, centred.new_zeros(len(mean), 0), diagonal_variances(
            centred.square().sum(0), len(x))
    weights, variance = factor_weights(centred @ centred.T, mean, kind=kind, rank=rank)
    return mean, centred.T @ weights, variance


def factor_weights(
    inner: Tensor, mean: Tensor, *, kind: Kind, rank: int | None = None
) -> tuple[Tensor, Tensor]:
    """Weights W (n, r) of the factor Xᵀ W in the centred rows X, and the variance () outside it.

    * ``isotropic``: no factor, the unbiased variance within dimensions.
    * ``isotropic-reference``: that of all numbers about their one mean, as the published code
      of arXiv 2310.09213 has it: the mean image's own variance is counted as well.
    * ``empirical``: the unbiased sample covariance, exactly; draws are blends of the samples.
    * ``shrunk``: Ledoit-Wolf, (1 - w) S + w tau I, with S of divisor n as in scikit-learn.
    * ``low-rank``: leading sample modes and one remainder variance; the trace is kept (PPCA).
    * ``spiked``: modes above the noise edge with de-biased variances.

    Args:
        inner: X Xᵀ, float64 (n, n), n >= 2, finite.
        mean: Mean row, (d,).
        kind: One of `Kind` but ``diagonal`` and ``dct``, which inner products do not decide.
        rank: See `unseen_core.laws.gaussian.Gaussian.fit`.

    Raises:
        UnseenError: Another kind, or a rank that is missing or out of range.
    """
    n, d = len(inner), len(mean)
    total, none = inner.trace() / (n - 1), inner.new_empty(n, 0)  # unbiased d v-hat
    match kind:
        case "isotropic":
            return none, total / d
        case "isotropic-reference":
            return none, inner.trace() / (n * d) + mean.var(correction=0)
        case "empirical":
            return torch.eye(n).to(inner) / (n - 1) ** 0.5, inner.new_zeros(())
        case "shrunk":
            weight = ledoit_wolf_weight(inner, d)
            remainder = weight * inner.trace() / (n * d)
            return none if weight == 1 else (
                torch.eye(n).to(inner) * ((1 - weight) / n) ** 0.5), remainder
        case "low-rank":
            return _low_rank(inner, d, rank)
        case "spiked":
            return _spiked(inner, d, rank)
    raise UnseenError(f"kind: {kind!r} is not one of {', '.join(get_args(Kind))}")


def diagonal_variances(squares: Tensor, n: int) -> Tensor:
    """Variance per coordinate, drawn towards their average by its own sampling error.

    Args:
        squares: Sums of squared deviations from the mean, float64 (d,).
        n: Number of rows summed over, >= 2.
    """
    variances = squares / (n - 1)
    spread = variances.var(correction=0)
    noise = 2 * variances.square().mean() / (n + 1)
    weight = (noise / spread).clamp_max(1) if spread > 0 else torch.ones_like(spread)
    return (1 - weight) * variances + weight * variances.mean()


def centre(products: Tensor) -> Tensor:
    """Return the Gram matrix of the rows less their mean, from that of the rows, (n, n)."""
    rows = products - products.mean(0)
    return rows - rows.mean(1, keepdim=True)


def ledoit_wolf_weight(inner: Tensor, dimension: int) -> float:
    """Ledoit-Wolf weight of the identity, in [0, 1], from the centred Gram matrix (n, n).

    The weight of tau I against the covariance with divisor n; equals scikit-learn's
    ``ledoit_wolf_shrinkage`` (Ledoit & Wolf 2004, J. Multivar. Anal. 88:365).
    """
    n = len(inner)
    energy = inner.square().sum()
    spread = (inner.diagonal().square().sum() - energy / n) / n**2
    gap = energy / n**2 - inner.trace().square() / (n**2 * dimension)
    return (spread.clamp_min(0) / gap).clamp_max(1).item() if gap > 0 else 1.0


def dct_moments(
    centred: Iterable[Tensor], rank: int | None, shape: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Factor of the low DCT coefficients' full covariance, and a variance per pixel for the rest.

    After Everaert et al. (arXiv 2309.15842). Independent pixels put noise back into the kept
    coefficients: it is taken out of their covariance, and the pixel variances are raised so that
    the part of them outside the kept coefficients has the energy of the remainder. Covariance
    of the kept coefficients and total variance are then those measured, wherever the first
    exceeds the noise it contains. The covariance is shrunk (Ledoit-Wolf) when n <= rank c.

    Args:
        centred: Rows less their mean, float64, in blocks (b, d), of n >= 2 rows together.
        rank: Frequencies kept per channel, 1 to h w.
        shape: (c, h, w) with c h w = d.

    Returns:
        Factor (d, rank c), or fewer columns, and variances (d,).

    Raises:
        UnseenError: A rank or shape that is missing or out of range.
    """
    if shape is None or len(shape) != 3:
        raise UnseenError(f"shape: dct needs (c, h, w), not {shape}")
    pixels = shape[1] * shape[2]
    if rank is None or not 1 <= rank <= pixels:
        raise UnseenError(f"rank: dct needs 1 to {pixels} frequencies per channel, not {rank}")
    basis = low_frequencies(rank, shape)
    kept_rows, squares = [], basis.new_zeros(len(basis))
    for block in centred:
        if block.shape[1] != len(basis):
            raise UnseenError(f"shape: dct needs (c, h, w) with c h w = {block.shape[1]}, "
                              f"not {shape}")
        kept_rows.append(block @ basis)
        squares += (block - kept_rows[-1] @ basis.T).square().sum(0)
    coefficients = torch.cat(kept_rows)
    n = len(coefficients)
    covariance = coefficients.T @ coefficients / (n - 1)
    if n <= basis.shape[1]:
        weight = ledoit_wolf_weight(coefficients @ coefficients.T, basis.shape[1])
        tau = covariance.diagonal().mean()
        covariance = (1 - weight) * covariance + weight * tau * torch.eye(len(covariance)).to(tau)
    variances = squares / (n - 1)
    if rank == pixels:
        leaked, variances = torch.zeros_like(covariance), torch.zeros_like(variances)
    else:
        leaked = basis.T @ (variances[:, None] * basis)
        raised = variances.sum() / (variances.sum() - leaked.trace())
        raised = raised if torch.isfinite(raised) else torch.ones_like(raised)
        leaked, variances = raised * leaked, raised * variances
    values, vectors = torch.linalg.eigh(covariance - leaked)
    kept = values > values.abs().max() * 1e-14
    return basis @ (vectors[:, kept] * values[kept].sqrt()), variances


def _eigenpairs(inner: Tensor) -> tuple[Tensor, Tensor]:
    """Sample eigenvalues, largest first, and unit directions as weights; non-zero ones only."""
    n = len(inner)
    values, vectors = torch.linalg.eigh(inner / (n - 1))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = values > values.max() * 1e-12
    values, vectors = values[kept], vectors[:, kept]
    return values, vectors / ((n - 1) * values).sqrt()


def _low_rank(inner: Tensor, d: int, rank: int | None) -> tuple[Tensor, Tensor]:
    """Weights of the leading modes, and the mean variance of the others."""
    n = len(inner)
    top = min(n - 1, d - 1)
    if rank is None or not 1 <= rank <= top:
        raise UnseenError(f"rank: low-rank needs 1 to {top} for {n} samples, not {rank}")
    values, directions = _eigenpairs(inner)
    values, directions = values[:rank], directions[:, :rank]
    total = inner.trace() / (n - 1)
    remainder = ((total - values.sum()) / (d - len(values))).clamp_min(0)
    return directions * (values - remainder).clamp_min(0).sqrt(), remainder


def _spiked(inner: Tensor, d: int, cap: int | None) -> tuple[Tensor, Tensor]:
    """Weights of the modes above the noise edge, and the noise, in the spiked covariance model.

    With gamma = d / (n - 1), noise v alone puts sample eigenvalues up to v (1 + sqrt(gamma))²;
    a larger one, l, belongs to the variance [b + sqrt(b² - 4 l v)] / 2, b = l + v - gamma v.
    The noise floor v is the fixed point that keeps the total variance.
    """
    n = len(inner)
    if cap is not None and cap < 1:
        raise UnseenError(f"rank: spiked needs a cap of at least 1, not {cap}")
    total, gamma = inner.trace() / (n - 1), d / (n - 1)
    values, directions = _eigenpairs(inner)
    limit = min(len(values), d - 1, len(values) if cap is None else cap)
    values, directions = values[:limit], directions[:, :limit]
    floor, variances = total / d, values[:0]
    for _ in range(_SPIKED_ROUNDS):
        above = values[values > floor * (1 + gamma**0.5) ** 2]
        b = above + (1 - gamma) * floor
        variances = (b + (b.square() - 4 * above * floor).clamp_min(0).sqrt()) / 2
        previous, floor = floor, ((total - variances.sum()) / (d - len(variances))).clamp_min(0)
        if (previous - floor).abs() <= 1e-13 * previous:
            break
    return directions[:, : len(variances)] * (variances - floor).clamp_min(0).sqrt(), floor
