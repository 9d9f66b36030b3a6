"""Paths between two states: what lies between the seen and the unseen domain."""

from typing import Literal

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.starts.slerp import slerp

__all__ = ["path"]


def path(
    x: Tensor, y: Tensor, points: int, *, kind: Literal["slerp", "shell", "linear"],
    mean: Tensor | None = None,
) -> Tensor:
    """Return evenly spaced points of a path from one state to another, both included.

    ``"slerp"``: great circle about the origin, lengths linear between |x| and |y|, as the
    published code interpolates. ``"shell"``: the same about ``mean``, so that the distance to
    it goes linearly from |x - mean| to |y - mean|: about the domain's mean the path stays on the
    thin shell of its inverted images. ``"linear"``: the straight line, whose middle is too
    short for the network's noise level. Opposite states span no single circle; their path is
    the straight line.

    Args:
        x, y: States of one level and one shape (...), neither of them the centre of the circle.
        points: Points on the path, >= 2.
        kind: Which path.
        mean: Centre of ``"shell"``, shape (...); not read otherwise.

    Returns:
        Shape (points, ...), the dtype of ``x``; the first is ``x`` and the last ``y``, exactly.

    Raises:
        UnseenError: If there are fewer than 2 points, shapes differ, ``"shell"`` lacks its
            mean, or the kind is unknown.
    """
    if points < 2:
        raise UnseenError(f"points {points} is too few for a path; use at least 2, its ends")
    centre = torch.zeros_like(x) if kind != "shell" else mean
    if centre is None:
        raise UnseenError("a path on the shell needs its centre; give mean")
    if not x.shape == y.shape == centre.shape:
        raise UnseenError(f"path between states of shapes {tuple(x.shape)} and {tuple(y.shape)} "
                          f"about {tuple(centre.shape)}; give states of one shape")
    m = centre.flatten().double()
    a, b = x.flatten().double() - m, y.flatten().double() - m
    weight = torch.linspace(0, 1, points, dtype=torch.float64)
    if kind == "linear":
        deviation = torch.lerp(a, b, weight[:, None])
    elif kind in ("slerp", "shell"):
        deviation = slerp(a.expand(points, -1), b.expand(points, -1), weight)
    else:
        raise UnseenError(f"path kind {kind!r} is not known; use slerp, shell or linear")
    found = (m + deviation).to(x.dtype).reshape(points, *x.shape)
    found[0], found[-1] = x, y  # rounding would miss them
    return found
