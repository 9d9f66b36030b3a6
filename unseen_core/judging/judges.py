"""What judges a cell's images: feature spaces, a probe of the domain and one of ghosts."""

import logging
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.audit import Audit, audit
from unseen_core.judging.extractors import metric_names, reported
from unseen_core.judging.features import Pixels, extract
from unseen_core.judging.ghost_probe import (
    FEWEST,
    GhostProbe,
    fit_ghost_probe,
    ghost_bounds,
    ghost_score,
)
from unseen_core.judging.ghosts import ghosts
from unseen_core.judging.measures import METRICS, Judged
from unseen_core.judging.metrics import frechet_distance, kernel_distance
from unseen_core.judging.novelty import nearest
from unseen_core.judging.probe import Probe, fit_probe, wilson
from unseen_core.types import FeatureExtractor

__all__ = ["DomainJudge", "GhostJudge", "Metrics", "PerImage", "Space", "halves", "measure"]

LOG = logging.getLogger("unseen")

Metrics = dict[str, float | None]
PerImage = dict[str, list[object]]
"""A value for every image, by column."""


def halves(held_out: Tensor) -> tuple[Tensor, Tensor]:
    """Return every second held-out image or its features, (n, ...), and the others.

    A cell that is picked because it looks best is too good by that choice. Whoever picks one looks
    at the first half, and reports what the second says.
    """
    return held_out[::2], held_out[1::2]


def measure(judged: Judged) -> Metrics:
    """Return the figures of every metric.

    Raises:
        UnseenError: If two metrics give a figure of the same name, or one cannot be computed.
    """
    found: Metrics = {}
    for fn in METRICS:
        figures = fn(judged)
        twice = found.keys() & figures.keys()
        if twice:
            raise UnseenError(f"metric {fn.__name__}: {min(twice)!r} is another metric's name; "
                              "rename it")
        found |= figures
    return found


@dataclass(frozen=True, eq=False)
class Space:
    """One extractor with the features of the real images."""

    extractor: FeatureExtractor
    fit: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, extractor: FeatureExtractor, fit: Tensor, held_out: Tensor) -> "Space":
        """Return the space of an extractor; ``fit`` and ``held_out`` are uint8 (n, 3, h, w)."""
        return cls(extractor, extract(extractor, fit), extract(extractor, held_out))

    def distances(self, features: Tensor, draws: int, seed: int) -> Metrics:
        """Return the distances of generated images' features to the held-out images.

        ``..._first`` and ``..._second`` are those to either half; see `halves`.
        """
        kernel, frechet = metric_names(self.extractor.name)
        to_pick, to_report = halves(self.held_out)
        every, second = (kernel_distance(features, real, draws=draws, seed=seed)
                         for real in (self.held_out, to_report))
        return {
            kernel: every.value, f"{kernel}_low": every.low, f"{kernel}_high": every.high,
            f"{kernel}_first": kernel_distance(features, to_pick, draws=0).value,
            **dict(zip(reported(kernel), (second.value, second.low, second.high), strict=True)),
            frechet: frechet_distance(features, self.held_out),
        }

    def audit(self, features: Tensor) -> Audit:
        """Return the nearest fit image of every image, beside what held-out images have."""
        return audit(features, self.fit, self.held_out, natural=self.natural)

    @cached_property
    def natural(self) -> Tensor:
        """Distance of each held-out image to its nearest fit image, (m,): that of all cells."""
        return nearest(self.held_out, self.fit)[0]


