"""Images made by the local score of the fit images, in closed form and without a network."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.transport import integrate
from unseen_core.errors import UnseenError
from unseen_core.starts.protocol import Needs, StartContext, StartSampler, StartStates
from unseen_core.types import Level

__all__ = ["LocalEps", "LocalScore"]

_AT_ONCE = 2**24  # numbers: states x images x pixels


@dataclass(frozen=True, eq=False)
class LocalEps:
    """Noise prediction by the local score of a set of images; an ``EpsModel`` like a network.

    Each pixel of the clean image is guessed from the patch about it (Kamb & Ganguli,
    arXiv 2412.20292, the local score machine): the mean of that pixel over all images, weighted by

        w_j ∝ exp(-|x(patch) - a y_j(patch)|² / 2 s²).

    Patches that cover the image give the exact score of the empirical law, which only copies.
    Smaller ones let distant parts come from different images. As in the networks that they
    describe, the patch shrinks with the noise: its side goes from ``coarse`` at sigma >= 10 to
    ``fine`` at sigma <= 0.1, evenly in the logarithm of both.

    Attributes:
        schedule: The noise schedule.
        images: Floating (n, c, h, w) in [-1, 1].
        fine, coarse: Sides of the patch, in pixels, 1 <= fine <= coarse.

    Raises:
        UnseenError: If the sides are out of range.
    """

    schedule: Schedule
    images: Tensor
    fine: int
    coarse: int
    _energies: dict[int, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Check the sides."""
        if not 1 <= self.fine <= self.coarse:
            raise UnseenError(f"fine {self.fine}, coarse {self.coarse}: use 1 <= fine <= coarse")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of a state."""
        c, h, w = self.images.shape[1:]
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
        if side not in self._energies:
            self._energies[side] = _summed(y.square().sum(1)[None], side)[0]
        step = max(1, _AT_ONCE // (len(y) * y[0, 0].numel()))
        guesses = []
        for part in x.split(step):
            # |x - a y|² without |x|², which is the same for every image.
            likeness = _summed(torch.einsum("bchw,nchw->bnhw", part, y), side)
            weight = (a * likeness - a**2 / 2 * self._energies[side].to(x)) / s**2
            weight = weight.softmax(1)
            guesses.append(torch.einsum("bnhw,nchw->bchw", weight, y))
        return (x - a * torch.cat(guesses)) / s


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


@dataclass(frozen=True)
class LocalScore(StartSampler):
    """Noise carried from the last level to the mixing level by `LocalEps` of the clean fit images.

    At level 0, in pixel space, the images are finished without any network: the model-free rival
    at high novelty. At a mixing level the frozen network finishes them. Every fit image has a
    part in every draw, so `select`, which compares with images that have none, cannot judge it.

    Attributes:
        fine, coarse: Sides of the patches, see `LocalEps`. Larger ones give images that are
            closer to the domain and less new.
        calls: Steps from the last level down to level 0, at least 2.
    """

    name: ClassVar[str] = "local-score"
    needs: ClassVar[Needs] = "images"
    label: ClassVar[str] = "local score of the fit images"
    fine: int = 5
    coarse: int = 31
    calls: int = 30

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.fine <= self.coarse or self.calls < 2:
            raise UnseenError(f"fine {self.fine}, coarse {self.coarse}, calls {self.calls}: use "
                              "1 <= fine <= coarse, and at least 2 calls")

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return the states that noise has become at the mixing level."""
        images = context.clean.rows(list(range(context.clean.count))).float()
        model = LocalEps(context.schedule, images, self.fine, self.coarse)
        top, level = context.schedule.top, context.level
        through = [level] if 0 < level < top else []
        levels = context.schedule.grid(max(self.calls, 2 + len(through)), top, through=through)
        down = levels[levels.index(level):][::-1]
        x = streams.normal(*context.shape).float()
        return StartStates.untested(integrate(model, x, down) if len(down) > 1 else x, level)
