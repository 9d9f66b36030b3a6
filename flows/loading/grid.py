"""The one grid of levels on which states go up and come down."""

from flows.settings.params import Params
from unseen_core.diffusion.denoiser import UNetEps

__all__ = ["grid_of"]


def grid_of(network: UNetEps, params: Params) -> tuple[int, ...]:
    """Return the one grid on which states go up and come down."""
    levels = sorted(params.levels)
    for level in levels:
        network.schedule.check_level(level, "levels:")
    return network.schedule.grid(params.solver.steps, levels[-1], spacing=params.solver.spacing,
                                 through=levels[:-1])
