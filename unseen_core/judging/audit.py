"""Which generated images are nearer to a fit image than new real images are."""

from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.novelty import nearest
from unseen_core.judging.probe import wilson

__all__ = ["Audit", "audit"]


@dataclass(frozen=True, eq=False)
class Audit:
    """The nearest fit image of every generated image, and how natural that distance is.

    Attributes:
        distance: Distance to the nearest fit image, (n,) float64, feature units.
        nearest_fit: Its row, (n,) int64.
        threshold: Quantile of the held-out images' distances to their nearest fit image.
        least: The least of those distances.
        typical: Their median.
        held_out: Number m of held-out images.
        quantile: As asked for.
    """

    distance: Tensor
    nearest_fit: Tensor
    threshold: float
    least: float
    typical: float
    held_out: int
    quantile: float

    @property
    def novelty(self) -> float:
        """Median distance over that of held-out images; see `unseen_core.judging.novelty`."""
        return self.distance.quantile(0.5).item() / self.typical

    @property
    def near_duplicate(self) -> Tensor:
        """Whether each image is nearer than the threshold, (n,) bool; strict."""
        return self.distance < self.threshold

    @property
    def nearer_than_any(self) -> Tensor:
        """Whether each image is nearer than every held-out image is, (n,) bool; strict."""
        return self.distance < self.least

    def frame(self) -> pd.DataFrame:
        """Return one row per image: nearest_fit, distance, near_duplicate, nearer_than_any."""
        return pd.DataFrame({
            "nearest_fit": self.nearest_fit.numpy(), "distance": self.distance.numpy(),
            "near_duplicate": self.near_duplicate.numpy(),
            "nearer_than_any": self.nearer_than_any.numpy(),
        })

    def summary(self) -> dict[str, float]:
        """Return both shares with 95 % Wilson intervals and the shares new real images have.

        The nominal shares are those of images of the same law as the held-out ones. Among
        m + 1 such distances each is the least equally often: 1 / (m + 1), exactly. The quantile
        lies at 1 + (m - 1) q among the m ordered distances, and the i-th of them is undercut by
        i / (m + 1) on average: (1 + (m - 1) q) / (m + 1), which exceeds q at small m, up to the
        curvature of the law between two neighbouring distances. The intervals hold the
        thresholds fixed; both vary with the held-out images, by as much as the share of m
        images does.
        """
        n, m = len(self.distance), self.held_out
        near = wilson(int(self.near_duplicate.sum()), n)
        first = wilson(int(self.nearer_than_any.sum()), n)
        return {
            "n": n, "held_out": m, "quantile": self.quantile,
            "threshold": self.threshold, "least": self.least,
            "near_duplicates": near.value, "near_duplicates_low": near.low,
            "near_duplicates_high": near.high,
            "near_duplicates_nominal": (1 + (m - 1) * self.quantile) / (m + 1),
            "nearer_than_any": first.value, "nearer_than_any_low": first.low,
            "nearer_than_any_high": first.high, "nearer_than_any_nominal": 1 / (m + 1),
        }


def audit(
    generated: Tensor, fit: Tensor, held_out: Tensor, *, quantile: float = 0.01,
    natural: Tensor | None = None,
) -> Audit:
    """Find each image's nearest fit image and flag near duplicates.

    Euclidean distances in whatever space the features are of; audit pixels and an extractor's
    features apart, since neither sees every copy.

    Args:
        generated: Features of generated images, shape (n, d), n >= 1.
        fit: Features of the fit images, shape (k, d), k >= 1.
        held_out: Features of held-out real images, shape (m, d), m >= 1.
        quantile: Share of held-out images that lie below the threshold (linear
            interpolation), in [0, 1].
        natural: Distance of each held-out image to its nearest fit image, (m,), where it is known.

    Raises:
        UnseenError: If the sets do not fit together, ``quantile`` is out of range, or the
            threshold is zero, below which not even a copy lies.
    """
    if not 0 <= quantile <= 1:
        raise UnseenError(f"audit: quantile {quantile}; use a number between 0 and 1")
    natural = nearest(held_out, fit)[0] if natural is None else natural
    threshold = natural.quantile(quantile).item()
    if threshold == 0:
        raise UnseenError("held-out images: some are equal to fit images, so no copy could be "
                          "recognised; remove duplicates and split the domain again")
    distance, rows = nearest(generated, fit)
    return Audit(distance, rows, threshold, natural.min().item(), natural.quantile(0.5).item(),
                 len(held_out), quantile)
