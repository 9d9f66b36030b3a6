"""The claims about what local sampling keeps of an unseen image, beside every other start."""

from collections.abc import Mapping, Sequence

import pandas as pd

from flows.report.findings.evidence import Evidence, place_of
from flows.report.findings.related.cells import ASK, cell_text, starts_of
from flows.report.findings.related.rules import beats, in_order
from flows.report.findings.text import Section, fold, listed, table
from flows.report.findings.verdicts import Verdict, duel, overall
from unseen_core.starts import Boomerang, Reconstruction, StartSampler
from unseen_core.starts.protocol import KEEPS

__all__ = ["keeps", "loses"]


def loses(evidence: Evidence) -> Section:
    """Return "local sampling loses what the seen domain does not vary in"."""
    kinds = {"ancestral": _boomerangs(evidence, 1.0), "ODE": _boomerangs(evidence, 0.0),
             "inversion": starts_of(evidence, Reconstruction)}
    verdicts: dict[str, Verdict] = {}
    rows, missing = [], []
    for case, cells in evidence.cases.items():
        judged = []
        for level, here in _levels(cells):
            found = [evidence.nearest(here[here["sampler"].isin(names)])
                     for names in kinds.values()]
            distances = [evidence.distance(row) for row in found if row is not None]
            if len(distances) < len(kinds):
                continue
            ancestral, ode, inverted = distances
            outcome = duel(ode, ancestral)
            judged.append(overall([beats(inverted, ancestral), beats(inverted, ode),
                                   "refuted" if outcome == "loses" else "confirmed"]))
            rows.append([case, str(level), *(cell_text(evidence, row) for row in found), outcome,
                         judged[-1]])
        if judged:
            verdicts[case] = overall(judged)
        else:
            missing.append((case, ASK))
    body = table(["", "level", *kinds, "ODE against ancestral", "verdict"], rows)
    return Section(
        "Local sampling loses what the seen domain does not vary in",
        f"{evidence.shown} to held-out images with its 95 % interval, novelty, and share in the "
        "target domain, at every level where all three were tried. Noising and denoising an image "
        "should leave κ of its offset from the seen domain with fresh noise on the way down "
        "(ancestral), √κ without (ODE), and all of it after inversion, which is a copy and no new "
        "image.",
        "inversion must be nearer than both, beyond chance, and the ODE no farther than ancestral; "
        "refuted if one pair is the other way round. The two Boomerangs may tie.",
        body if rows else "", verdicts, missing)


def keeps(evidence: Evidence) -> Section:
    """Return "start states keep as much of the unseen domain as the closed form says"."""
    tiers = _tiers(evidence)
    verdicts: dict[str, Verdict] = {}
    rows, full, missing = [], [], []
    for case, cells in evidence.cases.items():
        chosen = _richest(cells, tiers)
        if chosen is None:
            missing.append((case, ASK))
            continue
        level, groups = chosen
        verdicts[case] = in_order([[evidence.distance(row) for _, row in group.iterrows()]
                                   for group in groups.values() if len(group)])
        wrong = _reversed(evidence, [*groups.values()])
        rows.append([case, str(level), str(sum(len(group) > 0 for group in groups.values())),
                     listed(wrong), verdicts[case]])
        full += [[case, tier, cell_text(evidence, row)] for tier, group in groups.items()
                 for _, row in group.sort_values(evidence.shown).iterrows()]
    body = table(["", "level", "kinds tried", "pairs against the order", "verdict"], rows)
    body += "\n\n" + fold("every cell, by what it should keep", table(
        ["", "should keep", f"{evidence.shown} (95 %), novelty, in target"], full))
    return Section(
        "Start states keep as much of the unseen domain as the closed form says",
        "At the level where most kinds of start were tried: noise keeps nothing, an ancestral "
        "Boomerang κ, its ODE and a signal leak √κ, a Gaussian fit of inverted latents their mean "
        "and variance, inversion everything. What is kept is judged by the kernel distance to "
        "held-out images. That distance also counts what a start never had: a leak and a fit know "
        "two moments of the domain, a noised image is one of its pictures, so a violation between "
        "these two is not an error of the closed form.",
        "distances must fall from kind to kind, beyond chance in at least one pair of cells and "
        "against it in none; refuted if one pair is the other way round.",
        body if rows else "", verdicts, missing)


def _boomerangs(evidence: Evidence, eta: float) -> list[str]:
    """Return the Boomerangs of one stochasticity."""
    return [name for name in starts_of(evidence, Boomerang) if _eta(evidence.built[name]) == eta]


def _eta(built: StartSampler) -> float:
    """Return the stochasticity of a sampler, 0 where it has none."""
    return float(getattr(built, "eta", 0.0))


def _tiers(evidence: Evidence) -> dict[str, list[str]]:
    """Return the samplers by what they should keep, in the order of KEEPS."""
    names = starts_of(evidence, StartSampler)
    return {tier: [name for name in names if evidence.built[name].keeps == tier]
            for tier in KEEPS}


def _levels(cells: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    """Return the rows of each level above the images, lowest first."""
    return [(int(str(level)), rows) for level, rows in cells[cells["level"] > 0].groupby("level")]


def _richest(
    cells: pd.DataFrame, tiers: Mapping[str, Sequence[str]]
) -> tuple[int, dict[str, pd.DataFrame]] | None:
    """Return the level with most tiers, the lowest of equal ones; None without related works."""
    best: tuple[int, dict[str, pd.DataFrame]] | None = None
    most = 0
    for level, here in _levels(cells):
        groups = {tier: here[here["sampler"].isin(names)] for tier, names in tiers.items()}
        count = sum(len(group) > 0 for group in groups.values())
        related = any(len(groups[tier]) for tier in KEEPS[1:3])
        if related and count > max(most, 1):
            best, most = (level, groups), count
    return best


def _reversed(evidence: Evidence, groups: Sequence[pd.DataFrame]) -> list[str]:
    """Return the pairs whose order is the other way round, beyond chance."""
    return [f"{place_of(keeps_less)} nearer than {place_of(keeps_more)}"
            for i, group in enumerate(groups) for _, keeps_less in group.iterrows()
            for later in groups[i + 1:] for _, keeps_more in later.iterrows()
            if duel(evidence.distance(keeps_less), evidence.distance(keeps_more)) == "wins"]
