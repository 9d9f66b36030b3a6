"""What becomes of a perturbation of a state: the gain of the final image, by injection level."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.transport import Method, denoise
from unseen_core.errors import UnseenError
from unseen_core.types import EpsModel, Level

__all__ = ["Kicked", "kick", "predicted_gain"]


@dataclass(frozen=True, eq=False)
class Kicked:
    """Images of perturbed runs.

    Attributes:
        gain: Change of the final image along the perturbed direction over that of the state, by
            central differences, float64 (n, directions).
        response: Length of the whole change over that of the state, float64 (n, directions).
        plain: Images of the unperturbed runs, shape (n, d).
        moved: Images after +size, shape (n, directions, d).
    """

    gain: Tensor
    response: Tensor
    plain: Tensor
    moved: Tensor


def predicted_gain(variance: float, schedule: Schedule, level: Level) -> float:
    """Return sqrt(λ / (s² + a² λ)), the gain along a mode of clean variance λ.

    Above 1 and up to sqrt(λ) where λ > 1 and the level is high; 0 off the span of the images
    (Wang & Vastola, arXiv 2303.02490).
    """
    a, s = schedule.a(level).item(), schedule.s(level).item()
    return (variance / (s**2 + a**2 * variance)) ** 0.5


def kick(
    model: EpsModel,
    x: Tensor,
    levels: Sequence[Level],
    directions: Tensor,
    *,
    size: float,
    batch: int,
    method: Method = "dpm3m",
) -> Kicked:
    """Denoise states, and the same states moved both ways along directions.

    All start afresh at ``levels[-1]``, so that solver and network err alike.

    Args:
        model: The frozen network.
        x: States at ``levels[-1]``, shape (n, c, h, w).
        levels: Increasing grid from 0.
        directions: Unit vectors, shape (directions, d), or (n, directions, d).
        size: Length of the perturbation, > 0.
        batch: States per network call.
        method: As for ``unseen_core.diffusion.transport.integrate``.

    Raises:
        UnseenError: If the size is not positive.
    """
    if not size > 0:
        raise UnseenError(f"kick: {size} is not a length; use a positive number")
    flat, count = x.flatten(1).double().cpu(), len(x)
    unit = directions.double().expand(count, *directions.shape[-2:])
    both = torch.stack([flat[:, None] + size * unit, flat[:, None] - size * unit], 1)
    rows = torch.cat([flat, both.reshape(-1, flat.shape[1])]).to(x)
    images = torch.cat([
        denoise(model, part.reshape(-1, *model.shape), levels, method=method
                ).flatten(1).cpu().double() for part in rows.split(batch)])
    plain, rest = images[:count], images[count:].reshape(count, 2, -1, flat.shape[1])
    change = (rest[:, 0] - rest[:, 1]) / (2 * size)
    return Kicked((change * unit).sum(2), change.norm(dim=2), plain, rest[:, 0])
