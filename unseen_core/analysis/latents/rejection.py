"""How often sets of candidates pass the geometry test, and how natural latents scatter in it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.judging.metrics import Interval
from unseen_core.judging.probe import wilson
from unseen_core.laws.geometry import STATISTICS, Envelope, StateJudge, shell_lengths
from unseen_core.laws.references import References

__all__ = ["PassRates", "rejection", "spread"]


@dataclass(frozen=True)
class PassRates:
    """Shares of a set of candidates inside the envelope, with Wilson intervals.

    Attributes:
        count: Number of candidates.
        criteria: Share inside the bounds of each of STATISTICS.
        joint: Share inside all of them, which is what is accepted.
    """

    count: int
    criteria: Mapping[str, Interval]
    joint: Interval

    def summary(self) -> dict[str, object]:
        """Return a JSON-able description."""
        return asdict(self)


def rejection(
    judge: StateJudge | Tensor | References,
    envelope: Envelope,
    candidates: Mapping[str, Tensor],
    *,
    parents: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> dict[str, PassRates]:
    """Measure how many of each set of candidates the geometry test would accept.

    Natural latents that the judge has not seen pass at about the envelope's coverage; a set
    far below it comes from a wrong law, not from a strict test.

    Args:
        judge: A judge, or the references of one, N >= 5.
        envelope: Calibrated on the same references.
        candidates: Sets of states by name, each (n, ...) with n >= 1.
        parents: For sets made of references: those references, int64 (n, p), which then do not
            judge; sets that are not named have none.
        seed: Seed of the random orders of references.

    Raises:
        UnseenError: If there are too few references or candidates, or parents leave too few.
    """
    judge = judge if isinstance(judge, StateJudge) else StateJudge.of(judge)
    total, found = judge.references.count, {}
    for name, states in candidates.items():
        n = len(states)
        order = _orders(f"rejection/{name}", n, total, seed)
        excluded = None if parents is None else parents.get(name)
        inside = envelope.inside(judge.statistics(states.flatten(1).double(), order, excluded))
        counts = inside.sum(0).tolist()
        found[name] = PassRates(
            n, {key: wilson(c, n) for key, c in zip(STATISTICS, counts, strict=True)},
            wilson(int(inside.all(1).sum()), n))
    return found


def spread(
    references: Tensor | References, *, neighbours: int = 10, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Scatter of each of STATISTICS over natural latents, each judged by the others.

    The distance to the centre is that to the mean of the others, as for a new latent.

    Args:
        references: Latents of the domain, N >= 5, or a tensor (N, ...) of them.
        neighbours: References that enter a state's averages.
        seed: Seed of the random orders.

    Returns:
        ``mean``, ``sd``, ``q05``, ``median`` and ``q95`` of each statistic.

    Raises:
        UnseenError: If there are too few references.
    """
    judge = StateJudge.of(references, neighbours=neighbours)
    total = judge.references.count
    values = judge.own(_orders("spread", total, total, seed))
    values[:, STATISTICS.index("centre_distance")] = shell_lengths(judge.references)
    levels = values.new_tensor([0.05, 0.5, 0.95])
    rows = {}
    for name, column in zip(STATISTICS, values.T, strict=True):
        low, median, high = column.quantile(levels).tolist()
        rows[name] = {"mean": column.mean().item(), "sd": column.std().item(), "q05": low,
                      "median": median, "q95": high}
    return rows


def _orders(purpose: str, n: int, total: int, seed: int) -> Tensor:
    """A random order of the references for each state, int64 (n, total)."""
    return Streams(seed, purpose, [str(i) for i in range(n)]).choose(total, total)
