"""Interpolation between latents on the sphere, as in the reference implementation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.rng import Streams
from unseen_core.starts.protocol import StartContext, StartStates

__all__ = ["Slerp", "slerp"]


def slerp(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Interpolate directions along the great circle about the origin, and lengths linearly.

    Args:
        x, y: Shape (n, d), no zero rows.
        weight: Shape (n,) in [0, 1]; 0 returns ``x``, 1 returns ``y``.

    Returns:
        Shape (n, d).
    """
    length_x, length_y = x.norm(dim=1, keepdim=True), y.norm(dim=1, keepdim=True)
    u, v = x / length_x, y / length_y
    w = weight[:, None].to(x)
    cosine = (u * v).sum(1, keepdim=True).clamp(-1, 1)
    theta = cosine.arccos()
    sine = theta.sin()
    # Parallel vectors span no circle: the straight line is the limit.
    straight = sine < 1e-6
    safe = torch.where(straight, torch.ones_like(sine), sine)
    first = torch.where(straight, 1 - w, ((1 - w) * theta).sin() / safe)
    second = torch.where(straight, w, (w * theta).sin() / safe)
    return (first * u + second * v) * ((1 - w) * length_x + w * length_y)


@dataclass(frozen=True)
class Slerp:
    """A random point of a path of ``points`` from a reference to a partner, ends excluded.

    Attributes:
        partner: ``"reference"`` for a second reference, or a kind of prior for a draw of it
            (the two variants of the published code).
        points: Points on the path, >= 1; weights are 1/(points+1) ... points/(points+1).
    """

    partner: str = "reference"
    points: int = 10

    def __post_init__(self) -> None:
        """Check the number of points."""
        if self.points < 1:
            raise UnseenError(f"points {self.points} is too few; use at least 1")

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return points of as many paths as there are streams."""
        flat = context.references.flatten(1).double()
        parents = streams.choose(len(flat), 2)
        place = (streams.uniform(16)[:, 0] * self.points).floor() + 1
        end = flat[parents[:, 1]]
        if self.partner != "reference":
            end = context.prior(self.partner).sample(streams)
            parents = parents[:, :1]
        x = slerp(flat[parents[:, 0]], end, place / (self.points + 1))
        return StartStates.untested(x.reshape(-1, *context.shape), context.level, parents)
