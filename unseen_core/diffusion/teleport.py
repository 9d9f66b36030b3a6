"""Skipping the noisiest steps of a denoising run in closed form: a solver option."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from unseen_core.diffusion.transport import Method, denoise
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import EpsModel, Level

__all__ = ["Teleported", "denoise_teleported", "landing"]


@dataclass(frozen=True, eq=False)
class Teleported:
    """Images of a run whose first steps were skipped.

    Attributes:
        images: Shape and dtype of the start states, never clipped.
        land: Level at which the network took over.
        calls: Network calls an image.
        saved: Calls that the whole grid would have taken in addition.
    """

    images: Tensor
    land: Level
    calls: int
    saved: int

    @property
    def share(self) -> float:
        """Calls saved over those of the whole grid."""
        return self.saved / (self.calls + self.saved)


def landing(levels: Sequence[Level], share: float) -> Level:
    """Return the level of a grid at which a share of its calls, counted from the top, is skipped.

    Args:
        levels: Increasing grid from 0.
        share: Calls skipped over all calls, 0 to 1; rounded to whole calls.

    Raises:
        UnseenError: If the share is out of range.
    """
    if not 0 <= share <= 1:
        raise UnseenError(f"teleport: a share of {share} of the calls cannot be skipped; use 0 "
                          "to 1")
    return levels[len(levels) - 1 - round(share * (len(levels) - 1))]


def denoise_teleported(
    model: EpsModel,
    x: Tensor,
    levels: Sequence[Level],
    *,
    law: Gaussian,
    land: Level,
    method: Method = "dpm3m",
    observe: Callable[[Level, Tensor], None] | None = None,
) -> Teleported:
    """Carry states to ``land`` by the exact flow of a Gaussian law, then down the same grid.

    At high noise a network's flow is that of the Gaussian with the mean and the covariance of
    what it has learnt (Wang & Vastola, arXiv 2303.02490 and 2412.09726), whose map is one matrix
    product (``Gaussian.transport``). A multistep rule starts afresh at ``land``.

    Args:
        model: The frozen network.
        x: States at ``levels[-1]``, shape (b, c, h, w).
        levels: Increasing grid from 0, read downwards.
        law: Law of the clean images that the network has learnt, in [-1, 1].
        land: A level of the grid; its last one makes this ``denoise``, 0 leaves the network out.
        method: As for ``integrate``.
        observe: As for ``integrate``, of the steps that the network takes.

    Raises:
        UnseenError: If ``land`` is not a level of the grid, the law is of another dimension, or the
            levels do not rise from 0.
    """
    if land not in levels:
        raise UnseenError(f"teleport: level {land} is not on the grid; take one of its levels, as "
                          "landing does")
    part = levels[: levels.index(land) + 1]
    moved = law.transport(x.flatten(1).cpu(), model.schedule, levels[-1], land)
    start = moved.reshape(x.shape).to(x.device)
    images = denoise(model, start, part, method=method, observe=observe)
    return Teleported(images, land, len(part) - 1, len(levels) - len(part))
