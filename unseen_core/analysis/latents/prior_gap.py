"""How far inverted latents are from the law that noised images of the same domain have."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from unseen_core.analysis.latents.gram import centre, gram
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.fitting import ledoit_wolf_weight

__all__ = ["PriorGap", "frequency_bands", "prior_gap"]

_ROWS = 64  # Images whose transform is held at a time.


@dataclass(frozen=True)
class PriorGap:
    """What `prior_gap` found at a level; ratios are inverted over noised.

    Attributes:
        level: The level.
        mean_offset: |m̂ - a μ̂|, in units of the state.
        mean_noise: sqrt(tr S / n), the sampling noise of m̂ alone.
        paired_noise: sqrt(tr S_r / n), S_r the covariance of r = latent - a image: the noise of
            the offset, from which that of the images has cancelled.
        trace_ratio: tr S over the closed form's trace.
        bands: Edges [low, high) of each band, in half cycles per image side.
        variance_ratio: Fitted over closed variance in each band.
        variance_ratio_sd: Its standard error over images.
        log_likelihood_gap: Held-out [log p_fitted - log p_closed] / d, nats per dimension.
        log_likelihood_gap_sd: Its standard error over latents.
    """

    level: int
    mean_offset: float
    mean_noise: float
    paired_noise: float
    trace_ratio: float
    bands: tuple[tuple[float, float], ...]
    variance_ratio: tuple[float, ...]
    variance_ratio_sd: tuple[float, ...]
    log_likelihood_gap: float
    log_likelihood_gap_sd: float

    def summary(self) -> dict[str, object]:
        """Return a JSON-able description."""
        ratios = zip(self.bands, self.variance_ratio, self.variance_ratio_sd, strict=True)
        return {
            "level": self.level,
            "mean": {"offset": self.mean_offset, "noise": self.mean_noise,
                     "paired_noise": self.paired_noise},
            "trace_ratio": self.trace_ratio,
            "bands": [{"low": low, "high": high, "ratio": ratio, "sd": sd}
                      for (low, high), ratio, sd in ratios],
            "nats_per_dimension": {"gap": self.log_likelihood_gap,
                                   "sd": self.log_likelihood_gap_sd},
        }


def prior_gap(
    latents: Tensor, images: Tensor, schedule: Schedule, level: int, *, folds: int = 5,
    seed: int = 0,
) -> PriorGap:
    """Compare inverted latents with N(a μ, a² Σ + s² I), the law of noised images.

    The closed form holds for noised images, whatever the network; that inverted ones follow it
    is a claim to be tested. Bands are octaves of sqrt(i² + j²) over the orthonormal DCT-II of
    each channel. The likelihood is that of held-out latents under two Gaussians of kind
    ``shrunk`` (Ledoit-Wolf), both from the training folds: one fitted to latents, one to clean
    images and noised in closed form. For diagonal laws of variance ratio ρ_i the gap tends to
    the mean of (ρ_i - 1 - ln ρ_i) / 2, less what estimation costs each of them: the fitted law
    pays more, so that the gap of exactly noised images is slightly negative for n << d.

    Args:
        latents: Inverted images, shape (n, c, h, w), n >= 2 folds and >= 8.
        images: Their clean images in [-1, 1], row by row, same shape.
        schedule: The network's schedule.
        level: Level of the latents, 1..T.
        folds: >= 2.
        seed: Seed of the folds.

    Raises:
        UnseenError: If shapes differ, the level or folds are out of range, there are too few
            latents, or values are not finite.
    """
    schedule.check_level(level)
    if latents.ndim != 4 or latents.shape != images.shape:
        raise UnseenError(f"prior gap: latents {tuple(latents.shape)} and images "
                          f"{tuple(images.shape)}; give (n, c, h, w) of the same images")
    n, d = len(latents), latents[0].numel()
    if folds < 2 or n < max(2 * folds, 8):
        raise UnseenError(f"prior gap: {n} latents in {folds} folds; use 2 folds or more, and at "
                          "least 8 latents and two per fold")
    a, s = schedule.a(level).item(), schedule.s(level).item()
    products = gram(latents, images)
    trace, clean, residual = (
        (centre(p).trace() / (n - 1)).item()
        for p in (products[:n, :n], products[n:, n:], _residual(products, a)))
    shift = _residual(products, a).mean().clamp_min(0).sqrt().item()
    bands, ratios, errors = _band_ratios(latents, images, a, s)
    gap = _likelihood_gap(products, d, a, s, folds, seed) / d
    return PriorGap(
        level, shift, (trace / n) ** 0.5, (residual / n) ** 0.5,
        trace / (a**2 * clean + s**2 * d), bands, ratios, errors,
        gap.mean().item(), (gap.std() / n**0.5).item())


def frequency_bands(height: int, width: int) -> tuple[tuple[tuple[float, float], ...], Tensor]:
    """Octaves of radial frequency: the edges [low, high), and the band of every coefficient.

    0 to 1 (the mean alone), 1 to 2, 2 to 4, ... up to the corner; a band without a coefficient
    does not occur.

    Args:
        height: Rows of the picture, >= 1.
        width: Columns, >= 1.

    Returns:
        Edges, and int64 (height, width).
    """
    i, j = torch.arange(height)[:, None], torch.arange(width)[None]
    square = i**2 + j**2
    # Whole numbers: floor(log2 r) + 1 without rounding, as half of floor(log2 r²).
    index = torch.tensor([[int(v).bit_length() for v in row] for row in square.tolist()])
    index = (index + 1) // 2
    edges = tuple((0.0 if b == 0 else 2.0 ** (b - 1), 2.0**b) for b in range(int(index.max()) + 1))
    return edges, index


def _residual(products: Tensor, a: float) -> Tensor:
    """Gram matrix of latent - a image."""
    n = len(products) // 2
    cross = products[:n, n:]
    return products[:n, :n] - a * (cross + cross.T) + a**2 * products[n:, n:]


def _band_energies(pictures: Tensor, index: Tensor) -> Tensor:
    """Squared deviation from the mean picture per band, summed over channels, (n, bands)."""
    member = torch.nn.functional.one_hot(index.flatten()).double()
    mean = pictures.double().mean(0).cpu()
    rows = []
    for block in pictures.split(_ROWS):
        waves = scipy.fft.dctn((block.double().cpu() - mean).numpy(), axes=(2, 3), norm="ortho")
        rows.append(torch.from_numpy(np.square(waves).sum(1)).flatten(1) @ member)
    return torch.cat(rows)


def _band_ratios(
    latents: Tensor, images: Tensor, a: float, s: float
) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...], tuple[float, ...]]:
    """Edges, ratio of fitted to closed variance and its standard error, per band."""
    n, channels = latents.shape[:2]
    edges, index = frequency_bands(*latents.shape[2:])
    size = channels * index.flatten().bincount().double()
    correction = n / (n - 1)
    fitted = correction * _band_energies(latents, index) / size
    closed = a**2 * correction * _band_energies(images, index) / size + s**2
    ratio = fitted.mean(0) / closed.mean(0)
    # A ratio of means: its error is that of the residual, which keeps the pairing.
    error = (fitted - ratio * closed).std(0) / n**0.5 / closed.mean(0)
    return edges, tuple(ratio.tolist()), tuple(error.tolist())


def _likelihood_gap(
    products: Tensor, dimension: int, a: float, s: float, folds: int, seed: int
) -> Tensor:
    """Held-out log-likelihood of fitted less closed law per latent, in nats, (n,)."""
    n = len(products) // 2
    gap = torch.empty(n, dtype=torch.float64)
    for train, test in _folds(n, folds, seed):
        fitted = _log_prob(products, train, test, dimension, 1.0, 0.0)
        closed = _log_prob(products, train + n, test, dimension, a, s)
        gap[test] = (fitted - closed).cpu()
    return gap


def _folds(n: int, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Training and test rows of each fold."""
    parts = Streams(seed, "prior gap/folds", ["all"]).choose(n, n)[0].tensor_split(folds)
    for i, test in enumerate(parts):
        yield torch.cat([part for j, part in enumerate(parts) if j != i]), test


