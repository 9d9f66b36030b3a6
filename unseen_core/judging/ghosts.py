"""Measures that see two pictures laid over each other, which feature distances forgive."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unseen_core.basics.images import LUMINANCE, with_channels
from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval
from unseen_core.laws.frequency import band_masks, dct

__all__ = ["MEASURES", "Comparison", "check_bootstrap", "ghost_measures", "ghosts", "in_blocks",
           "luminance", "octave_energies", "percentile_interval"]

MEASURES = ("sharpness", "local_contrast", "high_frequency")
"""Per image, without unit; none depends on an image's contrast or brightness."""

_BLOCK = 2**23  # Numbers of images that are floats at a time: 42 of 3 x 256 x 256.


@dataclass(frozen=True, eq=False)
class Comparison:
    """One measure of generated images beside that of real ones.

    Attributes:
        generated: float64 (n,).
        real: float64 (m,).
        distance: Two-sample Kolmogorov-Smirnov distance, 0 (alike) to 1.
        shift: Median of the generated less that of the real, over the interquartile range of the
            real. Of ``sharpness``: negative is blurred, positive over-sharp.
    """

    generated: Tensor
    real: Tensor
    distance: Interval
    shift: Interval


def ghost_measures(images: Tensor, *, patch: int = 4) -> dict[str, Tensor]:
    """Return the MEASURES of every image, on luminance.

    * ``sharpness``: mean gradient magnitude (central differences, per pixel) over the standard
      deviation of the image. Blur lowers it; a superposition has more and fainter edges, which
      raises it where edges are sparse;
    * ``local_contrast``: median over patches of the patch's standard deviation, over that of the
      image. A superposition fills the calm parts of one picture with the other;
    * ``high_frequency``: share of the DCT energy, the mean aside, in the octaves that begin at
      a quarter of the shorter side, in half waves, or above.

    Args:
        images: uint8 (n, 3, h, w).
        patch: Side of the patches in pixels, 2 to min(h, w).

    Returns:
        float64 (n,) by measure; 0 for an image of a single colour.

    Raises:
        UnseenError: If the images are of another type or shape, or ``patch`` is out of range.
    """
    side = min(images.shape[-2:])
    if not 2 <= patch <= side:
        raise UnseenError(f"patch {patch} is out of range; use 2 to {side} for these images")
    blocks = [_measures(luminance(block), patch) for block in in_blocks(images)]
    return {name: torch.cat([block[name] for block in blocks]) for name in MEASURES}


def _measures(y: Tensor, patch: int) -> dict[str, Tensor]:
    """Return the MEASURES of luminance (n, h, w)."""
    side = min(y.shape[1:])
    contrast = y.flatten(1).std(1, correction=0).clamp_min(1e-12)
    down, across = torch.gradient(y, dim=(1, 2))
    patches = functional.unfold(y[:, None], patch, stride=patch)  # (n, patch², patches)
    energy = octave_energies(y)
    # The octave of index b >= 1 begins at 2^(b-1).
    fine = [b for b in range(1, energy.shape[1]) if 2 ** (b - 1) >= side / 4]
    return {
        "sharpness": (down.square() + across.square()).sqrt().mean((1, 2)) / contrast,
        "local_contrast": _median(patches.std(1, correction=0)) / contrast,
        "high_frequency": energy[:, fine].sum(1) / energy[:, 1:].sum(1).clamp_min(1e-12),
    }


