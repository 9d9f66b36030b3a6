"""A search of the images that a frozen network makes near one start state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.diffusion.transport import Method, denoise
from unseen_core.errors import UnseenError
from unseen_core.types import EpsModel, Level

__all__ = ["Found", "Objective", "search"]

Objective = Callable[[Tensor], Tensor]
"""Images (b, c, h, w), not clipped -> residuals (b, p), whose length is to become small."""
_DAMPING = (1e-3, 1e-1, 10.0)  # times the mean squared gain of a direction; tried side by side
_ENOUGH = 1e-3  # relative gain of a round below which the search ends


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest image that was found, and the way there.

    Attributes:
        coefficients: Along the directions, float64 (q,).
        image: Shape (c, h, w), not clipped.
        path: Distance (length of the residuals) at the start and after every round.
        images: Images that were made; times the grid's calls this is the cost.
    """

    coefficients: Tensor
    image: Tensor
    path: tuple[float, ...]
    images: int


def search(
    model: EpsModel,
    x: Tensor,
    levels: Sequence[Level],
    directions: Tensor,
    objective: Objective,
    *,
    step: float,
    rounds: int = 5,
    method: Method = "dpm3m",
) -> Found:
    """Move a start state along some directions until its image comes near to what is wanted.

    Damped Gauss-Newton (Levenberg 1944, Marquardt 1963) on the coefficients: each round takes
    central differences of the residuals, a batch of 2 q images, and keeps the best of three
    dampings. The network is only asked, never differentiated. A Gaussian network is linear, and
    the first round is then the least-squares optimum.

    Args:
        model: The frozen network.
        x: Start state at ``levels[-1]``, (c, h, w).
        levels: Increasing grid from 0.
        directions: Orthonormal, (q, c, h, w).
        objective: See ``Objective``: the image less a target, or features less wanted ones.
        step: Half width of the differences, in the units of ``x``: larger than the network's
            rounding, smaller than what changes the content.
        rounds: At most.
        method: As for ``integrate``.

    Raises:
        UnseenError: If directions are not states of this network, or ``step`` is not above 0.
    """
    q = len(directions)
    if directions.shape[1:] != x.shape or q < 1 or step <= 0:
        raise UnseenError(f"search: directions {tuple(directions.shape)}, step {step}; use "
                          f"(q, {', '.join(map(str, x.shape))}) and a step above 0")
    flat = directions.flatten(1).double()
    made = 0

    def images_at(coefficients: Tensor) -> Tensor:
        nonlocal made
        made += len(coefficients)
        states = x.double() + (coefficients @ flat.to(coefficients)).reshape(-1, *x.shape)
        return denoise(model, states.to(x.dtype), levels, method=method)

    place = flat.new_zeros(q)
    image = images_at(place[None])[0]
    now = objective(image[None])[0].double()
    path = [now.norm().item()]
    either = step * torch.cat([torch.eye(q), -torch.eye(q)]).to(flat)
    for _ in range(rounds):
        around = objective(images_at(place + either)).double()
        slopes = (around[:q] - around[q:]) / (2 * step)  # (q, p)
        inner, pull = slopes @ slopes.T, slopes @ now
        scale = inner.diagonal().mean().clamp_min(1e-300)
        moves = torch.stack([torch.linalg.solve(inner + damping * scale * torch.eye(q).to(inner),
                                                pull) for damping in _DAMPING])
        tried = images_at(place - moves)
        residuals = objective(tried).double()
        best = int(residuals.norm(dim=1).argmin())
        if residuals[best].norm().item() >= path[-1]:
            break
        place, image, now = place - moves[best], tried[best], residuals[best]
        path.append(now.norm().item())
        if path[-1] > (1 - _ENOUGH) * path[-2]:
            break
    return Found(place, image, tuple(path), made)
