"""Do seen and unseen latents of one level lie apart? Predicted from moments, and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from torch import Tensor

from unseen_core.analysis.latents.gram import Moments, centre, gram
from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval
from unseen_core.judging.probe import wilson

__all__ = ["Separability", "centroid_accuracy", "separability"]


@dataclass(frozen=True)
class Separability:
    """What `separability` found; Δ is the distance of the two laws' means.

    Attributes:
        centre_distance_square: Unbiased estimate of Δ²; negative where there is none.
        variance: v, variance per dimension, mean of the two sets.
        ratio: Δ / sqrt(v).
        threshold: d^¼, which the ratio must exceed by far if single pairs of latents are to
            separate the domains; known centres need a ratio of about 1 only.
        effective_dimension: (tr Σ)² / tr Σ² of the mean of the two covariances.
        effective_variance: tr Σ² / tr Σ, so that trace and tr Σ² are those of an isotropic law
            of this variance in that dimension.
        effective_ratio: Δ over the root of the effective variance.
        effective_threshold: ¼-th power of the effective dimension.
        predicted: Expected nearest-centroid accuracy: ``isotropic``, by
            `centroid_accuracy`; ``effective``, the same with effective dimension and variance;
            ``along``, with the variance δᵀ Σ δ of each set along the line of the means.
        measured: Held-out accuracy of ``centroid``, ``logistic`` and ``svm``, Wilson intervals.
    """

    centre_distance_square: float
    variance: float
    ratio: float
    threshold: float
    effective_dimension: float
    effective_variance: float
    effective_ratio: float
    effective_threshold: float
    predicted: Mapping[str, float]
    measured: Mapping[str, Interval]

    def summary(self) -> dict[str, object]:
        """Return a JSON-able description."""
        return asdict(self)


def centroid_accuracy(
    distance_square: float, variance: float, dimension: float, counts: tuple[float, float]
) -> float:
    """Expected accuracy of the nearest centroid between N(m, v I) and N(m + δ, v I).

    Φ(Δ² / (2 sqrt(v) sqrt(Δ² + d v (1/n + 1/m)))), for centroids of n and m draws; their own
    distance noise d v / n is taken off, or the larger set would be favoured.

    Args:
        distance_square: Δ²; negative estimates count as 0.
        variance: v > 0.
        dimension: d, or an effective dimension.
        counts: n and m.
    """
    signal = max(distance_square, 0.0)
    noise = variance * (signal + dimension * variance * sum(1 / n for n in counts))
    return float(norm.cdf(signal / (2 * noise**0.5)))


def separability(
    seen: Tensor, unseen: Tensor, *, folds: int = 5, seed: int = 0
) -> Separability:
    """Compare the latents of two domains at one level, from their inner products only.

    Δ² is estimated as |m̂ - m̂'|² - tr S / n - tr S' / m. Accuracy is measured on held-out
    latents over stratified folds, classifiers fitted on the training folds alone, in the
    coordinates of their principal components (an isometry, so that a penalised linear
    classifier is the one in d dimensions), scaled to unit variance per dimension of the state.
    Predictions are for centroids of the training folds' size. Folds share training latents, so
    the Wilson intervals are a little too narrow.

    Args:
        seen: Latents of the seen domain, shape (n, ...), n >= folds and >= 4.
        unseen: Latents of the unseen domain, shape (m, ...), m >= folds and >= 4.
        folds: >= 2.
        seed: Seed of the folds.

    Raises:
        UnseenError: If there are too few latents or folds, dimensions differ, or latents are
            not finite or all equal.
    """
    if folds < 2 or min(len(seen), len(unseen)) < max(folds, 4):
        raise UnseenError(f"separability: {len(seen)} and {len(unseen)} latents in {folds} folds; "
                          "use at least 2 folds, and 4 latents and one per fold of each domain")
    products, dimension = gram(seen, unseen).cpu(), seen[0].numel()
    n, m = len(seen), len(unseen)
    parts = slice(0, n), slice(n, n + m)
    moments = [Moments.of(products[p, p], dimension) for p in parts]
    shift = products[:, parts[0]].mean(1) - products[:, parts[1]].mean(1)  # (n + m,)
    distance = (shift[parts[0]].mean() - shift[parts[1]].mean()).item() - sum(
        law.trace / law.count for law in moments)
    across = _across(products, n)
    trace = sum(law.trace for law in moments) / 2
    square = (sum(law.trace_square for law in moments) + 2 * across) / 4
    square = max(square, trace**2 / dimension)
    rank, effective, gap = trace**2 / square, square / trace, max(distance, 0.0) ** 0.5
    counts = n * (1 - 1 / folds), m * (1 - 1 / folds)
    variance = trace / dimension
    return Separability(
        distance, variance, gap / variance**0.5, dimension**0.25,
        rank, effective, gap / effective**0.5, rank**0.25,
        {"isotropic": centroid_accuracy(distance, variance, dimension, counts),
         "effective": centroid_accuracy(distance, effective, rank, counts),
         "along": _along(distance, [shift[p].var().item() for p in parts], moments, across,
                         counts)},
        _measure(products, n, dimension, folds, seed))


def _across(products: Tensor, n: int) -> float:
    """Unbiased estimate of tr Σ Σ' from the inner products between the sets."""
    cross = products[:n, n:]
    cross = cross - cross.mean(0) - cross.mean(1, keepdim=True) + cross.mean()
    return (cross.square().sum() / ((n - 1) * (cross.shape[1] - 1))).item()


