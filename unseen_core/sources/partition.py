"""The one split of a domain into fit, held-out and remaining images."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.sources.base import SourceImages

__all__ = ["Split", "split"]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a domain, disjoint, together all of them; int64, in the order of the draw.

    Attributes:
        fit: Images that priors, envelopes and start states may use.
        held_out: Images that only ``evaluate`` reads.
        rest: Neither; free for the training of a feature extractor.
    """

    fit: Tensor
    held_out: Tensor
    rest: Tensor


def split(
    source: SourceImages, *, fit: int, held_out: int, seed: int, pool: int | None = None
) -> Split:
    """Return which images of a domain are fit, which held out and which neither.

    Groups are ordered by SHA-256 of (seed, id) and go whole to one side: held-out first, fit
    next. So ``fit`` never moves an image into or out of held-out, and a smaller ``fit`` takes
    a part of what a larger one takes. Where groups are larger than one image, a side may end
    up smaller than asked by less than the largest group.

    Args:
        source: The images; without ``groups`` each is its own group.
        fit: Number of fit images, >= 1.
        held_out: Number of held-out images, >= 1.
        seed: Any integer.
        pool: Both sides are taken from the first ``pool`` images in the source's order, so that
            more images may be added behind them without moving one; None: from all.

    Raises:
        UnseenError: Too few images.
    """
    for name, count in (("fit", fit), ("held_out", held_out)):
        if count < 1:
            raise UnseenError(f"domain {source.domain}: {name} must be >= 1, not {count}")
    among = len(source) if pool is None else min(pool, len(source))
    if fit + held_out > among:
        name = "fit" if held_out < among else "held_out"
        raise UnseenError(
            f"domain {source.domain}: {among} images are too few for "
            f"fit {fit} and held_out {held_out}; lower {name} or add images"
        )
    groups = _groups(source, seed)
    # A group with a member behind the pool stays whole, and behind it.
    free = [members for members in groups if max(members) < among]
    behind = [members for members in groups if max(members) >= among]
    chosen, free = _take(free, held_out)
    references, free = _take(free, fit)
    for name, rows in (("held_out", chosen), ("fit", references)):
        if not rows:
            raise UnseenError(
                f"domain {source.domain}: {name} stays empty, since every free group has more "
                f"images than asked for; raise {name} or use smaller groups (near copies are "
                "grouped, too: images.near_copies)"
            )
    rest = [row for members in [*free, *behind] for row in members]
    sides = (torch.tensor(rows, dtype=torch.int64) for rows in (references, chosen, rest))
    return Split(*sides)


def _groups(source: SourceImages, seed: int) -> list[list[int]]:
    """Return the rows of each group, groups and rows in the order of their keys."""
    keys = [hashlib.sha256(f"{seed}:{sample}".encode()).digest() for sample in source.ids]
    names = range(len(source)) if source.groups is None else source.groups.tolist()
    members: dict[int, list[int]] = {}
    for row in sorted(range(len(source)), key=keys.__getitem__):
        members.setdefault(names[row], []).append(row)
    return list(members.values())


def _take(pool: list[list[int]], count: int) -> tuple[list[int], list[list[int]]]:
    """Move whole groups out of the pool while at most ``count`` rows are taken."""
    taken: list[int] = []
    left: list[list[int]] = []
    for members in pool:
        if len(taken) + len(members) <= count:
            taken += members
        else:
            left.append(members)
    return taken, left
