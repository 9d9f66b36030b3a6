"""Steps that samplers share: whose blend a candidate is, and which candidates are kept."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import STATISTICS
from unseen_core.starts.protocol import StartContext, StartStates

__all__ = ["Parents", "check_eta", "dirichlet", "fewest_parents", "keep_inside", "numbered"]


def check_eta(eta: float) -> None:
    """Refuse a share of fresh noise outside 0..1.

    Raises:
        UnseenError: If it is.
    """
    if not 0 <= eta <= 1:
        raise UnseenError(f"eta {eta} is out of range; use 0 to 1")


def fewest_parents(parents: int, near: int) -> int:
    """Return how many references `Parents` need: all parents, or the first and its neighbours."""
    return parents if near == 0 or parents == 1 else max(parents, near + 1)


def numbered(streams: Streams, count: int, name: str) -> Tensor:
    """Return the row that each stream's id numbers, from 0 again after ``count``, int64 (n,).

    Args:
        streams: Their ids are decimal numbers.
        count: Rows there are.
        name: The sampler, for the message.

    Raises:
        UnseenError: If an id is not a number.
    """
    if not all(key.isdecimal() for key in streams.ids):
        raise UnseenError(f"{name}: sample ids must be numbers, those of references")
    return torch.tensor([int(key) for key in streams.ids], dtype=torch.int64) % count


@dataclass(frozen=True, eq=False)
class Parents:
    """Who may be drawn as parents together.

    Attributes:
        total: References, N.
        count: Parents per row, >= 1.
        neighbours: Per first parent those that the others are drawn from, int64 (N, near); None
            where all are drawn from all.
    """

    total: int
    count: int
    neighbours: Tensor | None

    @classmethod
    def among(cls, gram: Tensor, count: int, near: int) -> "Parents":
        """Look up neighbours once, whatever number of rows will be drawn.

        Args:
            gram: Inner products of what nearness is measured on, float64 (N, N).
            count: Parents per row, >= 1.
            near: Nearest neighbours of the first parent that the others are drawn from; 0 draws
                all from all.

        Raises:
            UnseenError: If there are fewer references than neighbours asked for.
        """
        total = len(gram)
        if near == 0 or count == 1:
            return cls(total, count, None)
        if near > total - 1:
            raise UnseenError(f"near {near} needs more than {total} fit images; lower it")
        squares = gram.diagonal()
        distance = (squares + squares[:, None] - 2 * gram).fill_diagonal_(-torch.inf)
        return cls(total, count, distance.argsort(1)[:, 1 : near + 1])

    def draw(self, streams: Streams) -> Tensor:
        """Draw distinct parents per stream, int64 (n, count).

        Raises:
            UnseenError: If there are fewer references than parents.
        """
        if self.neighbours is None:
            return streams.choose(self.total, self.count)
        first = streams.choose(self.total, 1)
        others = streams.choose(self.neighbours.shape[1], self.count - 1)
        return torch.cat([first, self.neighbours[first[:, 0]].gather(1, others)], dim=1)


def dirichlet(streams: Streams, count: int, alpha: float) -> Tensor:
    """Draw Dirichlet(alpha) weights, float64 (n, count), from normalised gamma variates.

    Args:
        streams: One per row.
        count: Weights per row, >= 1.
        alpha: 0.05 .. 1e6: 1 is uniform on the simplex, larger is more even. Below, gamma
            variates underflow to 0 and leave no weights.
    """
    # At least 16 numbers a draw, see Streams; the first ones are used.
    u = streams.uniform(max(16, count))[:, :count]
    gamma = torch.from_numpy(gammaincinv(alpha, u.clamp_min(1e-12).numpy()))
    return gamma / gamma.sum(1, keepdim=True)


def keep_inside(
    context: StartContext,
    streams: Streams,
    propose: Callable[[Streams], tuple[Tensor, Tensor]],
    *,
    parents: int,
    trials: int,
    name: str,
    fix: str,
) -> StartStates:
    """Draw candidates until every start state has one inside the references' envelope.

    A state's own parents do not judge it.

    Args:
        context: Gives judge and envelope.
        streams: One per start state.
        propose: Returns one candidate per stream, float64 (n, d), and its parents (n, p).
        parents: p.
        trials: Candidates per start state before giving up, >= 1.
        name: What an error calls the sampler.
        fix: What an error advises.

    Returns:
        The kept candidates, with the number proposed and the share inside each bound.

    Raises:
        UnseenError: If some start state finds no candidate; the statistic that fails most often
            is named.
    """
    n, total = len(streams), context.references.count
    x = torch.empty(n, *context.shape, dtype=torch.float64)
    made_of = torch.empty(n, parents, dtype=torch.int64)
    passed = misses = torch.zeros(len(STATISTICS), dtype=torch.float64)
    open_rows, proposed = list(range(n)), 0
    for _ in range(trials):
        if not open_rows:
            break
        active, rows = streams[open_rows], torch.tensor(open_rows)
        candidates, whose = propose(active)
        proposed += len(candidates)
        statistics = context.judge.statistics(candidates, active.choose(total, total), whose)
        inside = context.envelope.inside(statistics)
        passed, misses = passed + inside.double().sum(0), inside.double().mean(0)
        keep = inside.all(1)
        x[rows[keep]] = candidates[keep].reshape(-1, *context.shape)
        made_of[rows[keep]] = whose[keep]
        open_rows = rows[~keep].tolist()
    if open_rows:
        raise UnseenError(
            f"{name} sampling at level {context.level}: {len(open_rows)} of {n} start states "
            f"found none in {trials} trials; {STATISTICS[int(misses.argmin())]} fails most often. "
            f"{fix}")
    shares = dict(zip(STATISTICS, (passed / max(proposed, 1)).tolist(), strict=True))
    return StartStates(x.float(), context.level, made_of, proposed, shares)
