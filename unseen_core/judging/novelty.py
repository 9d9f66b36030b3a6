"""Nearest-neighbour measures: manifold precision and recall, novelty, copies, diversity."""

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.measures import Figures, Judged, metric
from unseen_core.judging.metrics import check_features

__all__ = ["diversity", "manifolds", "mean_distance", "nearest", "nearest_pictures", "novelty",
           "precision_recall", "spread"]

_CHUNK = 256
_COLUMNS = 8192  # A float64 copy of this many numbers of every picture at a time.


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances of every pair, shape (n, m), exact zero for equal rows."""
    # The matrix-product form of cdist cancels badly for near copies, which matter most here.
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")


def nearest(x: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance to the nearest reference, and which one it is.

    Args:
        x: Features, shape (n, d), n >= 1.
        references: Features, shape (m, d), m >= 1.

    Returns:
        Distances (n,) float64 and rows of ``references`` (n,) int64; ties go to the first row.

    Raises:
        UnseenError: If the sets do not fit together.
    """
    check_features({"x": x, "references": references}, least=1)
    found = [_distances(rows, references).min(1) for rows in x.split(_CHUNK)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def nearest_pictures(images: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """Euclidean distance to the nearest reference picture, pixels in [0, 1], and which one it is.

    |x - y|² = |x|² + |y|² - 2 x·y without cancellation: products of bytes are whole numbers, and
    their sums stay below 2^53, where float64 is exact.

    Args:
        images: uint8 (n, 3, h, w), n >= 1.
        references: uint8 (m, 3, h, w), m >= 1, same size.

    Returns:
        Distances (n,) float64 and rows of ``references`` (n,) int64; ties go to the first row.

    Raises:
        UnseenError: If the pictures differ in size or are not bytes.
    """
    if images.dtype != torch.uint8 or references.dtype != torch.uint8 or (
            images.shape[1:] != references.shape[1:]):
        raise UnseenError(f"pictures {images.dtype} {tuple(images.shape)} and {references.dtype} "
                          f"{tuple(references.shape)}; give uint8 of one size")
    squares = torch.zeros(len(images), len(references), dtype=torch.float64)
    columns = zip(images.flatten(1).split(_COLUMNS, 1), references.flatten(1).split(_COLUMNS, 1),
                  strict=True)
    for x, y in ((part.double(), other.double()) for part, other in columns):
        squares += x.square().sum(1)[:, None] + y.square().sum(1)
        squares.addmm_(x, y.T, alpha=-2)
    found = squares.min(1)
    return found.values.sqrt() / 255, found.indices


def novelty(generated: Tensor, held_out: Tensor, fit: Tensor) -> float:
    """Median distance to the fit images, over that of real images never used.

    About 1 is what new real images have; near 0 is copying.

    Args:
        generated: Features of generated images, shape (n, d), n >= 1.
        held_out: Features of held-out real images, shape (m, d), m >= 1.
        fit: Features of the fit images, shape (k, d), k >= 1.

    Raises:
        UnseenError: If the sets do not fit together, or half of the held-out images are fit
            images.
    """
    floor = nearest(held_out, fit)[0].quantile(0.5).item()
    if floor == 0:
        raise UnseenError(
            "held-out images: at least half are equal to fit images; remove duplicates and split "
            "the domain again"
        )
    return nearest(generated, fit)[0].quantile(0.5).item() / floor


def mean_distance(x: Tensor) -> float:
    """Return the mean Euclidean distance over the n (n - 1) / 2 pairs.

    Args:
        x: Features, shape (n, d), n >= 2.

    Raises:
        UnseenError: If there is but one, or a value is not finite.
    """
    check_features({"x": x})
    total = sum(_distances(rows, x).sum().item() for rows in x.split(_CHUNK))
    return total / (len(x) * (len(x) - 1))


def diversity(generated: Tensor, spread: float) -> float:
    """Return the mean distance of two generated images over that of two real ones.

    Args:
        generated: Features, shape (n, d), n >= 2.
        spread: `mean_distance` of held-out real images.

    Raises:
        UnseenError: If there is but one image, or all real images are equal.
    """
    if spread == 0:
        raise UnseenError("real images: all are equal, so diversity has no scale; add others")
    return mean_distance(generated) / spread


def _radii(x: Tensor, k: int) -> Tensor:
    """Distance of each row to its k-th nearest other row, shape (n,)."""
    # The row itself is at distance 0, so the k-th other is the (k + 1)-th smallest.
    blocks = (_distances(rows, x) for rows in x.split(_CHUNK))
    return torch.cat([block.kthvalue(k + 1, dim=1).values for block in blocks])


def _covered(x: Tensor, manifold: Tensor, radii: Tensor) -> float:
    """Share of rows within the radius of at least one row of ``manifold``."""
    inside = [(_distances(rows, manifold) <= radii).any(1) for rows in x.split(_CHUNK)]
    return torch.cat(inside).double().mean().item()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, eqs. 1 and 2).

    A set's manifold is the union of balls around its rows that reach the k-th nearest other
    row. Both figures depend on the set sizes: compare sets of equal size only.

    Args:
        real: Features, shape (n, d), n > k.
        fake: Features, shape (m, d), m > k.
        k: Neighbours, >= 1.

    Returns:
        Precision, the share of ``fake`` in the manifold of ``real``; recall, the reverse.

    Raises:
        UnseenError: If the sets do not fit together or have k rows or fewer.
    """
    if k < 1:
        raise UnseenError(f"precision and recall: k = {k}; use k >= 1")
    check_features({"real": real, "fake": fake}, least=k + 1)
    return _covered(fake, real, _radii(real, k)), _covered(real, fake, _radii(fake, k))


@metric
def spread(judged: Judged) -> Figures:
    """Return ``diversity``: mean pairwise distance over that of held-out images."""
    return {"diversity": diversity(judged.features, judged.held_out_spread)}


@metric
def manifolds(judged: Judged) -> Figures:
    """Return ``precision`` and ``recall``, of sets of equal size."""
    held_out = judged.held_out_features
    same = min(len(judged.features), len(held_out))
    precision, recall = precision_recall(held_out[:same], judged.features[:same])
    return {"precision": precision, "recall": recall}