@dataclass(frozen=True, eq=False)
class DomainJudge:
    """Whether images belong to the domain and are new: by the first extractor, and by pixels.

    Attributes:
        space: Of the first extractor.
        pixels: The images themselves.
        probe: Of the seen domain against the fit images.
        natural: The audit of the held-out images themselves.
        fit_ids: The name of every fit image.
    """

    space: Space
    pixels: Space
    probe: Probe
    natural: Audit
    fit_ids: list[str]

    @classmethod
    def of(cls, space: Space, fit: Tensor, held_out: Tensor, seen: Tensor,
           fit_ids: list[str]) -> "DomainJudge":
        """Train the probe; ``fit``, ``held_out`` and ``seen`` are uint8 (n, 3, h, w)."""
        probe = fit_probe(extract(space.extractor, seen), space.fit)
        return cls(space, Space.of(Pixels(), fit, held_out), probe, space.audit(space.held_out),
                   fit_ids)

    def judge(self, images: Tensor, features: Tensor) -> tuple[Metrics, PerImage]:
        """Return what is said of a set, and of each of its images.

        Args:
            images: uint8 (n, 3, h, w).
            features: Those of ``space``, (n, d).

        Raises:
            UnseenError: If the sets do not fit together.
        """
        odds = self.probe.log_odds(features)
        share = wilson(int((odds > 0).sum()), len(features))
        raw = extract(self.pixels.extractor, images)
        found, found_pixels = self.space.audit(features), self.pixels.audit(raw)
        said, said_pixels = found.summary(), found_pixels.summary()
        metrics: Metrics = {
            "in_target": share.value, "in_target_low": share.low, "in_target_high": share.high,
            "novelty": found.novelty, "novelty_pixels": found_pixels.novelty,
            "copies": said["near_duplicates"], "copies_low": said["near_duplicates_low"],
            "copies_high": said["near_duplicates_high"],
            "copies_nominal": said["near_duplicates_nominal"],
            # With few held-out images more than 1 % of them lie below their own 1 % quantile.
            "copies_held_out": self.natural.summary()["near_duplicates"],
            "copies_pixels": said_pixels["near_duplicates"],
            "nearer_than_any": said["nearer_than_any"],
            "nearer_than_any_nominal": said["nearer_than_any_nominal"],
            "nearer_than_any_pixels": said_pixels["nearer_than_any"],
        }
        return metrics, {
            "target_log_odds": odds.tolist(),
            "nearest_fit_feature": found.distance.tolist(),
            "nearest_fit_id": [self.fit_ids[i] for i in found.nearest_fit.tolist()],
            "near_duplicate": found.near_duplicate.tolist(),
            "near_duplicate_pixels": found_pixels.near_duplicate.tolist(),
            "nearer_than_any": found.nearer_than_any.tolist(),
        }


@dataclass(frozen=True, eq=False)
class GhostJudge:
    """Whether images are two pictures laid over each other; without a probe, measures alone."""

    held_out: Tensor
    probe: GhostProbe | None
    bounds: tuple[float, float] | None

    @classmethod
    def of(cls, fit: Tensor, held_out: Tensor, seed: int) -> "GhostJudge":
        """Train the probe once for all cells; too few fit images for one are a line in the log."""
        if len(fit) < FEWEST:
            LOG.info("%d fit images, and a ghost probe needs %d: no ghost probabilities",
                         len(fit), FEWEST)
            return cls(held_out, None, None)
        probe = fit_ghost_probe(fit, seed=seed)
        return cls(held_out, probe, ghost_bounds(held_out, probe, seed=seed))

    def judge(self, images: Tensor, draws: int, seed: int) -> tuple[Metrics, PerImage]:
        """Return the ghosting of a set, uint8 (n, 3, h, w) with n >= 2, and of each image."""
        metrics: Metrics = dict.fromkeys(("ghosts", "ghosts_low", "ghosts_high",
                                          "ghosts_held_out", "ghosts_ceiling", "ghosts_auc"))
        chances: list[object] = [float("nan")] * len(images)
        if self.probe is not None:
            score = ghost_score(images, self.held_out, self.probe, bounds=self.bounds,
                                draws=draws, seed=seed)
            metrics |= {
                "ghosts": score.generated.value, "ghosts_low": score.generated.low,
                "ghosts_high": score.generated.high, "ghosts_held_out": score.floor,
                "ghosts_ceiling": score.ceiling, "ghosts_auc": score.auc,
            }
            chances = score.probabilities.tolist()
        # One draw: the intervals are not reported.
        for name, found in ghosts(images, self.held_out, draws=1).items():
            metrics[f"{name}_shift"] = found.shift.value
            metrics[f"{name}_distance"] = found.distance.value
        return metrics, {"ghost_probability": chances}
