"""The main comparison of the findings: is a blend of latents better than one of pixels?"""

from dataclasses import dataclass

import pandas as pd

from flows.report.findings.evidence import Evidence, place_of
from flows.report.findings.text import DASH, listed, number, span, table
from flows.report.findings.verdicts import ABSENT, Outcome, duel

__all__ = ["Rivals", "comparison", "opening", "rivals"]

_SAID = (
    "The best latent cell is the closest one in the target domain, new, and with no more copies "
    "than held-out images have; its rival is the closest cell made of the "
    "pixels themselves, without a network, that is at least as new. It wins (loses) if its whole "
    "interval lies below (above) the rival's; overlapping intervals are a tie. Ghosts are the "
    "mean probability that an image is two pictures laid over each other. Both cells were picked "
    "by one half of the held-out images; the distances here are to the other half.")
_WORDS = {"wins": "it does on", "ghosts": "it is closer, but with more ghosts, on",
          "ties": "they tie on", "loses": "it loses on", "none": "nothing can be compared on"}


@dataclass(frozen=True, eq=False)
class Rivals:
    """The best latent cell and the model-free one.

    Attributes:
        ours: The latent cell; None if no cell qualifies.
        theirs: The model-free cell; None if there is none.
        as_new: Whether that one is at least as new; if none is, it is the newest.
        distance: Outcome by kernel distance, None without either cell.
        ghosts: Outcome by ghosts, None where they were not measured.
    """

    ours: pd.Series | None
    theirs: pd.Series | None
    as_new: bool
    distance: Outcome | None
    ghosts: Outcome | None

    @property
    def outcome(self) -> str:
        """``wins``, ``ties``, ``loses``, ``ghosts`` for a win with more ghosts, or ``none``."""
        if self.distance == "wins" and self.ghosts == "loses":
            return "ghosts"
        return self.distance or "none"


def rivals(evidence: Evidence, case: str) -> Rivals:
    """Find and compare the two cells of a case."""
    ours = evidence.best(case)
    free = evidence.in_space(evidence.cases[case], "pixels")
    if ours is None or not len(free):
        return Rivals(ours, None, False, None, None)
    as_new = free[free["novelty"] >= ours["novelty"]]
    theirs = evidence.nearest(as_new) if len(as_new) else free.loc[free["novelty"].idxmax()]
    assert theirs is not None
    mine, other = (evidence.measured(row, "ghosts") for row in (ours, theirs))
    return Rivals(ours, theirs, bool(len(as_new)),
                  duel(evidence.distance(ours), evidence.distance(theirs)),
                  duel(mine, other) if mine and other else None)


def opening(evidence: Evidence) -> str:
    """Return what the findings open with: a sentence per model on where it wins, ties or loses."""
    lines = []
    for model in evidence.models:
        found = _pairs(evidence, model)
        outcomes = {key: [domain for domain, pair in found.items() if pair.outcome == key]
                    for key in _WORDS}
        rest = "; ".join(f"{words} {listed(outcomes[key])}" for key, words in _WORDS.items()
                         if outcomes[key])
        newest = [domain for domain, pair in found.items() if pair.theirs is not None
                  and not pair.as_new]
        if newest:
            rest += (f". On {listed(newest)} no model-free cell is as new, and the newest one "
                     "stands in")
        haunted = any(pair.ghosts is not None for pair in found.values())
        lines.append(f"With **{model}** the best cell made of latents beats the closest one that "
                     "needs no network and is as new"
                     f"{', and has no more ghosts,' if haunted else ''} on "
                     f"**{len(outcomes['wins'])} of {len(found)} domains**: {rest}."
                     + (" Ghosts were not measured in this run." if not haunted else ""))
    return "\n\n".join(lines)


def comparison(evidence: Evidence) -> str:
    """Return what the opening rests on: how the two cells were picked, the table, the picture."""
    rows = [_line(evidence, f"{model}/{domain}", pair) for model in evidence.models
            for domain, pair in _pairs(evidence, model).items()]
    head = ["cell", evidence.shown, "novelty", "ghosts"]
    shown = table(["", *(f"latent: {x}" for x in head), *(f"model-free: {x}" for x in head),
                   "the latent cell"], rows)
    return f"{_SAID}\n\n{shown}" + evidence.picture(
        "front", "Kernel distance against novelty, the model-free front dashed")


def _pairs(evidence: Evidence, model: str) -> dict[str, Rivals]:
    """Return the two cells of each domain of a model."""
    return {domain: rivals(evidence, case) for case in evidence.cases
            for name, _, domain in [case.partition("/")] if name == model}


def _line(evidence: Evidence, case: str, pair: Rivals) -> list[str]:
    """Return a line of the table."""
    cells = []
    for row in (pair.ours, pair.theirs):
        cells += [DASH] * 4 if row is None else [
            place_of(row), span(evidence.distance(row), 3), number(row["novelty"]),
            span(haunted) if (haunted := evidence.measured(row, "ghosts")) else ABSENT]
    if pair.distance is None:
        return [case, *cells, "none qualifies" if pair.ours is None else "no model-free cell"]
    word = {"wins": "**wins**"}.get(pair.distance, pair.distance)
    ghosts = {"wins": ", fewer ghosts", "ties": ", ghosts tie", "loses": ", more ghosts"}
    newer = "" if pair.as_new else "; rival less new"
    return [case, *cells, f"{word}{ghosts.get(str(pair.ghosts), '')}{newer}"]
