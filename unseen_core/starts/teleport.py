"""Images of the seen domain with the first levels skipped in closed form."""

from dataclasses import dataclass
from typing import ClassVar

from unseen_core.basics.rng import Streams
from unseen_core.starts.protocol import Needs, StartContext, StartSampler, StartStates

__all__ = ["Teleport"]


@dataclass(frozen=True)
class Teleport(StartSampler):
    """``N(0, I)`` at the last level, carried to the mixing level by the law the network has learnt.

    While noise prevails a network is close to the Gaussian model of its training images, whose
    trajectories are known (Wang & Vastola, arXiv 2303.02490 and 2412.09726): the
    calls above the level are saved. It knows nothing of the unseen domain, so it is a control:
    what the network makes by itself from this level.
    """

    name: ClassVar[str] = "teleport"
    needs: ClassVar[Needs] = "law"
    control: ClassVar[bool] = True
    keeps: ClassVar[str] = "nothing"

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return transported noise.

        Raises:
            UnseenError: If the context lacks the learnt law, or that has no closed-form map.
        """
        top = context.schedule.top
        noise = streams.normal(*context.shape).flatten(1)
        x = context.learnt.transport(noise, context.schedule, top, context.level)
        return StartStates.untested(x.reshape(-1, *context.shape), context.level)
