"""Images made by the local score of the fit images, in closed form and without a network."""

from dataclasses import dataclass
from typing import ClassVar

from unseen_core.basics.rng import Streams
from unseen_core.diffusion.local_score import LocalEps
from unseen_core.diffusion.transport import integrate
from unseen_core.errors import UnseenError
from unseen_core.starts.protocol import Needs, StartContext, StartSampler, StartStates

__all__ = ["LocalScore"]


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
