"""Draws from a Gaussian fitted to the inverted images: the paper's sampler without geometry."""

from dataclasses import dataclass

from unseen_core.rng import Streams
from unseen_core.starts.protocol import StartContext, StartStates

__all__ = ["Prior"]


@dataclass(frozen=True)
class Prior:
    """``x ~ N(m, F F^T + diag v)`` at the mixing level (arXiv 2310.09213, vanilla sampling).

    Attributes:
        kind: A kind of ``Gaussian.fit`` that the ``fit`` stage made. ``isotropic-reference`` is
            the published code's, whose variance counts the mean image twice.
    """

    kind: str = "isotropic"

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return draws of the prior."""
        x = context.prior(self.kind).sample(streams)
        return StartStates.untested(x.reshape(-1, *context.shape), context.level)
