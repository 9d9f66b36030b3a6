"""Interpolation between latents on the sphere, as in the reference implementation."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.windows import check_window
from unseen_core.starts.parents import keep_inside
from unseen_core.starts.protocol import (
    BLEND,
    CORRECTED,
    GAUSSIAN,
    StartContext,
    StartSampler,
    StartStates,
)

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
class Slerp(StartSampler):
    """A random point of a path of ``points`` from a reference to a partner, ends excluded.

    ``partner: isotropic-reference, points: 20, window: v2`` is the second release of the
    reference implementation, which tests every point of a path; here a point that fails is
    followed by one of another path, so that start states are independent.

    Attributes:
        partner: ``"reference"`` for a second reference, or a kind of prior for a draw of it
            (the two variants of the published code).
        points: Points on the path, >= 1; weights are 1/(points+1) ... points/(points+1).
        window: ``"none"`` keeps every point; the others are those of ``Geometric``. A point's
            own references do not judge it.
        trials: Candidates per start state before giving up, >= 1; counts only with a window.
    """

    name: ClassVar[str] = "slerp"
    prior_field: ClassVar[str] = "partner"
    summarised: ClassVar[bool] = True
    partner: str = "reference"
    points: int = 10
    window: str = "none"
    trials: int = 2000

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.points < 1:
            raise UnseenError(f"points {self.points} is too few; use at least 1")
        if self.trials < 1:
            raise UnseenError(f"trials {self.trials} is too few; use at least 1")
        check_window(self.window, "none")

    @property
    def selectable(self) -> bool:
        """Whether both ends are references."""
        return self.partner == "reference"

    @property
    def prior(self) -> str | None:
        """The kind of prior that partners are drawn of; None where they are references."""
        return None if self.selectable else self.partner

    @property
    def label(self) -> str:
        """A blend, or a Gaussian fit with or without geometry."""
        if self.selectable:
            return BLEND
        return CORRECTED if self.window != "none" else GAUSSIAN

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return points of as many paths as there are streams, or accepted points.

        Raises:
            UnseenError: If some start state finds no accepted point.
        """
        pair, span = self.selectable, context.span(self.prior)
        references = span.references

        def propose(active: Streams) -> tuple[Tensor, Tensor]:
            made_of = active.choose(references.count, 2)
            place = (active.uniform(16)[:, 0] * self.points).floor() + 1
            end = references.rows(made_of[:, 1]) if pair else span.draw(active)
            first = references.rows(made_of[:, 0]).flatten(1).double()
            # Only the partner has a part outside the span, so the circle is exact there.
            states = slerp(first, end, place / (self.points + 1))
            return states, made_of if pair else made_of[:, :1]

        if self.window == "none":
            states, made_of = propose(streams)
            kept = StartStates.untested(states, context.level, made_of)
        else:
            kept = keep_inside(
                context.within(span, self.window), streams, propose, parents=2 if pair else 1,
                trials=self.trials, name="slerp", fix="Use another partner or window")
        return replace(kept, x=context.lift(span, kept.x, streams))
