"""A frozen network with guidance: its noise is changed on the way to the solver."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.types import EpsModel, Level

__all__ = ["GuidedEps"]


@dataclass(frozen=True, eq=False)
class GuidedEps:
    """A network and what guides it; an ``EpsModel`` like the network alone.

    Attributes:
        network: The frozen network.
        change: Called with the network's noise (b, c, h, w), the states and their level; returns
            the guided noise, same shape.
    """

    network: EpsModel
    change: Callable[[Tensor, Tensor, Level], Tensor]

    @property
    def schedule(self) -> Schedule:
        """The network's noise schedule."""
        return self.network.schedule

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of a state."""
        return self.network.shape

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the guided noise in states ``x`` (b, c, h, w) at ``level``, same shape."""
        return self.change(self.network(x, level), x, level)
