"""Near copies in a domain: one picture at two sizes, re-encoded, or a thumbnail of another.

A picture that stands among the fit images and, a little altered, among the held-out ones makes new
images look closer to what was held out than they are. So near copies form a group, and a split
keeps a group on one side.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from unseen_core.sources.base import SourceImages

__all__ = ["grouped", "near_copies"]

_SIDE = 16  # pixels: what resizing and encoding change is finer than that
_ROWS = 1024  # compared at a time


def near_copies(images: Tensor, threshold: float) -> Tensor:
    """Return pairs of near copies, int64 (pairs, 2), the lower row first.

    At 16 x 16 pixels, each image less its mean: |x - y|² < threshold (|x|² + |y|²). That is 0 for
    equal images, whatever their brightness, and about 1 for unrelated ones.

    Args:
        images: uint8, shape (n, c, h, w).
        threshold: At least 0; with 0 none are looked for.
    """
    if threshold == 0:
        return torch.empty(0, 2, dtype=torch.int64)
    x = torch.cat([adaptive_avg_pool2d(part.float(), min(_SIDE, *images.shape[-2:])).flatten(1)
                   for part in images.split(_ROWS)])
    x = x - x.mean(1, keepdim=True)
    energy, found = x.square().sum(1), [torch.empty(0, 2, dtype=torch.int64)]
    for first in range(0, len(x), _ROWS):
        rows = slice(first, first + _ROWS)
        total = energy[rows, None] + energy
        pairs = (total - 2 * x[rows] @ x.T < threshold * total).nonzero()
        pairs[:, 0] += first
        found.append(pairs[pairs[:, 0] < pairs[:, 1]])
    return torch.cat(found)


def grouped(source: SourceImages, threshold: float) -> tuple[SourceImages, Tensor]:
    """Return a source whose near copies share a group, and the pairs of them.

    Groups that the source has stay whole; two of them that share a near copy become one.

    Args:
        source: Images of a domain.
        threshold: See `near_copies`.
    """
    pairs = near_copies(source.images, threshold)
    if not len(pairs):
        return source, pairs
    edges, n = pairs.numpy(), len(source)
    if source.groups is not None:
        _, firsts, names = np.unique(source.groups.numpy(), return_index=True, return_inverse=True)
        edges = np.concatenate([edges, np.stack([np.arange(n), firsts[names]], 1)])
    graph = coo_array((np.ones(len(edges), bool), edges.T), shape=(n, n))
    _, groups = connected_components(graph, directed=False)
    return replace(source, groups=torch.from_numpy(groups).long()), pairs
