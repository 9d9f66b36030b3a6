"""Images by spatial frequency: the orthonormal discrete cosine transform and its bands."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy.fft
import torch
from torch import Tensor

__all__ = ["band_masks", "dct", "idct", "low_frequencies", "low_mask"]


def dct(x: Tensor) -> Tensor:
    """Return the orthonormal two-dimensional DCT-II over the last two axes.

    Two matrix products, so that it runs wherever tensors do. Lengths are kept, and coefficient
    (i, j) belongs to i half waves down and j half waves across.

    Args:
        x: Shape (..., h, w).

    Returns:
        float64, shape (..., h, w), as ``scipy.fft.dctn(x, norm="ortho")`` gives it.
    """
    return _waves(x.shape[-2]).to(x.device) @ x.double() @ _waves(x.shape[-1]).T.to(x.device)


def idct(x: Tensor) -> Tensor:
    """Return the inverse of ``dct``, float64, for coefficients (..., h, w)."""
    return _waves(x.shape[-2]).T.to(x.device) @ x.double() @ _waves(x.shape[-1]).to(x.device)


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


def low_mask(h: int, w: int, cut: float) -> Tensor:
    """Return which coefficients (i, j) have sqrt(i² + j²) < cut, bool (h, w)."""
    return _radius(h, w) < cut


def band_masks(h: int, w: int) -> Tensor:
    """Return octave bands, bool (bands, h, w); each coefficient lies in exactly one.

    Band 0 is the mean; band b >= 1 has 2^(b-1) <= sqrt(i² + j²) < 2^b. The last one is cut off
    by the corner of the array.
    """
    radius = _radius(h, w)
    # Exponent e with 2^(e-1) <= r < 2^e, exact at powers of two as a logarithm is not.
    band = torch.frexp(radius).exponent
    return band == torch.arange(int(band.max()) + 1)[:, None, None]


def _radius(h: int, w: int) -> Tensor:
    """Return sqrt(i² + j²) in half waves per image, float64 (h, w)."""
    i, j = (torch.arange(n, dtype=torch.float64) for n in (h, w))
    return (i[:, None].square() + j.square()).sqrt()


@lru_cache(maxsize=8)
def _waves(n: int) -> Tensor:
    """Return the orthonormal DCT-II matrix, float64 (n, n), one wave a row."""
    # All frequencies of a single column, which come in ascending order.
    return low_frequencies(n, (1, n, 1)).T.contiguous()
