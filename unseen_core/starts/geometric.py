"""Draws that have the measured geometry of the domain: ours."""

from dataclasses import dataclass

import torch
from scipy.special import gammaincinv
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.geometry import STATISTICS, shell_lengths
from unseen_core.rng import Streams
from unseen_core.starts.protocol import StartContext, StartStates

__all__ = ["Geometric"]


@dataclass(frozen=True)
class Geometric:
    """Candidates put on the shell of the references and kept by their geometry.

    Inverted images lie on a thin shell about their mean. A candidate's deviation c from the
    mean m is rescaled to a length r drawn from the references' own, z = m + r c / |c|; then it
    must lie in the envelope of the references' radius, distances and angles, or a new
    candidate is drawn.

    Attributes:
        proposal: ``"blend"`` of references, or a kind of prior.
        parents: References in a blend, >= 1.
        near: Parents are drawn among this many nearest neighbours of the first one, which is
            drawn from all; 0 draws all parents from all references.
        alpha: Blend weights are Dirichlet(alpha), 0.05 .. 1e6: 1 is uniform, larger is more even.
        shell: Whether to put candidates on the shell.
        tested: Whether to test candidates against the envelope.
        trials: Candidates per start state before giving up.
    """

    proposal: str = "blend"
    parents: int = 2
    near: int = 0
    alpha: float = 1.0
    shell: bool = True
    tested: bool = True
    trials: int = 200

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.parents < 1 or self.near < 0 or self.trials < 1:
            raise UnseenError("parents and trials must be at least 1 and near at least 0")
        # Below, gamma variates underflow to 0 and leave no weights.
        if not 0.05 <= self.alpha <= 1e6:
            raise UnseenError(f"alpha {self.alpha} is out of range; use 0.05 to 1e6")
        if self.proposal == "blend" and 0 < self.near < self.parents - 1:
            raise UnseenError(f"near {self.near} is too small for {self.parents} parents; use 0 or "
                              f"at least {self.parents - 1}")

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return accepted candidates.

        Raises:
            UnseenError: If some start state finds no accepted candidate; the nearest miss is
                named.
        """
        n = len(streams)
        x = torch.empty(n, *context.shape, dtype=torch.float64)
        parents = torch.empty(n, self.parents if self.proposal == "blend" else 0,
                              dtype=torch.int64)
        passed = torch.zeros(len(STATISTICS), dtype=torch.float64)
        open_rows, proposed = list(range(n)), 0
        misses = passed
        for _ in range(self.trials):
            if not open_rows:
                break
            active = streams[open_rows]
            candidates, made_of = self._propose(context, active)
            proposed += len(candidates)
            rows = torch.tensor(open_rows)
            keep = torch.ones(len(candidates), dtype=torch.bool)
            if self.tested:
                order = active.choose(len(context.references), len(context.references))
                statistics = context.judge.statistics(candidates, order, made_of)
                inside = context.envelope.inside(statistics)
                passed += inside.double().sum(0)
                misses = inside.double().mean(0)
                keep = inside.all(1)
            x[rows[keep]] = candidates[keep].reshape(-1, *context.shape)
            parents[rows[keep]] = made_of[keep]
            open_rows = rows[~keep].tolist()
        if open_rows:
            worst = STATISTICS[int(misses.argmin())]
            raise UnseenError(
                f"geometric sampling at level {context.level}: {len(open_rows)} of {n} start "
                f"states found none in {self.trials} trials; {worst} fails most often. Use "
                "shell: true, another proposal, or a larger fit.coverage")
        shares = dict(zip(STATISTICS, (passed / max(proposed, 1)).tolist(), strict=True))
        return StartStates(x.float(), context.level, parents, proposed,
                           shares if self.tested else {})

    def _propose(self, context: StartContext, streams: Streams) -> tuple[Tensor, Tensor]:
        """Return one candidate per stream, float64 (n, d), and its parents (n, p)."""
        judge = context.judge
        if self.proposal == "blend":
            made_of = self._choose_parents(context, streams)
            deviation = judge.references[made_of] - judge.mean  # (n, p, d)
            offset = (self._weights(streams)[:, :, None] * deviation).sum(1)
        else:
            draws = context.prior(self.proposal).sample(streams)
            offset = draws - judge.mean
            made_of = torch.empty((len(streams), 0), dtype=torch.int64)
        if self.shell:
            lengths = shell_lengths(context.references)
            picked = lengths[streams.choose(len(lengths), 1)[:, 0]]
            offset = offset * (picked / offset.norm(dim=1).clamp_min(1e-12))[:, None]
        return judge.mean + offset, made_of

    def _choose_parents(self, context: StartContext, streams: Streams) -> Tensor:
        """Return distinct references per blend, int64 (n, p)."""
        references = context.judge.references
        total = len(references)
        if self.near == 0 or self.parents == 1:
            return streams.choose(total, self.parents)
        if self.near > total - 1:
            raise UnseenError(f"near {self.near} needs more than {total} fit images; lower it")
        first = streams.choose(total, 1)
        distance = torch.cdist(references[first[:, 0]], references)
        # Position 0 is the reference itself.
        neighbours = distance.argsort(1)[:, 1 : self.near + 1]
        return torch.cat([first, neighbours.gather(1, streams.choose(self.near, self.parents - 1))],
                         dim=1)

    def _weights(self, streams: Streams) -> Tensor:
        """Return Dirichlet(alpha) weights, float64 (n, p), from normalised gamma variates."""
        # At least 16 numbers a draw, see Streams; the first p are used.
        u = streams.uniform(max(16, self.parents))[:, : self.parents]
        gamma = torch.from_numpy(gammaincinv(self.alpha, u.clamp_min(1e-12).numpy()))
        return gamma / gamma.sum(1, keepdim=True)
