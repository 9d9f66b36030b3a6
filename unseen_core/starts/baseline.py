"""Two baselines: plain noise, and the fit images' own latents."""

from dataclasses import dataclass, replace
from typing import ClassVar

from unseen_core.basics.rng import Streams
from unseen_core.starts.parents import check_eta, numbered
from unseen_core.starts.protocol import Needs, StartContext, StartSampler, StartStates

__all__ = ["Noise", "Reconstruction"]


@dataclass(frozen=True)
class Noise(StartSampler):
    """``N(0, I)`` at the mixing level: the fall-back to the seen domain."""

    name: ClassVar[str] = "noise"
    needs: ClassVar[Needs] = "images"
    from_noise: ClassVar[bool] = True
    control: ClassVar[bool] = True
    summarised: ClassVar[bool] = True
    keeps: ClassVar[str] = "nothing"

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return standard normal states."""
        return StartStates.untested(streams.normal(*context.shape), context.level)


@dataclass(frozen=True)
class Reconstruction(StartSampler):
    """The references themselves, in order: the floor of any distance, and all of them copies.

    Attributes:
        eta: Share of fresh noise while denoising, 0..1: how much the content of an image
            tolerates before it is lost (the bandwidth of arXiv 2310.09213).
    """

    name: ClassVar[str] = "reconstruction"
    repeats: ClassVar[bool] = True
    control: ClassVar[bool] = True
    keeps: ClassVar[str] = "all"
    eta: float = 0.0

    def __post_init__(self) -> None:
        """Check the range."""
        check_eta(self.eta)

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return the reference that each stream's id numbers, starting again when they run out.

        Raises:
            UnseenError: If an id is not a number.
        """
        rows = numbered(streams, context.references.count, "reconstruction")
        states = StartStates.untested(context.references.rows(rows), context.level, rows[:, None])
        return replace(states, eta=self.eta)
