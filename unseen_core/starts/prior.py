"""Draws from a Gaussian fitted to inverted images, or, as an ablation, to clean ones."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.laws.truncated import truncated_normal, truncated_variance
from unseen_core.starts.protocol import GAUSSIAN, Needs, StartContext, StartSampler, StartStates

__all__ = ["Prior", "StyleNoise", "style_law"]


@dataclass(frozen=True)
class Prior(StartSampler):
    """``x ~ N(m, F F^T + diag v)`` at the mixing level (arXiv 2310.09213, vanilla sampling).

    Attributes:
        kind: A kind of ``Gaussian.fit`` that the ``fit`` stage made. ``isotropic-reference`` is
            the published code's, whose variance counts the mean image twice.
        truncate: Bound on every number of the noise, in its standard deviations, 0.1 or more;
            the rest is scaled up, so that the covariance is kept. 0 sets no bound.
    """

    name: ClassVar[str] = "prior"
    prior_field: ClassVar[str] = "kind"
    summarised: ClassVar[bool] = True
    label: ClassVar[str] = GAUSSIAN
    keeps: ClassVar[str] = "the fit's mean and variance"
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


@dataclass(frozen=True)
class StyleNoise(StartSampler):
    """``x ~ N(mu, diag v)``, mean and variances of the clean images, at full strength.

    Diffusion in Style (Everaert et al., ICCV 2023) starts so at the last level, with a network
    that was fine-tuned on such noise. A frozen one takes it for noise of power 1: in a direction
    of learnt variance lambda it makes images of variance
    ``v lambda / (a^2 lambda + s^2)``, whose contrast is too low wherever v < 1, and drives the
    mean too far. `SignalLeak` is the form of the idea that needs no training.
    """

    name: ClassVar[str] = "style-noise"
    needs: ClassVar[Needs] = "images"
    fewest: ClassVar[int] = 2
    from_noise: ClassVar[bool] = True
    control: ClassVar[bool] = True

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return draws of the style's noise, whatever the level.

        Raises:
            UnseenError: If there are fewer than 2 fit images.
        """
        x = style_law(context.clean).sample(streams)
        return StartStates.untested(x.reshape(-1, *context.shape), context.level)


def style_law(images: References) -> Gaussian:
    """Return the law of style noise: mean and unbiased variance of every number, no factor.

    Args:
        images: Clean images, at least 2, of d numbers each.

    Returns:
        Mean (d,), factor (d, 0) and diagonal (d,).

    Raises:
        UnseenError: If there are fewer than 2.
    """
    if images.count < 2:
        raise UnseenError(f"style noise: needs at least 2 fit images, has {images.count}; raise "
                          "the domain's fit parameter")
    mean = images.mean
    squares = torch.zeros_like(mean)
    for _, rows in images.blocks():
        squares += (rows - mean).square().sum(0)
    return Gaussian(mean, mean.new_empty(len(mean), 0), squares / (images.count - 1))
