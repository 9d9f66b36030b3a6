"""Lengths and angles within a set of latents, beside what a Gaussian would show."""

import math

from torch import Tensor

from unseen_core.analysis.latents.gram import Moments, centre, gram
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import angle_degrees

__all__ = ["ROWS", "geometry_table", "identities"]

ROWS = ("radius", "distance_to_mean", "centre_norm", "pair_distance", "origin_angle",
        "third_angle")
"""Lengths in units of the state, angles in degrees."""


def geometry_table(
    latents: Tensor, *, draws: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Measure the geometry of a set over random triples (x, y, z) of distinct members.

    Rows: ``radius`` |x|; ``distance_to_mean`` |x - m̂|; ``centre_norm`` |m̂|, one number, so of
    spread 0, which holds the noise tr Σ / n of the mean; ``pair_distance`` |x - y|;
    ``origin_angle`` between x and y at 0; ``third_angle`` between y and z at x (arXiv
    2310.09213, whose averages are over 1,000 draws).

    Args:
        latents: States or activations, shape (n, ...), n >= 4.
        draws: Triples, >= 2.
        seed: Seed of the triples.

    Returns:
        ``mean`` and ``sd`` over the draws for each of ROWS.

    Raises:
        UnseenError: If there are too few draws or latents, or latents are not finite.
    """
    if draws < 2:
        raise UnseenError(f"draws {draws}: a spread needs at least 2")
    products = gram(latents)
    streams = Streams(seed, "geometry table", [str(i) for i in range(draws)])
    x, y, z = streams.choose(len(latents), 3).T.to(products.device)
    inner = centre(products)
    squares = products.diagonal()
    near, far = _distance(inner, x, y), _distance(inner, x, z)
    corner = inner[x, x] - inner[x, y] - inner[x, z] + inner[y, z]
    # A state at the origin, or two equal ones, has no angle: 90 degrees, like one at random.
    columns = {
        "radius": squares[x].sqrt(),
        "distance_to_mean": inner.diagonal()[x].clamp_min(0).sqrt(),
        "centre_norm": products.mean().clamp_min(0).sqrt().expand(draws),
        "pair_distance": near,
        "origin_angle": angle_degrees(
            products[x, y] / (squares[x] * squares[y]).sqrt().clamp_min(1e-300)),
        "third_angle": angle_degrees(corner / (near * far).clamp_min(1e-300)),
    }
    return {name: {"mean": columns[name].mean().item(), "sd": columns[name].std().item()}
            for name in ROWS}


def identities(latents: Tensor) -> dict[str, dict[str, float]]:
    """What a Gaussian with the estimated moments of the latents would show, for each of ROWS.

    For large effective rank, with R² = |m|² + tr Σ: radius R, distance to the mean
    sqrt(tr Σ), centre |m|, pair distance sqrt(2 tr Σ), cosine at the origin |m|² / R², and
    60 degrees at any third point. The spreads are first-order propagation of the Gaussian's
    moments. All moments are free of the noise of the sample mean:
    ``geometry_table`` of n latents shows a centre of norm sqrt(|m|² + tr Σ / n) and distances
    to it of sqrt((1 - 1/n) tr Σ).

    Args:
        latents: Shape (n, ...), n >= 4.

    Raises:
        UnseenError: If there are too few latents, or they are not finite or all equal.
    """
    return _closed_form(Moments.of(gram(latents), latents[0].numel()))


def _closed_form(moments: Moments) -> dict[str, dict[str, float]]:
    """Return the means and spreads of `identities` from the moments of the law."""
    trace, square, along = moments.trace, moments.trace_square, moments.mean_along
    energy = max(moments.mean_square, 0.0)
    radius = (energy + trace) ** 0.5
    cosine = energy / radius**2
    # Var of x·y - cos (|x|² + |y|²) / 2, the first-order change of the cosine times R².
    turn = 2 * (1 - cosine) ** 2 * along + (1 + cosine**2) * square
    values = {
        "radius": (radius, (2 * square + 4 * along) ** 0.5 / (2 * radius)),
        "distance_to_mean": (trace**0.5, (square / (2 * trace)) ** 0.5),
        "centre_norm": (energy**0.5, 0.0),
        "pair_distance": ((2 * trace) ** 0.5, (square / trace) ** 0.5),
        "origin_angle": (math.degrees(math.acos(cosine)),
                         math.degrees(turn**0.5 / radius**2 / (1 - cosine**2) ** 0.5)),
        # Var of u·v - (|u|² + |v|²) / 4 is 9/4 tr Σ²; divided by |u||v| sin 60° = √3 tr Σ.
        "third_angle": (60.0, math.degrees(0.75**0.5 * square**0.5 / trace)),
    }
    return {name: dict(zip(("mean", "sd"), values[name], strict=True)) for name in ROWS}


def _distance(inner: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distances of pairs of latents from inner products."""
    return (inner[x, x] + inner[y, y] - 2 * inner[x, y]).clamp_min(0).sqrt()