def _log_prob(
    products: Tensor, fit: Tensor, test: Tensor, dimension: int, a: float, s: float
) -> Tensor:
    """Log-density in nats, (test,), of the shrunk law of some rows, scaled by a and noised by s.

    Equals ``Gaussian.fit(rows, kind="shrunk")`` noised, by inner products alone: with Y_c the n
    centred rows, F = a sqrt((1 - w) / n) Y_cᵀ, remainder v = a² w τ + s², and Woodbury.
    """
    n = len(fit)
    within, cross = products[fit][:, fit], products[fit][:, test]
    inner = centre(within)
    weight = ledoit_wolf_weight(inner, dimension)
    v = a**2 * weight * inner.trace() / (n * dimension) + s**2
    alpha = a**2 * (1 - weight) / n
    deviation = (products.diagonal()[test] - 2 * a * cross.mean(0) + a**2 * within.mean())
    along = cross - a * within.mean(1, keepdim=True)  # rows of fit times (x - a m)
    along = along - along.mean(0)
    values, vectors = torch.linalg.eigh(inner)
    energies = v + alpha * values.clamp_min(0)
    explained = alpha * ((vectors.T @ along).square() / energies[:, None]).sum(0)
    volume = dimension * (2 * torch.pi * v).log() + (energies / v).log().sum()
    return -0.5 * ((deviation - explained) / v + volume)
