"""How far images hide which image they were made from. No measure here proves privacy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval, check_features
from unseen_core.judging.novelty import nearest
from unseen_core.judging.probe import wilson

__all__ = ["Anonymity", "anonymity"]

_FAR = 0.01


@dataclass(frozen=True)
class Anonymity:
    """What one matcher finds of a set of outputs.

    Attributes:
        reidentified: Share of outputs that are nearest to their own source (top-1), Wilson.
        chance: That share for a matcher that guesses, 1 / sources.
        verified: Share of (output, own source) pairs that pass as one image, Wilson.
        false_accepts: Share of pairs of different sources that pass, at most ``_FAR``.
        threshold: Distance below which a pair passes.
        moved: Median distance of an output to its source, over that of two sources.
    """

    reidentified: Interval
    chance: float
    verified: Interval
    false_accepts: float
    threshold: float
    moved: float

    def summary(self) -> dict[str, float]:
        """Return the figures flat, for tables."""
        return {
            "top1": self.reidentified.value, "top1_low": self.reidentified.low,
            "top1_high": self.reidentified.high, "top1_chance": self.chance,
            "verified": self.verified.value, "verified_low": self.verified.low,
            "verified_high": self.verified.high, "false_accepts": self.false_accepts,
            "threshold": self.threshold, "moved": self.moved,
        }


def anonymity(outputs: Tensor, sources: Tensor, rows: Tensor) -> Anonymity:
    """Return how often outputs are traced back to their sources.

    A pair passes as one image where it is nearer than 99 % of the pairs of different sources
    (verification at a false-accept rate of 1 %); with fewer than 15 sources, than all of them.
    The intervals take outputs as independent: with several copies of a source they are too
    narrow.

    Args:
        outputs: Features of the outputs, shape (m, d), m >= 1.
        sources: Features of the originals, shape (n, d), n >= 2.
        rows: Row of ``sources`` that each output was made from, int64 (m,).

    Raises:
        UnseenError: If the sets do not fit together or all sources are equal.
    """
    check_features({"sources": sources})
    found = nearest(outputs, sources)[1]
    own = (outputs.double() - sources[rows].double()).norm(dim=1)
    between = torch.pdist(sources.double()).sort().values
    middle = between[len(between) // 2].item()
    if middle == 0:
        raise UnseenError("anonymity: half of the original images are equal; remove the copies")
    threshold = between[int(_FAR * len(between))].item()
    count = len(outputs)
    return Anonymity(
        reidentified=wilson(int((found == rows).sum()), count),
        chance=1 / len(sources),
        verified=wilson(int((own < threshold).sum()), count),
        false_accepts=(between < threshold).double().mean().item(),
        threshold=threshold,
        moved=own.median().item() / middle,
    )