def ghosts(
    generated: Tensor,
    real: Tensor,
    *,
    patch: int = 4,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Comparison]:
    """Compare every one of the MEASURES between generated and held-out real images.

    Two samples of one law are about .87 sqrt((n + m) / (n m)) apart (mean of the Kolmogorov
    law). Resampling adds as much again, so the draws of the distance are moved back by their
    mean excess over the value before their percentiles are taken.

    Args:
        generated: uint8 (n, 3, h, w), n >= 2.
        real: uint8 (m, 3, h, w), m >= 2, held out from all fits.
        patch: Side of the patches of ``local_contrast`` in pixels.
        draws: Bootstrap draws of both sets, >= 1.
        seed: Seed of the draws.
        level: Coverage of the intervals, in (0, 1).

    Returns:
        A comparison by measure.

    Raises:
        UnseenError: If the images or a number are out of range.
    """
    check_bootstrap(draws, level)
    for name, images in (("generated", generated), ("real", real)):
        if len(images) < 2:
            raise UnseenError(f"{name}: {len(images)} images where at least 2 are needed")
    ours, theirs = (ghost_measures(images, patch=patch) for images in (generated, real))
    random = np.random.default_rng(seed)
    rows, others = (torch.from_numpy(random.integers(0, n, (draws, n)))
                    for n in (len(generated), len(real)))
    found = {}
    for name in MEASURES:
        x, y = ours[name], theirs[name]
        distance, drawn = _kolmogorov(x[None], y[None]).item(), _kolmogorov(x[rows], y[others])
        drawn = (drawn - (drawn.mean() - distance).clamp_min(0)).clamp(0, 1)
        spread = (y.quantile(0.75) - y.quantile(0.25)).clamp_min(1e-12)
        shift = (_median(x[None]) - _median(y[None])) / spread
        shifts = (_median(x[rows]) - _median(y[others])) / spread
        found[name] = Comparison(x, y, percentile_interval(distance, drawn, level),
                                 percentile_interval(shift.item(), shifts, level))
    return found


def luminance(images: Tensor) -> Tensor:
    """Return the luminance of uint8 images (n, c, h, w), c 1 or 3, float64 (n, h, w) in [0, 1].

    Raises:
        UnseenError: If the images are of another type or shape.
    """
    weights = torch.tensor(LUMINANCE, dtype=torch.float64)
    return torch.einsum("nchw,c->nhw", with_channels(images, 3).double() / 255, weights)


def in_blocks(images: Tensor) -> tuple[Tensor, ...]:
    """Split images (n, ...), n >= 1, into so many at a time as may be held as floats."""
    return images.split(max(1, _BLOCK // images[0].numel()))


def octave_energies(y: Tensor) -> Tensor:
    """Return the DCT energy of pictures (n, h, w) by octave, float64 (n, octaves), mean first."""
    masks = band_masks(*y.shape[1:]).double()
    return dct(y).square().flatten(1) @ masks.flatten(1).T


def percentile_interval(value: float, drawn: Tensor, level: float) -> Interval:
    """Return a value with the central ``level`` of its bootstrap draws, shape (draws,)."""
    tail = (1 - level) / 2
    low, high = np.quantile(drawn.numpy(), [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def check_bootstrap(draws: int, level: float) -> None:
    """Refuse a bootstrap that cannot be made.

    Raises:
        UnseenError: If ``draws`` is below 1 or ``level`` outside (0, 1).
    """
    if draws < 1 or not 0 < level < 1:
        raise UnseenError(f"ghosts: draws {draws}, level {level}; use draws >= 1 and a level "
                          "between 0 and 1")


def _median(x: Tensor) -> Tensor:
    """Return the medians of rows; torch's own takes the lower of two, or few elements only."""
    return torch.from_numpy(np.median(x.numpy(), axis=1))


def _kolmogorov(x: Tensor, y: Tensor) -> Tensor:
    """Return the Kolmogorov-Smirnov distances of rows x (b, n) and y (b, m), shape (b,)."""
    both, order = torch.cat([x, y], dim=1).sort(dim=1)
    step = torch.cat([torch.full_like(x, 1 / x.shape[1]), torch.full_like(y, -1 / y.shape[1])], 1)
    gap = step.gather(1, order).cumsum(1).abs()
    # Inside a run of ties the difference is that of no argument.
    last = functional.pad(both[:, 1:] > both[:, :-1], (0, 1), value=True)
    return torch.where(last, gap, 0.0).amax(1)
