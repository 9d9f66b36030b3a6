"""What a round trip keeps of an image, against network calls and mixing level."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from unseen_core.basics.schedule import Spacing
from unseen_core.diffusion.transport import Method, denoise, invert
from unseen_core.judging.metrics import psnr, relative_error
from unseen_core.types import Codec, EpsModel, Level

__all__ = ["RoundTrip", "reconstruction"]


class RoundTrip(TypedDict):
    """Errors of carrying images to a level and back; medians over the images.

    ``calls`` counts one way. ``mse`` and ``mae`` are of images in [0, 1], not clipped; ``psnr`` is
    in decibels; ``relative`` is |back - image| / |image| of images in [-1, 1].
    """

    steps: int
    level: int
    calls: int
    mse: float
    mae: float
    psnr: float
    relative: float


def reconstruction(
    model: EpsModel,
    codec: Codec,
    images: Tensor,
    levels: Sequence[Level],
    steps: Sequence[int],
    *,
    method: Method,
    spacing: Spacing,
) -> list[RoundTrip]:
    """Invert images and denoise them again with several budgets (arXiv 2310.09213, section 3).

    One grid per budget passes through all levels, as in the pipeline.

    Args:
        model: The frozen network.
        codec: Between images and its states.
        images: Shape (n, c, h, w) in [-1, 1].
        levels: Mixing levels, increasing.
        steps: Network calls from clean to the highest level.

    Returns:
        One entry per budget and level.
    """
    rows: list[RoundTrip] = []
    true, states = (images.double() + 1) / 2, codec.encode(images)
    for count in steps:
        grid = model.schedule.grid(count, levels[-1], spacing=spacing, through=levels[:-1])
        latents: dict[Level, Tensor] = {}
        invert(model, states, grid, method=method,
               observe=lambda level, x, kept=latents: kept.update({level: x}))
        for level in levels:
            part = grid[: grid.index(level) + 1]
            back = codec.decode(denoise(model, latents[level], part, method=method))
            error = (back.double() + 1) / 2 - true
            rows.append({
                "steps": count, "level": level, "calls": len(part) - 1,
                "mse": _median(error.square().flatten(1).mean(1)),
                "mae": _median(error.abs().flatten(1).mean(1)),
                "psnr": _median(psnr((back.double() + 1) / 2, true)),
                "relative": _median(relative_error(back, images)),
            })
    return rows


def _median(values: Tensor) -> float:
    """Return the median, the mean of the two middle ones for even counts."""
    return torch.quantile(values.double(), 0.5).item()
