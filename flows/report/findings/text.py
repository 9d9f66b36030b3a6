"""Markdown: numbers, intervals, tables, and a section with its verdict."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from flows.report.findings.verdicts import ABSENT, Verdict, overall
from unseen_core.judging.metrics import Interval

__all__ = ["DASH", "Section", "ends", "extent", "fold", "interval", "listed", "number", "span",
           "table"]

DASH = "-"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def interval(found: Mapping[str, Any]) -> Interval:
    """Return the interval in a table of an artifact; what is null there is not a number."""
    return Interval(*(math.nan if found[key] is None else float(found[key])
                      for key in ("value", "low", "high")))


def ends(row: Mapping[str, Any] | pd.Series, name: str) -> Interval:
    """Return the interval in a row of a table: ``name``, ``name_low`` and ``name_high``."""
    return Interval(*(math.nan if row[key] is None else float(row[key])
                      for key in (name, f"{name}_low", f"{name}_high")))


def span(found: Interval | None, digits: int = 2) -> str:
    """Return an estimate with its interval: ``0.06 (-0.03 to 0.20)``."""
    if found is None or not math.isfinite(found.value):
        return DASH
    return (f"{number(found.value, digits)} "
            f"({number(found.low, digits)} to {number(found.high, digits)})")


def extent(values: Iterable[float], digits: int = 2) -> str:
    """Return the least and the largest of some numbers, one number if they read the same."""
    found = list(values)
    low, high = number(min(found), digits), number(max(found), digits)
    return low if low == high else f"{low} to {high}"


def listed(names: Iterable[str]) -> str:
    """Return names separated by commas, or ``none``."""
    return ", ".join(names) or "none"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fold(title: str, text: str) -> str:
    """Return a text that a click unfolds."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


@dataclass(frozen=True)
class Section:
    """A claim with what was run, the figures and the verdict.

    Attributes:
        title: The claim.
        ran: What was run, a sentence or two.
        rule: How a case is judged.
        body: Tables and lines; empty if nothing was measured.
        verdicts: Case (``model/domain``, or a model) to verdict.
        missing: Case, and why it was not measured or which command measures it.
    """

    title: str
    ran: str
    rule: str
    body: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    missing: Sequence[tuple[str, str]] = ()

    @property
    def verdict(self) -> str:
        """The verdict on the claim, or that it was not measured."""
        return overall(self.verdicts.values()) if self.verdicts else ABSENT

    def counts(self) -> dict[str, int]:
        """Return how many cases have each verdict."""
        found = Counter(self.verdicts.values())
        return {word: found[word] for word in ("confirmed", "refuted", "undecided")}

    def markdown(self, place: int) -> str:
        """Return the claim's page under its number."""
        head = f"# {place}. {self.title}\n\n**Verdict: {self.verdict}**"
        if self.verdicts:
            counted = ", ".join(f"{count} {word}" for word, count in self.counts().items()
                                if count)
            head += f" ({counted} of {len(self.verdicts)})"
        else:
            head += " in this run"
        absent: dict[str, list[str]] = {}
        for case, reason in self.missing:
            absent.setdefault(reason, []).append(case)
        parts = [f"{head}.", f"{self.ran} *Rule: {self.rule}*", self.body,
                 "\n".join(f"* {listed(cases)}: {reason}." for reason, cases in absent.items()),
                 "[All claims, and how to read a verdict](../findings.md)"]
        return "\n\n".join(part for part in parts if part) + "\n"
