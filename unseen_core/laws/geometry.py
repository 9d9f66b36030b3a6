"""The geometry that inverted images of a domain share, and the test a new start must pass."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.laws.fitting import centre
from unseen_core.laws.references import References

__all__ = ["STATISTICS", "Envelope", "StateJudge", "angle_degrees", "shell_lengths"]

STATISTICS = ("radius", "centre_distance", "pair_distance", "origin_angle", "pair_angle")
"""Lengths in units of the state, angles in degrees."""


@dataclass(frozen=True, eq=False)
class StateJudge:
    """Measures a state against the inverted images (references) of a domain.

    Attributes:
        references: N >= 3 of them; their inner products are all that is ever used of their own.
        neighbours: Number K of references that enter the averages below.
    """

    references: References
    neighbours: int

    @classmethod
    def of(cls, references: Tensor | References, *, neighbours: int = 10) -> "StateJudge":
        """Build a judge from references, or a tensor of them of any shape (N, ...).

        Raises:
            UnseenError: If there are fewer than 5 references.
        """
        references = References.of(references)
        if references.count < 5:
            raise UnseenError(f"geometry needs at least 5 fit images, not {references.count}; "
                              "raise the domain's fit parameter or add images")
        return cls(references, min(neighbours, references.count - 3))

    @property
    def mean(self) -> Tensor:
        """Mean of the references, float64 (d,)."""
        return self.references.mean

    def own(self, order: Tensor) -> Tensor:
        """Return the five STATISTICS of the references, each judged by the others, float64 (N, 5).

        Args:
            order: int64 (N, N), a random order of the references for each of them.
        """
        gram = self.references.gram
        return self.from_products(gram, gram.diagonal(), order, torch.arange(len(gram))[:, None])

    def statistics(self, x: Tensor, order: Tensor, excluded: Tensor | None = None) -> Tensor:
        """Return the five STATISTICS of states.

        Args:
            x: float64 (n, d).
            order: As for ``from_products``.
            excluded: As for ``from_products``.

        Returns:
            float64 (n, 5).

        Raises:
            UnseenError: If fewer than two references are left.
        """
        return self.from_products(self.references.products(x), x.square().sum(1), order, excluded)

    def from_products(
        self, product: Tensor, square: Tensor, order: Tensor, excluded: Tensor | None = None
    ) -> Tensor:
        """Return the five STATISTICS of states known by their inner products alone.

        Radius |x|; distance to the references' mean; and, over K references in random order
        (method of arXiv 2310.09213, its released code), the mean distance, the mean angle at
        the origin, and the mean angle at x between consecutive references.

        Args:
            product: float64 (n, N), inner products with the references.
            square: float64 (n,), squared lengths.
            order: int64 (n, N), a random order of the references for each state.
            excluded: int64 (n, p), references not to be used (a state's own parents), or None.
                Fewer than K others then judge, where only fewer are left.

        Returns:
            float64 (n, 5).

        Raises:
            UnseenError: If fewer than two references are left.
        """
        gram = self.references.gram
        total, barred = len(gram), 0 if excluded is None else excluded.shape[1]
        allowed = total - barred
        if allowed < 2:
            raise UnseenError(f"{total} fit images leave {allowed} to judge a start state by; use "
                              "fewer parents or more fit images")
        count = min(self.neighbours + 1, allowed)
        picked = order[:, : count + barred]
        if barred:
            own = (picked[:, :, None] == excluded[:, None]).any(2)
            # Stable sort: allowed references first, in their random order.
            picked = picked.gather(1, own.int().argsort(stable=True, dim=1))[:, :count]
        norms, p = gram.diagonal()[picked], product.gather(1, picked)
        near = (square[:, None] - 2 * p + norms).clamp_min(0).sqrt()
        radius = square.sqrt()
        cosine = p[:, :-1] / (radius[:, None] * norms[:, :-1].sqrt())
        # cos of the angle at x between a - x and b - x, from inner products only
        inner = gram[picked[:, :-1], picked[:, 1:]] - p[:, :-1] - p[:, 1:] + square[:, None]
        corner = inner / (near[:, :-1] * near[:, 1:]).clamp_min(1e-300)
        centred = square - 2 * product.mean(1) + gram.mean()  # gram.mean() is |mean|²
        return torch.stack([
            radius,
            centred.clamp_min(0).sqrt(),
            near[:, :-1].mean(1),
            angle_degrees(cosine).mean(1),
            angle_degrees(corner).mean(1),
        ], dim=1)


@dataclass(frozen=True, eq=False)
class Envelope:
    """Bounds that hold a stated share of a domain's own inverted images.

    Attributes:
        low, high: float64 (5,), bounds in the order of STATISTICS.
        coverage: The joint share of natural states inside all bounds, by calibration.
    """

    low: Tensor
    high: Tensor
    coverage: float

    @classmethod
    def calibrate(cls, judge: StateJudge, order: Tensor, *, coverage: float = 0.95) -> "Envelope":
        """Fit the bounds on the references, each judged by the others (leave-one-out).

        With median c and standard deviation s of each statistic, and the score of a state the
        largest |g - c| / s, the bounds are c +- q s, q the ceil((N + 1) coverage)-th smallest
        score: a split-conformal interval for the joint test.

        Args:
            judge: Built from the references.
            order: int64 (N, N), a random order of the references for each of them.
            coverage: Between 0 and 1, both excluded.

        Raises:
            UnseenError: If coverage is out of range.
        """
        if not 0 < coverage < 1:
            raise UnseenError(f"coverage {coverage} is out of range; use a share between 0 and 1")
        total = judge.references.count
        values = judge.own(order)
        # The mean without the state itself: what a new image's distance is comparable to.
        values[:, 1] = shell_lengths(judge.references)
        middle, spread = values.median(0).values, values.std(0)
        score = ((values - middle).abs() / spread.clamp_min(1e-12)).amax(1).sort().values
        rank = min(total, int(-(-(total + 1) * coverage // 1)))
        reach = score[rank - 1] * spread
        return cls(middle - reach, middle + reach, coverage)

    def accept(self, statistics: Tensor) -> Tensor:
        """Say which rows of statistics (n, 5) lie inside every bound; bool (n,)."""
        return self.inside(statistics).all(1)

    def inside(self, statistics: Tensor) -> Tensor:
        """Say which single statistics (n, 5) lie inside their bounds; bool (n, 5)."""
        return (statistics >= self.low) & (statistics <= self.high)

    def state(self) -> dict[str, object]:
        """Return a JSON-able description."""
        return {"coverage": self.coverage,
                "bounds": {name: [self.low[i].item(), self.high[i].item()]
                           for i, name in enumerate(STATISTICS)}}

    @classmethod
    def from_state(cls, state: Mapping[str, object]) -> "Envelope":
        """Rebuild an envelope from ``state``.

        Raises:
            UnseenError: If a bound is missing.
        """
        bounds = state.get("bounds")
        if not isinstance(bounds, Mapping) or set(bounds) != set(STATISTICS):
            raise UnseenError(f"the envelope lacks one of {', '.join(STATISTICS)}; rerun fit")
        pairs = torch.tensor([[float(v) for v in bounds[name]] for name in STATISTICS],
                             dtype=torch.float64)
        return cls(pairs[:, 0], pairs[:, 1], float(str(state["coverage"])))


def shell_lengths(references: Tensor | References) -> Tensor:
    """Return each reference's distance to the mean of the others, float64 (N,).

    A state that was not used for the mean m of N references lies sqrt((1 + 1/N) / (1 - 1/N))
    times farther from it than one that was; N / (N - 1) |x - m| is that distance exactly.
    """
    gram = References.of(references).gram
    lengths = centre(gram).diagonal().clamp_min(0).sqrt()
    return lengths * (len(gram) / (len(gram) - 1))


def angle_degrees(cosine: Tensor) -> Tensor:
    """Return angles in 0..180 degrees; cosines are clamped against rounding."""
    return cosine.clamp(-1, 1).arccos().rad2deg()
