"""Metrics that need nothing but sets of images and their features: one function each.

A metric is a function that `metric` registers, in a module that ``judges`` imports.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ["METRICS", "Figures", "Judged", "Metric", "metric"]


@dataclass(frozen=True, eq=False)
class Judged:
    """A cell's images beside the real ones, with the features of the first extractor.

    Attributes:
        images, fit, held_out: uint8 (n, 3, h, w) each: generated, fit and held-out images.
        features, fit_features, held_out_features: float32 (n, d), row by row those images.
        held_out_spread: Mean distance of two held-out images, the same for every cell.
        draws: Bootstrap draws, for metrics with an interval.
        seed: Of all random numbers.
    """

    images: Tensor
    fit: Tensor
    held_out: Tensor
    features: Tensor
    fit_features: Tensor
    held_out_features: Tensor
    held_out_spread: float
    draws: int
    seed: int


Figures = Mapping[str, float | None]
"""By name: columns of data/report/compare.csv, and metrics in MLflow."""

Metric = Callable[[Judged], Figures]

METRICS: list[Metric] = []
"""Every metric imported so far."""


def metric(fn: Metric) -> Metric:
    """Add a function to `METRICS` and return it unchanged."""
    METRICS.append(fn)
    return fn
