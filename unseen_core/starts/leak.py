"""Clean images noised to a level: a signal leak drawn of their law, or the images themselves.

Both are ``x = a x0 + s eps`` at the mixing level, without a network call.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import BlendGaussian
from unseen_core.laws.fitting import dct_moments, diagonal_variances
from unseen_core.laws.frequency import low_frequencies
from unseen_core.laws.gaussian import Gaussian, Kind
from unseen_core.laws.references import References
from unseen_core.starts.parents import check_eta, numbered
from unseen_core.starts.protocol import Needs, StartContext, StartSampler, StartStates

__all__ = ["LEAKS", "Boomerang", "SignalLeak", "fit_leak"]

LEAKS: tuple[Kind, ...] = ("diagonal", "dct", "low-rank")


@lru_cache(maxsize=8)
def fit_leak(images: References, *, kind: Kind, rank: int) -> Gaussian:
    """Return the law of clean images, equal to ``Gaussian.fit`` of their rows.

    Images are read block by block. ``diagonal`` and ``dct`` are the two types of Everaert et al.
    (WACV 2024, arXiv 2309.15842). The last laws are remembered by their references, which a
    sampler asks for at every level and part.

    Args:
        images: At least 2, in [-1, 1].
        kind: One of LEAKS.
        rank: Lowest frequencies kept per channel of ``dct``, modes of ``low-rank``; ``diagonal``
            ignores it.

    Raises:
        UnseenError: Fewer than 2 images, another kind, or a rank out of range.
    """
    if images.count < 2:
        raise UnseenError(f"signal leak: needs at least 2 fit images, has {images.count}; raise "
                          "the domain's fit parameter")
    if kind == "low-rank":
        return BlendGaussian.fit(images, kind=kind, rank=rank).dense()
    mean = images.mean
    centred = (rows - mean for _, rows in images.blocks())
    if kind == "dct":
        return Gaussian(mean, *dct_moments(centred, rank, images.shape))
    if kind != "diagonal":
        raise UnseenError(f"kind {kind!r} is not a kind of leak; use one of {', '.join(LEAKS)}")
    squares = torch.zeros_like(mean)
    for rows in centred:
        squares += rows.square().sum(0)
    return Gaussian(mean, mean.new_empty(len(mean), 0), diagonal_variances(squares, images.count))


@dataclass(frozen=True)
class SignalLeak(StartSampler):
    """``x = a y + s eps`` with y drawn of a law of the clean images (arXiv 2309.15842).

    The closed-form twin of `Prior`: the law that noised images of the domain have, where `Prior`
    has that of inverted ones. A network that has learnt N(mu, lambda) along some direction keeps
    the share sqrt(kappa) of the leak's offset from mu, kappa = a^2 lambda / (a^2 lambda + s^2).

    Attributes:
        kind: One of LEAKS, see `fit_leak`.
        rank: Frequencies kept per channel, or modes.
        color: Means that the channels of y are set to, in [-1, 1], one per channel; empty: those
            that are drawn. Only for ``dct``: y has then nothing but this in its ``rank`` lowest
            frequencies, and the rest is drawn.
    """

    name: ClassVar[str] = "signal-leak"
    needs: ClassVar[Needs] = "images"
    fewest: ClassVar[int] = 2
    kind: Kind = "dct"
    rank: int = 6
    color: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the kind and the ranges."""
        if self.kind not in LEAKS:
            raise UnseenError(f"kind {self.kind!r} is not a kind of leak; use one of "
                              f"{', '.join(LEAKS)}")
        if self.rank < 1:
            raise UnseenError(f"rank {self.rank} is too small; use at least 1")
        if self.color and self.kind != "dct":
            raise UnseenError(f"color goes with kind dct, not {self.kind}; leave it out")
        if not all(-1 <= mean <= 1 for mean in self.color):
            raise UnseenError(f"color {list(self.color)} is out of range; use -1 to 1")

    @property
    def keeps(self) -> str | None:
        """The square root of kappa; a set colour has no such law."""
        return None if self.color else "√κ"

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return noised draws of the images' law.

        Raises:
            UnseenError: If there are too few images for ``rank``, or ``color`` has another number
                of channels.
        """
        law = fit_leak(context.clean, kind=self.kind, rank=self.rank)
        if self.color:
            x = self._coloured(law, context, streams)
        else:
            x = law.at(context.schedule, context.level).sample(streams)
        return StartStates.untested(x.reshape(-1, *context.shape), context.level)

    def _coloured(self, law: Gaussian, context: StartContext, streams: Streams) -> Tensor:
        """Return states whose low frequencies are the colour alone, float64 (n, d)."""
        channels = context.shape[0]
        if len(self.color) != channels:
            raise UnseenError(f"color has {len(self.color)} numbers for {channels} channels; give "
                              "one per channel")
        noise = streams.normal(len(law.mean))
        rest = law.mean + law.diagonal.sqrt() * streams.normal(len(law.mean))
        basis = low_frequencies(self.rank, context.shape)
        # A pixel's share of the kept frequencies is not part of the remainder.
        rest = (rest - (rest @ basis) @ basis.T).reshape(len(rest), channels, -1)
        y = rest + torch.tensor(self.color, dtype=torch.float64)[:, None]
        schedule, level = context.schedule, context.level
        return schedule.a(level) * y.flatten(1) + schedule.s(level) * noise


@dataclass(frozen=True)
class Boomerang(StartSampler):
    """Fit images noised to the level, in order, to be denoised with fresh noise.

    Local samples around a given image (Luzi et al., TMLR 2024, arXiv 2210.12100). A network that
    has learnt variance lambda along some direction keeps the share kappa^((1 + eta^2) / 2) of
    the image's deviation there, kappa = a^2 lambda / (a^2 lambda + s^2): what it hardly varies
    itself is erased at every useful level, where inversion keeps it.

    Attributes:
        eta: Share of fresh noise while denoising, 0..1; 1 is the ancestral sampler of the paper.
    """

    name: ClassVar[str] = "boomerang"
    needs: ClassVar[Needs] = "images"
    eta: float = 1.0

    def __post_init__(self) -> None:
        """Check the range."""
        check_eta(self.eta)

    @property
    def keeps(self) -> str | None:
        """Kappa with fresh noise on the way down, its square root without; None in between."""
        return {1.0: "κ", 0.0: "√κ"}.get(self.eta)

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return the image that each stream's id numbers, noised, starting again at the end.

        Raises:
            UnseenError: If an id is not a number.
        """
        images, schedule, level = context.clean, context.schedule, context.level
        rows = numbered(streams, images.count, "boomerang")
        noise = streams.normal(*context.shape)
        x = schedule.a(level) * images.rows(rows).double() + schedule.s(level) * noise
        return replace(StartStates.untested(x, level, rows[:, None]), eta=self.eta)
