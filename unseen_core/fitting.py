"""Estimators of a mean, a covariance factor and a remainder variance from few samples.

Every estimator works in float64 from the centred rows or their (n, n) Gram matrix and returns
(mean (d,), factor (d, r), diagonal () or (d,)); none forms a (d, d) matrix.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = ["Kind", "fit_moments", "ledoit_wolf_weight", "low_frequencies"]

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
    """Mean, factor and diagonal of the rows of ``x`` by the estimator ``kind``.

    Args:
        x: Shape (n, d), n >= 2, finite.
        kind: One of `Kind`.
        rank: Meaning depends on the kind; see `unseen_core.gaussian.Gaussian.fit`.
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
    if kind == "low-rank":
        return (mean, *_low_rank(centred, rank))
    if kind == "spiked":
        return (mean, *_spiked(centred, rank))
    if kind == "dct":
        return (mean, *_dct(centred, rank, shape))
    if kind == "isotropic-reference":
        return mean, _empty(centred), x.var(correction=0)
    simple: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
        "isotropic": _isotropic,
        "diagonal": _diagonal,
        "empirical": _empirical,
        "shrunk": _shrunk,
    }
    if kind not in simple:
        raise UnseenError(f"kind: {kind!r} is not one of {', '.join(get_args(Kind))}")
    return (mean, *simple[kind](centred))


def ledoit_wolf_weight(centred: Tensor) -> float:
    """Ledoit-Wolf weight of the identity, from the Gram matrix only.

    Equals scikit-learn's ``ledoit_wolf_shrinkage`` (Ledoit & Wolf 2004).

    Args:
        centred: Rows less their mean, shape (n, d).

    Returns:
        Weight in [0, 1] of tau I against the covariance with divisor n.
    """
    n, d = centred.shape
    gram = centred @ centred.T
    energy = gram.square().sum()
    spread = (gram.diagonal().square().sum() - energy / n) / n**2
    gap = energy / n**2 - gram.trace().square() / (n**2 * d)
    if gap <= 0:
        return 1.0
    return (spread.clamp_min(0) / gap).clamp_max(1).item()


def low_frequencies(rank: int, shape: Sequence[int]) -> Tensor:
    """Orthonormal DCT-II basis of the ``rank`` lowest frequencies of every channel.

    Frequencies are ordered by sqrt(i² + j²), ties by i; columns by frequency, then channel.

    Args:
        rank: Frequencies per channel, 1 to h w.
        shape: (c, h, w).

    Returns:
        Shape (c h w, rank c), float64.
    """
    c, h, w = shape
    order = sorted((i * i + j * j, i, j) for i in range(h) for j in range(w))[:rank]
    waves = np.zeros((rank, h, w))
    for row, (_, i, j) in enumerate(order):
        waves[row, i, j] = 1
    waves = scipy.fft.idctn(waves, axes=(1, 2), norm="ortho")
    basis = torch.zeros(c, h * w, rank, c, dtype=torch.float64)
    for channel in range(c):
        basis[channel, :, :, channel] = torch.from_numpy(waves.reshape(rank, h * w).T)
    return basis.reshape(c * h * w, rank * c)


def _empty(centred: Tensor) -> Tensor:
    """A factor of rank 0."""
    return centred.new_zeros(centred.shape[1], 0)


def _total(centred: Tensor) -> Tensor:
    """Unbiased total variance d v-hat."""
    return centred.square().sum() / (len(centred) - 1)


