"""Draws from a Gaussian fitted to the inverted images: the paper's sampler without geometry."""

from dataclasses import dataclass
from functools import partial

from unseen_core.rng import Streams
from unseen_core.starts.protocol import StartContext, StartStates
from unseen_core.truncated import truncated_normal, truncated_variance

__all__ = ["Prior"]


@dataclass(frozen=True)
class Prior:
    """``x ~ N(m, F F^T + diag v)`` at the mixing level (arXiv 2310.09213, vanilla sampling).

    Attributes:
        kind: A kind of ``Gaussian.fit`` that the ``fit`` stage made. ``isotropic-reference`` is
            the published code's, whose variance counts the mean image twice.
        truncate: Bound on every number of the noise, in its standard deviations, 0.1 or more;
            the rest is scaled up, so that the covariance is kept. 0 sets no bound.
    """

    kind: str = "isotropic"
    truncate: float = 0.0

    def __post_init__(self) -> None:
        """Check the bound."""
        if self.truncate != 0:
            truncated_variance(self.truncate)

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return draws of the prior."""
        noise = partial(truncated_normal, bound=self.truncate) if self.truncate else Streams.normal
        x = context.prior(self.kind).sample(streams, noise)
        return StartStates.untested(x.reshape(-1, *context.shape), context.level)
