"""From start states to clean ones: the frozen network, as their sampler asks for it."""

from collections.abc import Sequence

from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.diffusion.transport import Method, ancestral, denoise
from unseen_core.laws.references import References
from unseen_core.starts.protocol import StartSampler, StartStates
from unseen_core.types import EpsModel, Level

__all__ = ["denoise_starts"]


def denoise_starts(
    sampler: StartSampler,
    network: EpsModel,
    starts: StartStates,
    levels: Sequence[Level],
    *,
    images: References,
    streams: Streams,
    method: Method = "dpm3m",
) -> Tensor:
    """Carry start states down to clean states; those of level 0 are clean already.

    With ``starts.eta`` > 0 fresh noise enters at each step, else a solver follows the
    deterministic trajectory; see ``unseen_core.diffusion.transport``.

    Args:
        sampler: It drew the start states, and may guide the network.
        network: The frozen network.
        starts: On the network's device.
        levels: Increasing grid from 0 to the level of the start states.
        images: The clean fit images, as states of the network.
        streams: For denoising, one per row; a sampler may draw from them, too.
        method: The solver, unless the sampler needs one of its own.

    Returns:
        States (n, c, h, w) at level 0, never clipped.
    """
    if starts.level == 0:
        return starts.x
    model = sampler.guided(network, starts, images, levels, streams)
    if starts.eta > 0:
        return ancestral(model, starts.x, levels, eta=starts.eta, streams=streams)
    return denoise(model, starts.x, levels, method=sampler.method or method)
