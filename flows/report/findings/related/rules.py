"""The rules for the claims of the related works: pure functions, every bound named once."""

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

from flows.report.findings.verdicts import Outcome, Verdict, duel, overall, placed
from unseen_core.judging.metrics import Interval

__all__ = ["DIMENSIONS", "EXPLAINED", "LINEAR", "RANKS", "RESIDUAL", "SAVED", "any_of", "beats",
           "explains", "in_order", "saves", "spreads"]

RESIDUAL = 0.05
"""Share of a state's squared length that may lie off the rotation."""
DIMENSIONS = 10.0
"""Axes that count as few, for states of thousands of numbers."""
RANKS = 0.5
"""Rank correlation from which an order counts as predicted."""
EXPLAINED = 0.9
"""Explained variance of the predicted images from which a model of them counts as good."""
SAVED = 0.25
"""Share of network calls that must be saved."""
LINEAR = 0.95
"""R² from which a control counts as linear."""

_VERDICTS: dict[Outcome, Verdict] = {"wins": "confirmed", "ties": "undecided", "loses": "refuted"}


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on "there is one that": one confirms, all must refute."""
    found = list(verdicts)
    if "confirmed" in found:
        return "confirmed"
    return "refuted" if found and set(found) == {"refuted"} else "undecided"


def beats(ours: Interval, theirs: Interval) -> Verdict:
    """Judge "ours is smaller": confirmed (refuted) if the whole interval lies below (above)."""
    return _VERDICTS[duel(ours, theirs)]


def explains(gaussian: Interval, mean: Interval) -> Verdict:
    """Judge a level's explained variance by a Gaussian beside that of the mean alone.

    Confirmed if its interval lies above ``EXPLAINED`` and above that of the mean, refuted if it
    lies below one of them.
    """
    return overall([placed(gaussian, least=EXPLAINED), beats(mean, gaussian)])


def saves(rows: Collection[tuple[float, bool]]) -> Verdict:
    """Judge "at least ``SAVED`` of the calls can be saved with no significant change".

    Args:
        rows: Share of calls saved, and whether the change was significant.

    Returns:
        Confirmed if no share up to the first one of at least ``SAVED`` changes the images,
        refuted if one of them does, undecided if so large a share was not tried.
    """
    tried: list[bool] = []
    for share, changed in sorted(rows):
        tried.append(changed)
        if share >= SAVED:
            return "refuted" if any(tried) else "confirmed"
    return "refuted" if any(tried) else "undecided"


def spreads(noise: Interval, leaked: float, band: tuple[float, float]) -> Verdict:
    """Judge a level at which noise must miss the spread of colours, and a leak restore it.

    Args:
        noise: Spread of images from noise over the domain's.
        leaked: The same of images from a leak.
        band: Ratios that count as equal.
    """
    return overall([placed(noise, most=band[0]), placed(Interval(leaked, leaked, leaked), *band)])


def in_order(groups: Sequence[Sequence[Interval]]) -> Verdict:
    """Judge whether figures fall from group to group, all pairs of two groups looked at.

    Confirmed if a pair is told apart and none the wrong way, refuted if one is the wrong way,
    undecided if all tie.
    """
    found = {duel(after, before) for first, second in combinations(groups, 2)
             for before in first for after in second}
    if "loses" in found:
        return "refuted"
    return "confirmed" if "wins" in found else "undecided"