def _along(
    distance: float, variances: list[float], moments: list[Moments], across: float,
    counts: tuple[float, float],
) -> float:
    """Expected nearest-centroid accuracy for any two covariances.

    The score of a latent of set 1, relative to the midpoint, has mean ∓ Δ²/2 and variance
    δᵀ Σ₁ δ + tr Σ₁² / n + tr Σ₁ Σ₂ / m; that of the sample's own δ̂ᵀ S₁ δ̂ has the same form.
    """
    accuracies, total = 0.0, sum(law.count for law in moments)
    for c, law in enumerate(moments):
        other = 1 - c
        line = variances[c] - law.trace_square / law.count - across / moments[other].count
        spread = max(line, 0.0) + law.trace_square / counts[c] + across / counts[other]
        score = max(distance, 0.0) / (2 * max(spread, 1e-300) ** 0.5)
        accuracies += law.count / total * float(norm.cdf(score))
    return accuracies


def _measure(
    products: Tensor, n: int, dimension: int, folds: int, seed: int
) -> dict[str, Interval]:
    """Held-out accuracy of the three classifiers."""
    total = len(products)
    labels = np.arange(total) >= n
    correct = {"centroid": 0, "logistic": 0, "svm": 0}
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(labels, labels):
        truth = labels[test]
        correct["centroid"] += int((_centroid(products, train, test, labels) == truth).sum())
        fitted, held_out = _coordinates(products, train, test, dimension)
        models = {
            "logistic": LogisticRegression(class_weight="balanced", max_iter=5000),
            "svm": SVC(kernel="linear", class_weight="balanced"),
        }
        for name, model in models.items():
            found = model.fit(fitted, labels[train]).predict(held_out)
            correct[name] += int((found == truth).sum())
    return {name: wilson(count, total) for name, count in correct.items()}


def _centroid(
    products: Tensor, train: np.ndarray, test: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Say which test rows are nearer to the unseen centroid, free of the centroids' noise."""
    distances = []
    for label in (False, True):
        rows = train[labels[train] == label]
        within = products[rows][:, rows]
        energy = within.mean()
        noise = (within.diagonal().mean() - energy) / (len(rows) - 1)  # tr S / n
        distances.append(energy - noise - 2 * products[test][:, rows].mean(1))
    return (distances[1] < distances[0]).numpy()


def _coordinates(
    products: Tensor, train: np.ndarray, test: np.ndarray, dimension: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows in the principal components of the training rows."""
    within = products[train][:, train]
    values, vectors = torch.linalg.eigh(centre(within))
    kept = values > 1e-10 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    scale = (values.sum() / (len(train) * dimension)).sqrt()
    # vectors sum to 0, so the rows' own inner product with the mean drops out.
    held_out = (products[test][:, train] - within.mean(0)) @ vectors / values.sqrt()
    return (vectors * values.sqrt() / scale).numpy(), (held_out / scale).numpy()