def _isotropic(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased within-dimension variance."""
    return _empty(centred), _total(centred) / centred.shape[1]


def _diagonal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variance per coordinate, drawn towards their average by its own sampling error."""
    variances = centred.square().sum(0) / (len(centred) - 1)
    spread = variances.var(correction=0)
    noise = 2 * variances.square().mean() / (len(centred) + 1)
    weight = (noise / spread).clamp_max(1) if spread > 0 else torch.ones_like(spread)
    return _empty(centred), (1 - weight) * variances + weight * variances.mean()


def _empirical(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Unbiased sample covariance, exactly; draws are blends of the samples."""
    return centred.T / (len(centred) - 1) ** 0.5, centred.new_zeros(())


def _shrunk(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Ledoit-Wolf: (1 - w) S + w tau I, with S of divisor n as in scikit-learn."""
    n, d = centred.shape
    weight = ledoit_wolf_weight(centred)
    remainder = weight * centred.square().sum() / (n * d)
    if weight == 1:
        return _empty(centred), remainder
    return centred.T * ((1 - weight) / n) ** 0.5, remainder


def _eigenpairs(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Sample eigenvalues, largest first, and directions (d, q), for the non-zero ones only."""
    n, d = centred.shape
    if n > d:
        _, singular, rows = torch.linalg.svd(centred / (n - 1) ** 0.5, full_matrices=False)
        values, directions = singular.square(), rows.T
        kept = values > values.max() * 1e-12
        return values[kept], directions[:, kept]
    values, vectors = torch.linalg.eigh(centred @ centred.T / (n - 1))
    values, vectors = values.flip(0), vectors.flip(1)
    kept = values > values.max() * 1e-12
    values, vectors = values[kept], vectors[:, kept]
    return values, centred.T @ (vectors / ((n - 1) * values).sqrt())


def _low_rank(centred: Tensor, rank: int | None) -> tuple[Tensor, Tensor]:
    """Leading sample modes and one remainder variance; the trace is kept (PPCA)."""
    n, d = centred.shape
    top = min(n - 1, d - 1)
    if rank is None or not 1 <= rank <= top:
        raise UnseenError(f"rank: low-rank needs 1 to {top} for {n} samples, not {rank}")
    values, directions = _eigenpairs(centred)
    values, directions = values[:rank], directions[:, :rank]
    remainder = ((_total(centred) - values.sum()) / (d - len(values))).clamp_min(0)
    return directions * (values - remainder).clamp_min(0).sqrt(), remainder


def _spiked(centred: Tensor, cap: int | None) -> tuple[Tensor, Tensor]:
    """Modes above the noise edge with de-biased variances, in the spiked covariance model.

    With gamma = d / (n - 1), noise v alone puts sample eigenvalues up to v (1 + sqrt(gamma))²;
    a larger one, l, belongs to the variance [b + sqrt(b² - 4 l v)] / 2, b = l + v - gamma v.
    The noise floor v is the fixed point that keeps the total variance.
    """
    n, d = centred.shape
    if cap is not None and cap < 1:
        raise UnseenError(f"rank: spiked needs a cap of at least 1, not {cap}")
    total, gamma = _total(centred), d / (n - 1)
    values, directions = _eigenpairs(centred)
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


def _dct(
    centred: Tensor, rank: int | None, shape: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Full covariance of low DCT coefficients, variance per pixel for the rest.

    After Everaert et al. (arXiv 2309.15842). Independent pixels put noise back into the kept
    coefficients: it is taken out of their covariance, and the pixel variances are raised so that
    the part of them outside the kept coefficients has the energy of the remainder. Covariance
    of the kept coefficients and total variance are then those measured, wherever the first
    exceeds the noise it contains. The covariance is shrunk (Ledoit-Wolf) when n <= rank c.
    """
    n, d = centred.shape
    if shape is None or len(shape) != 3 or int(np.prod(shape)) != d:
        raise UnseenError(f"shape: dct needs (c, h, w) with c h w = {d}, not {shape}")
    pixels = shape[1] * shape[2]
    if rank is None or not 1 <= rank <= pixels:
        raise UnseenError(f"rank: dct needs 1 to {pixels} frequencies per channel, not {rank}")
    basis = low_frequencies(rank, shape)
    coefficients = centred @ basis
    covariance = coefficients.T @ coefficients / (n - 1)
    if n <= basis.shape[1]:
        weight = ledoit_wolf_weight(coefficients)
        tau = covariance.diagonal().mean()
        covariance = (1 - weight) * covariance + weight * tau * torch.eye(len(covariance)).to(tau)
    variances = (centred - coefficients @ basis.T).square().sum(0) / (n - 1)
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
