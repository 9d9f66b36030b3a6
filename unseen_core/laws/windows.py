"""The reference implementation's acceptance windows, as published and fitted to a domain."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import STATISTICS, Envelope, StateJudge
from unseen_core.laws.references import References

__all__ = ["WINDOWS", "check_window", "natural_spread", "reference_window"]

WINDOWS = ("envelope", "v1", "v2", "v1-published", "v2-published")
"""``envelope`` is the domain's own, of ``Envelope.calibrate``; the others see below."""

_CRITERIA = tuple(STATISTICS.index(name) for name in ("pair_distance", "origin_angle",
                                                      "pair_angle"))
_DRAWS = 1000  # Natural states that the reference implementation averages over.


@dataclass(frozen=True)
class _Published:
    """Constants of one release of the reference implementation (arXiv 2310.09213).

    Attributes:
        neighbours: References per test.
        centres, reaches: Of pair distance, origin angle and pair angle, as centre +- reach, for
            states of ``dimension`` numbers.
    """

    neighbours: int
    centres: tuple[float, float, float]
    reaches: tuple[float, float, float]
    dimension: int = 3 * 256 * 256


_RELEASES = {
    "v1": _Published(2, (577.0, 90.0, 60.0), (5.0, 2.0, 2.0)),
    "v2": _Published(10, (611.4, 88.0, 60.0), (0.3, 0.1, 0.1)),
}


def check_window(window: str, *others: str) -> None:
    """Refuse a window that is neither among WINDOWS nor among ``others``.

    Raises:
        UnseenError: If it is.
    """
    if window not in (known := (*others, *WINDOWS)):
        raise UnseenError(f"window {window!r} is not known; use one of {', '.join(known)}")


def natural_spread(
    pair_distance: float, origin_angle: float, *, dimension: int, neighbours: int
) -> Tensor:
    """Return the standard deviations of three statistics among draws of an isotropic Gaussian.

    Pair distance D and origin angle A give the law: with T its total variance, T = D² / 2 and
    cos A = c = M / (M + T), M the squared length of the mean. Then, to first order in
    1 / dimension, with fresh references for every draw, K of them, and v = T / dimension,

        var of D        = v (1/4 + 3 / (4 K)),
        var of cos A    = v [(M (1 - c)² + c² T / 2) (1 + 1/K) + T / K] / (M + T)²,
        var of cos 60°  = v [1/2 + 5 / (2 K) - 3 / (4 K²)] / (4 T),

    from the moments of the inner products of the three draws involved, where consecutive corners
    share one reference.

    Args:
        pair_distance: Mean distance of two draws.
        origin_angle: Mean angle of two draws at the origin, degrees, 0 < A <= 90.
        dimension: Of the draws.
        neighbours: K.

    Returns:
        float64 (3,): of pair distance in its own units, origin angle and pair angle in degrees.
    """
    k, total = neighbours, pair_distance**2 / 2
    v, c = total / dimension, math.cos(math.radians(origin_angle))
    mean = total * c / (1 - c)
    own = mean * (1 - c) ** 2 + c**2 * total / 2
    origin = v * (own * (1 + 1 / k) + total / k) / (mean + total) ** 2
    corner = v * (0.5 + 2.5 / k - 0.75 / k**2) / (4 * total)
    return torch.tensor([
        math.sqrt(v * (0.25 + 0.75 / k)),
        math.degrees(math.sqrt(origin / (1 - c**2))),
        math.degrees(math.sqrt(corner / 0.75)),
    ], dtype=torch.float64)


def reference_window(window: str, references: Tensor | References) -> tuple[Envelope, int]:
    """Return the reference implementation's test: its bounds and its number of references.

    It tests pair distance, origin angle and pair angle; radius and centre distance are free.

    * ``v1-published``, ``v2-published``: the authors' constants. They belong to their model, their
      level and images of 256 x 256, and accept nothing elsewhere.
    * ``v1``, ``v2``: the procedure behind them. Centres are the means of the references' own
      statistics, each judged by the others, over 1,000 draws of judges. Half-widths are the
      published ones in units of natural spread: the authors' constants imply an isotropic law
      whose spread is known (``natural_spread``). That makes 6.9, 21.9 and 21.4 standard
      deviations of pair distance, origin angle and pair angle for v1, and 0.54, 2.16 and 1.56
      for v2, which are applied to the standard deviations found among these references.

    Args:
        window: One of WINDOWS but ``"envelope"``.
        references: N >= 5 of them, or a tensor (N, ...).
    """
    name, _, published = window.partition("-")
    release = _RELEASES[name]
    judge = StateJudge.of(references, neighbours=release.neighbours)
    total = judge.references.count
    streams = Streams(0, "window", [str(i) for i in range(total)])
    values = torch.cat([judge.own(streams.choose(total, total))
                        for _ in range(-(-_DRAWS // total))])
    centre = torch.tensor(release.centres, dtype=torch.float64)
    reach = torch.tensor(release.reaches, dtype=torch.float64)
    if not published:
        reach /= natural_spread(*release.centres[:2], dimension=release.dimension,
                                neighbours=release.neighbours)
        reach *= values.std(0)[list(_CRITERIA)]
        centre = values.mean(0)[list(_CRITERIA)]
    low = torch.full((len(STATISTICS),), -torch.inf, dtype=torch.float64)
    high = -low
    low[list(_CRITERIA)], high[list(_CRITERIA)] = centre - reach, centre + reach
    share = Envelope(low, high, 1.0).accept(values).double().mean().item()
    return Envelope(low, high, share), release.neighbours
