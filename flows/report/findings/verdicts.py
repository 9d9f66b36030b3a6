"""The rules that turn figures into verdicts: pure functions, every bound named once."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from scipy.stats import chi2

from unseen_core.judging.metrics import Interval

__all__ = ["ABSENT", "APART", "BAND", "EFFECT", "EXCESS", "FAITHFUL", "GAIN", "LENGTHS",
           "MAJORITY", "REJECTED", "Outcome", "Verdict", "at_floor", "copying", "duel", "follows",
           "gaussian", "overall", "placed", "represents", "selected", "spread_ratio", "tells",
           "unharmed"]

Verdict = Literal["confirmed", "refuted", "undecided"]
Outcome = Literal["wins", "ties", "loses"]

FAITHFUL = 40.0
"""Decibels of a round trip: an error of one part in a hundred of the range."""
GAIN = 1.0
"""Decibels: below this, more network calls no longer help."""
REJECTED = 0.05
"""Share of normality tests that may be rejected."""
LENGTHS = (0.8, 1.25)
"""Spread of the lengths over a Gaussian's that still counts as equal."""
APART = 0.9
"""Accuracy from which two sets count as separated."""
EFFECT = 0.5
"""A strange state must pass a test less than this often, relative to natural ones."""
BAND = (0.9, 1.1)
"""Ratio of variances that still counts as equal."""
EXCESS = 1.96
"""Standard errors on either side of an estimate that make 95 %."""
MAJORITY = 0.5
"""Share of paths that stay in the domain."""
ABSENT = "not measured"


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict on a claim made of every case: one refutation refutes, all confirm.

    Without any case nothing is decided.
    """
    found = list(verdicts)
    if "refuted" in found:
        return "refuted"
    return "confirmed" if found and set(found) == {"confirmed"} else "undecided"


def placed(found: Interval, least: float = -math.inf, most: float = math.inf) -> Verdict:
    """Confirm if the whole interval lies in [least, most], refute if all of it lies outside."""
    if least <= found.low and found.high <= most:
        return "confirmed"
    return "refuted" if found.high < least or found.low > most else "undecided"


def represents(psnr: Sequence[float]) -> Verdict:
    """Judge round trips of one level, in decibels, by increasing budget.

    Confirmed if the largest budget reaches ``FAITHFUL``; refuted if it does not and brought less
    than ``GAIN`` over the one before; undecided while the error still falls.
    """
    if psnr[-1] >= FAITHFUL:
        return "confirmed"
    return "refuted" if len(psnr) > 1 and psnr[-1] - psnr[-2] < GAIN else "undecided"


def spread_ratio(sd: float, expected: float, count: int) -> Interval:
    """Return the ratio of a standard deviation of ``count`` values to an expected one.

    The 95 % interval is the chi-square one of a variance, for about normal values.
    """
    low, high = (((count - 1) / chi2.ppf(q, count - 1)) ** 0.5 for q in (0.975, 0.025))
    ratio = sd / expected
    return Interval(ratio, ratio * float(low), ratio * float(high))


def gaussian(rejected: float, lengths: Interval) -> Verdict:
    """Judge normality by the share of rejected tests and the relative spread of the lengths.

    Refuted if more than ``REJECTED`` of the tests fail or the spread lies outside ``LENGTHS``.
    """
    return "refuted" if rejected > REJECTED else placed(lengths, *LENGTHS)


def tells(natural: Interval, strange: Interval) -> Verdict:
    """Judge whether a test tells strange states from natural ones, by the shares that pass it.

    Confirmed if strange ones pass less than ``EFFECT`` times as often, with both intervals;
    refuted if the intervals overlap; undecided between.
    """
    if strange.high < EFFECT * natural.low:
        return "confirmed"
    return "refuted" if strange.high >= natural.low else "undecided"


def follows(trace: float, bands: Collection[Interval]) -> Verdict:
    """Judge whether variances follow a law: total and per-band ratios must lie in ``BAND``.

    Refuted if one band's interval, or the total, lies outside.
    """
    return overall([placed(Interval(trace, trace, trace), *BAND),
                    *(placed(band, *BAND) for band in bands)])


def at_floor(found: Interval, floor: Interval) -> Verdict:
    """Judge whether a distance is as small as that of real images.

    Confirmed if it is no larger than the floor's upper end, refuted if its own lower end is
    larger, undecided between.
    """
    if found.value <= floor.high:
        return "confirmed"
    return "refuted" if found.low > floor.high else "undecided"


def duel(ours: Interval, theirs: Interval) -> Outcome:
    """Compare two figures of which the smaller is better; overlapping intervals are a tie."""
    if ours.high < theirs.low:
        return "wins"
    return "loses" if ours.low > theirs.high else "ties"


def copying(copies: Interval, nominal: float) -> Verdict:
    """Judge "no more copies than new real images have", whose share is ``nominal``.

    Confirmed if the share is no larger, refuted if its whole interval is.
    """
    if copies.value <= nominal:
        return "confirmed"
    return "refuted" if copies.low > nominal else "undecided"


def selected(within_10_percent: bool, within_chance: bool) -> Verdict:
    """Judge a choice by whether the best candidate is no better than 10 %, or than chance."""
    if within_10_percent:
        return "confirmed"
    return "undecided" if within_chance else "refuted"


def unharmed(hashes: Collection[str], identical: Collection[bool]) -> Verdict:
    """Confirm if all hashes are equal and all samples identical, else refute."""
    return "confirmed" if len(set(hashes)) == 1 and all(identical) else "refuted"
