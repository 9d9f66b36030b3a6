"""How near a cell's images are to a domain, told by fit images that are not their parents.

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
comparison, which counts against the cell.

The kernel is centred: the mean similarity to other fit images is taken off both arguments,
k(a, b) - h(a) - h(b) + mean h, h(g_i) without parents and h(f_j) without j. No expectation
changes, and without parents not even the value, that of ``kernel_distance``. It takes out
the chance by which typical or odd fit images are parents more often than others.

The bootstrap resamples fit images, the same for all cells, and generated images, the same
rows for all cells of one size, since cells may share their random numbers. Pairs weigh as
in ``kernel_distance``, so that the mean of the draws is the value. Novelty and diversity are
resampled along; distances stay those to all fit images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import check_features, cubic_kernel
from unseen_core.judging.novelty import nearest

__all__ = ["Candidate", "Part", "distances", "leave_parents_out"]


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


@dataclass(frozen=True, eq=False)
class Part:
    """What the scores take from one set alone, with bootstrap draws."""

    values: Tensor  # (3,) mean centred kernel of a pair, median nearest distance, mean distance
    drawn: Tensor  # (3, draws) the same in every draw
    counts: Tensor  # (draws, n) how often a row occurs in every draw

    @classmethod
    def of(
        cls, x: Tensor, likeness: Tensor, typical: Tensor, near: Tensor, draws: int, seed: list[int]
    ) -> "Part":
        """Summarise features (n, d) of given h (n,), mean h, and nearest distances (n,)."""
        n = len(x)
        kernel = cubic_kernel(x, x) - likeness - likeness[:, None] + typical
        kernel.fill_diagonal_(0)
        distance = distances(x)
        rows = torch.from_numpy(np.random.default_rng(seed).integers(n, size=(draws, n)))
        counts = torch.zeros(draws, n, dtype=torch.float64)
        counts.scatter_add_(1, rows, torch.ones_like(counts))
        pairs = n**2 - counts.square().sum(1)  # of distinct originals
        values = [kernel.sum() / (n * (n - 1)), near.quantile(0.5), distance.sum() / (n * (n - 1))]
        drawn = [((counts @ kernel) * counts).sum(1) / (n - 1) ** 2,
                 near[rows].quantile(0.5, dim=1),
                 ((counts @ distance) * counts).sum(1) / pairs.clamp_min(1)]
        return cls(torch.stack(values), torch.stack(drawn), counts)


def leave_parents_out(
    cell: Candidate, features: Tensor, likeness: Tensor, fit: Part, draws: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a cell's criterion, novelty and diversity (3,), their draws (3, draws), distances."""
    check_features({"fit images": features, f"candidate {cell.name}": cell.generated_features})
    x = cell.generated_features.double()
    weight, typical = _strangers(cell, len(x), len(features)), likeness.mean()
    across = cubic_kernel(x, features)
    own = (weight * across).sum(1)
    across = weight * (across - own[:, None] - likeness + typical) / len(x)
    near = nearest(x, features)[0]
    part = Part.of(x, own, typical, near, draws, [seed, 1, len(x)])
    cross = ((part.counts @ across) * fit.counts).sum(1)
    value, drawn = part.values / fit.values, part.drawn / fit.drawn
    value[0] = part.values[0] + fit.values[0] - 2 * across.sum()
    drawn[0] = part.drawn[0] + fit.drawn[0] - 2 * cross
    return value, drawn, near


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


def distances(x: Tensor) -> Tensor:
    """Euclidean distances of every pair, (n, n); computed as in ``novelty``."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
