"""The local score of images in closed form (Kamb & Ganguli, arXiv 2412.20292): no network."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.types import Level

__all__ = ["LocalEps"]

_AT_ONCE = 2**24  # numbers: states x images x pixels


@dataclass(frozen=True, eq=False)
class LocalEps:
    """Noise prediction by the local score of images; an ``EpsModel`` like a network.

    Each pixel of the clean image is guessed from the patch about it (Kamb & Ganguli,
    arXiv 2412.20292, the local score machine): the mean of that pixel over all images, weighted by

        w_j ∝ exp(-|x(patch) - a y_j(patch)|² / 2 s²).

    Patches that cover the image give the exact score of the empirical law, which only copies.
    Smaller ones let distant parts come from different images. As in the networks that they
    describe, the patch shrinks with the noise: its side goes from ``coarse`` at sigma >= 10 to
    ``fine`` at sigma <= 0.1, evenly in the logarithm of both.

    Attributes:
        schedule: The noise schedule.
        images: Clean states, floating: (n, c, h, w), or (b, n, c, h, w) with images of its own
            for each of b states.
        fine, coarse: Sides of the patch, in pixels, 1 <= fine <= coarse.

    Raises:
        UnseenError: If the sides are out of range.
    """

    schedule: Schedule
    images: Tensor
    fine: int = 5
    coarse: int = 31
    _energies: dict[int, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Check the sides."""
        if not 1 <= self.fine <= self.coarse:
            raise UnseenError(f"fine {self.fine}, coarse {self.coarse}: use 1 <= fine <= coarse")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of a state."""
        c, h, w = self.images.shape[-3:]
        return c, h, w

    def side(self, level: Level) -> int:
        """Return the side of the patch at a level, an odd number of pixels."""
        noise = math.log10(self.schedule.sigma(max(level, 1)).item())
        part = min(max((noise + 1) / 2, 0.0), 1.0)
        return 2 * round((self.fine * (self.coarse / self.fine) ** part - 1) / 2) + 1

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the noise in states ``x`` (b, c, h, w) at ``level`` >= 1, same shape and dtype."""
        level = max(level, 1)
        a, s = self.schedule.a(level).item(), self.schedule.s(level).item()
        side, y = self.side(level), self.images.to(x)
        y = y if y.ndim == 5 else y[None]
        if side not in self._energies:
            self._energies[side] = _summed(y.square().sum(2), side)
        energies = self._energies[side].to(x)
        step = max(1, _AT_ONCE // y[0, :, 0].numel())
        guesses = []
        for first in range(0, len(x), step):
            part = x[first : first + step]
            of, energy = ((each[first : first + step] for each in (y, energies)) if len(y) > 1
                          else (y, energies))
            # |x - a y|² without |x|², which is the same for every image.
            likeness = _summed(_like(part, of), side)
            weight = ((a * likeness - a**2 / 2 * energy) / s**2).softmax(1)
            guesses.append(_mean(weight, of))
        return (x - a * torch.cat(guesses)) / s


def _like(x: Tensor, y: Tensor) -> Tensor:
    """Return products over channels of states (b, c, h, w) with images (b or 1, n, c, h, w)."""
    if len(y) == 1:
        return torch.einsum("bchw,nchw->bnhw", x, y[0])
    return (x[:, None] * y).sum(2)


def _mean(weight: Tensor, y: Tensor) -> Tensor:
    """Return means, weighted by (b, n, h, w), of images (b or 1, n, c, h, w)."""
    if len(y) == 1:
        return torch.einsum("bnhw,nchw->bchw", weight, y[0])
    return (weight[:, :, None] * y).sum(1)


def _summed(x: Tensor, side: int) -> Tensor:
    """Sum over the side x side pixels about each, as far as they lie inside, (b, n, h, w).

    By two products with matrices of ones near the diagonal: pooling, which adds pixel by pixel, is
    13 to 28 times slower on a CPU (60 x 100 x 32 x 32, sides 5 to 31).
    """
    rows, columns = (_near(size, side).to(x) for size in x.shape[-2:])
    return rows @ x @ columns


def _near(size: int, side: int) -> Tensor:
    """Return which of so many places lie within a window of this odd side about each other."""
    place = torch.arange(size)
    return (place[:, None] - place).abs() <= side // 2
