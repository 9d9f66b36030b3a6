"""The choice of mixing level and sampler settings, by the fit images alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import fisher_exact
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import check_features, cubic_kernel
from unseen_core.judging.novelty import nearest

__all__ = ["COPY", "Candidate", "Choice", "Score", "choose"]

COPY = 0.01
"""Share of new real images that lie as near to a fit image as a near copy does."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A cell: what one level and one sampler setting generated in a pilot.

    Attributes:
        name: Unique name.
        level: Mixing level.
        generated_features: Shape (n, d), n >= 2.
        parents: For each generated image the rows of the fit images it was made of, possibly
            none: n index sequences, or int64 (n, p).
        calls: Network calls per generated image.
    """

    name: str
    level: int
    generated_features: Tensor
    parents: Sequence[Sequence[int]] | Tensor
    calls: int


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

    The criterion estimates MMD², the squared kernel distance of ``kernel_distance``, between
    what a cell generates and new real images, of which there are none here. Of its terms, for
    fit images f_j independent draws of the domain,

        mean_{i≠i'} k(g_i, g_i')  +  mean_{j≠j'} k(f_j, f_j')  -  2 mean_i mean_{j∉P_i} k(g_i, f_j),

    only the last can be earned by copying. Let g_i be a function of its parents f_j, j in P_i,
    and of independent noise, the parents drawn without a look at the others. Given its parents,
    g_i is independent of every other f_j, and such an f_j is distributed as a new real image f:
    E k(g_i, f_j) = E k(g_i, f). A parent's own term is larger instead; were it kept, the
    criterion would fall by 2 |P| / N times that excess. The first term is left as it is: images
    that share parents are alike, the cell does generate so, and this rightly costs.

    Limits. One copy of each fit image scores 0 as new real images do: only novelty tells. What
    all fit images enter still leaks: a mean or covariance fitted to them holds 1/N of each, so
    such a prior may even score below 0. Fit it to folds instead, and give a draw as parents all
    images its prior was fitted to. Parents sought among neighbours take near images out of the
    comparison, which counts against the cell. And the least of many estimates is too low: judge
    the chosen cell by held-out images.

    The kernel is centred: the mean similarity to other fit images is taken off both arguments,
    k(a, b) - h(a) - h(b) + mean h, h(g_i) without parents and h(f_j) without j. No expectation
    changes, and without parents not even the value, that of ``kernel_distance``. It takes out
    the chance by which typical or odd fit images are parents more often than others.

    The bootstrap resamples fit images, the same for all cells, and generated images, the same
    rows for all cells of one size, since cells may share their random numbers. Pairs weigh as
    in ``kernel_distance``, so that the mean of the draws is the value. Novelty and diversity are
    resampled along; distances stay those to all fit images.

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
    apart = _distances(x).fill_diagonal_(torch.inf).amin(1)
    fit = _Part.of(x, likeness, likeness.mean(), apart, draws, [seed, 0, len(x)])
    if fit.values[1] == 0:
        raise UnseenError("fit images: at least half have an exact duplicate; remove duplicates "
                          "and split the domain again")
    measured = [_measure(cell, x, likeness, fit, draws, seed) for cell in candidates]
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


@dataclass(frozen=True, eq=False)
class _Part:
    """What the scores take from one set alone, with bootstrap draws."""

    values: Tensor  # (3,) mean centred kernel of a pair, median nearest distance, mean distance
    drawn: Tensor  # (3, draws) the same in every draw
    counts: Tensor  # (draws, n) how often a row occurs in every draw

    @classmethod
    def of(
        cls, x: Tensor, likeness: Tensor, typical: Tensor, near: Tensor, draws: int, seed: list[int]
    ) -> "_Part":
        """Summarise features (n, d) of given h (n,), mean h, and nearest distances (n,)."""
        n = len(x)
        kernel = cubic_kernel(x, x) - likeness - likeness[:, None] + typical
        kernel.fill_diagonal_(0)
        distance = _distances(x)
        rows = torch.from_numpy(np.random.default_rng(seed).integers(n, size=(draws, n)))
        counts = torch.zeros(draws, n, dtype=torch.float64)
        counts.scatter_add_(1, rows, torch.ones_like(counts))
        pairs = n**2 - counts.square().sum(1)  # of distinct originals
        values = [kernel.sum() / (n * (n - 1)), near.quantile(0.5), distance.sum() / (n * (n - 1))]
        drawn = [((counts @ kernel) * counts).sum(1) / (n - 1) ** 2,
                 near[rows].quantile(0.5, dim=1),
                 ((counts @ distance) * counts).sum(1) / pairs.clamp_min(1)]
        return cls(torch.stack(values), torch.stack(drawn), counts)


def _measure(
    cell: Candidate, features: Tensor, likeness: Tensor, fit: _Part, draws: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a cell's criterion, novelty and diversity (3,), their draws (3, draws), distances."""
    check_features({"fit images": features, f"candidate {cell.name}": cell.generated_features})
    x = cell.generated_features.double()
    weight, typical = _strangers(cell, len(x), len(features)), likeness.mean()
    across = cubic_kernel(x, features)
    own = (weight * across).sum(1)
    across = weight * (across - own[:, None] - likeness + typical) / len(x)
    near = nearest(x, features)[0]
    part = _Part.of(x, own, typical, near, draws, [seed, 1, len(x)])
    cross = ((part.counts @ across) * fit.counts).sum(1)
    value, drawn = part.values / fit.values, part.drawn / fit.drawn
    value[0] = part.values[0] + fit.values[0] - 2 * across.sum()
    drawn[0] = part.drawn[0] + fit.drawn[0] - 2 * cross
    return value, drawn, near


def _by_chance(near: Tensor, apart: Tensor) -> bool:
    """Say whether the share of near copies may well be that among the fit images, bool each."""
    table = [[int(rows.sum()), int((~rows).sum())] for rows in (near, apart)]
    return float(fisher_exact(table, "greater").pvalue) >= 0.025


def _strangers(cell: Candidate, n: int, total: int) -> Tensor:
    """Return the weights of fit images that are not parents, shape (n, total), rows of sum 1."""
    rows = cell.parents.tolist() if isinstance(cell.parents, Tensor) else cell.parents
    if len(rows) != n:
        raise UnseenError(f"candidate {cell.name}: parents of {len(rows)} images beside {n} "
                          "generated images; give one sequence, possibly empty, for each")
    barred = torch.zeros(n, total, dtype=torch.bool)
    for i, row in enumerate(rows):
        if any(not 0 <= parent < total for parent in row) or len(set(row)) >= total:
            raise UnseenError(f"candidate {cell.name}: parents of image {i} must be rows of "
                              f"the {total} fit images, and fewer than all of them")
        barred[i, list(row)] = True
    allowed = (~barred).double()
    return allowed / allowed.sum(1, keepdim=True)


def _distances(x: Tensor) -> Tensor:
    """Euclidean distances of every pair, (n, n); computed as in ``novelty``."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
