"""The choice of mixing level and sampler settings, by the fit images alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import fisher_exact
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.leave_parents_out import Candidate, Part, distances, leave_parents_out
from unseen_core.judging.metrics import check_features, cubic_kernel

__all__ = ["COPY", "Candidate", "Choice", "Score", "choose"]

COPY = 0.01
"""Share of new real images that lie as near to a fit image as a near copy does."""


@dataclass(frozen=True)
class Score:
    """What the fit images say of a cell.

    Attributes:
        name, level, calls: As given.
        criterion: Leave-parents-out kernel distance, see ``choose``; smaller is better.
        low, high: Ends of its 95 % percentile interval.
        novelty: Median Euclidean distance to the nearest fit image, over that of a fit image
            to its nearest other.
        diversity: Mean pairwise distance, over that of fit images.
        copies: Share of images nearer to a fit image than all but 1 % of the fit images are to
            their nearest other.
        admissible: Whether novelty and diversity reach their thresholds, and copies are no more
            than chance makes them.
        frontier: Whether no cell is as good in criterion and novelty, and better in one.
        share: Share of bootstrap draws in which this cell is the best admissible one.
    """

    name: str
    level: int
    calls: int
    criterion: float
    low: float
    high: float
    novelty: float
    diversity: float
    copies: float
    admissible: bool
    frontier: bool
    share: float


@dataclass(frozen=True)
class Choice:
    """The chosen cell, beside all others.

    Attributes:
        chosen: Name of the chosen cell, or None if none is admissible.
        confidence: The chosen cell's ``share``; 0 without one. Among near-ties it may well be
            less than one half.
        reason: One line that says why.
        scores: All cells, in the order given.
    """

    chosen: str | None
    confidence: float
    reason: str
    scores: tuple[Score, ...]

    def table(self) -> pd.DataFrame:
        """Return one row per cell with the attributes of ``Score`` and ``chosen``, bool."""
        table = pd.DataFrame([asdict(score) for score in self.scores])
        return table.assign(chosen=table["name"] == self.chosen)


def choose(
    candidates: Sequence[Candidate], fit_features: Tensor, *, novelty: float = 0.8,
    diversity: float = 0.5, draws: int = 500, seed: int = 0,
) -> Choice:
    """Choose the cell whose images are closest to the domain, but new and diverse.

    The criterion and its bootstrap are those of `unseen_core.judging.leave_parents_out`. The least
    of many estimates is too low: judge the chosen cell by held-out images.

    Copies are counted on the fit images' own scale, by the 1 % quantile of the distances from
    each to its nearest other. A cell of which more images lie below it than of the fit images, by
    more than chance (Fisher's exact test, one-sided, 2.5 %), is not admissible.

    The rule: of the admissible cells the one of least criterion, then of fewest calls. Taking the
    newest cell within one standard error of the best was tried. Cells share fit images, so the
    criterion orders them far better than its standard error says; on two of four domains that
    rule gained novelty beyond the bound and lost closeness, as held-out images showed.

    Args:
        candidates: Cells, >= 1, of any sizes.
        fit_features: Features of the N fit images, shape (N, d), N >= 3, not standardised.
        novelty: Least novelty, >= 0; 0 asks for none.
        diversity: Least diversity ratio, >= 0.
        draws: Bootstrap draws, >= 2.
        seed: Seed of the draws.

    Raises:
        UnseenError: If a number is out of range, names repeat, feature sets do not fit together,
            parents are not rows of the fit images, or half of the fit images are duplicates.
    """
    if draws < 2 or novelty < 0 or diversity < 0:
        raise UnseenError(f"choice: draws {draws}, novelty {novelty}, diversity {diversity}; use "
                          "draws >= 2 and thresholds >= 0")
    if not len({cell.name for cell in candidates}) == len(candidates) > 0:
        raise UnseenError("choice: candidates must be at least one, with unique names")
    check_features({"fit images": fit_features}, least=3)
    x = fit_features.double()
    likeness = cubic_kernel(x, x).fill_diagonal_(0).sum(1) / (len(x) - 1)  # h(f_j)
    apart = distances(x).fill_diagonal_(torch.inf).amin(1)
    fit = Part.of(x, likeness, likeness.mean(), apart, draws, [seed, 0, len(x)])
    if fit.values[1] == 0:
        raise UnseenError("fit images: at least half have an exact duplicate; remove duplicates "
                          "and split the domain again")
    measured = [leave_parents_out(cell, x, likeness, fit, draws, seed) for cell in candidates]
    values = np.stack([value.numpy() for value, *_ in measured])  # (cells, 3)
    drawn = np.stack([draw.numpy() for _, draw, _ in measured])  # (cells, 3, draws)
    limit = apart.quantile(COPY)
    copies = [(near <= limit).double().mean().item() for *_, near in measured]
    own = np.array([_by_chance(near <= limit, apart <= limit) for *_, near in measured])
    able = (values[:, 1] >= novelty) & (values[:, 2] >= diversity) & own
    free = (drawn[:, 1] >= novelty) & (drawn[:, 2] >= diversity) & own[:, None]
    contest = np.where(free, drawn[:, 0], np.inf)
    wins = (contest == contest.min(0)) & free
    # Cells that tie share a draw; a draw without an admissible cell is nobody's.
    share = (wins / np.maximum(wins.sum(0), 1)).mean(1)
    low, high = np.quantile(drawn[:, 0], [0.025, 0.975], axis=1)
    loss = values[:, :2] * [1, -1]
    as_good, better = loss <= loss[:, None], loss < loss[:, None]  # (cells, rivals, 2)
    beaten = (as_good.all(2) & better.any(2)).any(1)
    columns = np.column_stack([values[:, 0], low, high, values[:, 1:],
                               copies]).tolist()
    scores = tuple(
        Score(cell.name, cell.level, cell.calls, *columns[i], bool(able[i]),
              not beaten[i], float(share[i])) for i, cell in enumerate(candidates))
    if not able.any():
        newest = max(scores, key=lambda score: score.novelty)
        return Choice(None, 0.0, f"no cell has novelty >= {novelty:g} and diversity >= "
                      f"{diversity:g} without copying; the newest, {newest.name}, has "
                      f"{newest.novelty:.3g} and {newest.diversity:.3g}, and {newest.copies:.0%} "
                      "near copies; use other samplers or lower thresholds", scores)
    best = min(np.flatnonzero(able), key=lambda i: (scores[i].criterion, scores[i].calls))
    error = (drawn[:, 0] - drawn[best, 0]).std(1, ddof=1)
    close = (able & (values[:, 0] <= values[best, 0] + error)).sum() - 1
    reason = (f"least criterion of {able.sum()} admissible cells in {len(scores)}; {close} others "
              "are within one standard error")
    return Choice(scores[best].name, scores[best].share, reason, scores)


def _by_chance(near: Tensor, apart: Tensor) -> bool:
    """Say whether the share of near copies may well be that among the fit images, bool each."""
    table = [[int(rows.sum()), int((~rows).sum())] for rows in (near, apart)]
    return float(fisher_exact(table, "greater").pvalue) >= 0.025
