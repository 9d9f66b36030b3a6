"""The claims about what the frozen network does: round trips, noise, paths, its own samples."""

from collections.abc import Mapping
from typing import Any

from flows.report.findings.evidence import Analysis, Evidence, levels_of
from flows.report.findings.text import DASH, Section, extent, fold, interval, number, span, table
from flows.report.findings.verdicts import (
    FAITHFUL,
    GAIN,
    MAJORITY,
    Verdict,
    overall,
    placed,
    represents,
    unharmed,
)
from unseen_core.judging.metrics import Interval

__all__ = ["interpolates", "reconstructs", "tolerates", "untouched"]

_CROSSING = "seen to unseen, slerp"


def reconstructs(evidence: Evidence) -> Section:
    """Return "any image is representable"."""
    found, missing = evidence.analysed("reconstruction")
    verdicts, brief, full, done = {}, [], [], set()
    for case, analysis in found.items():
        model = case.partition("/")[0]
        trips = {side: _by_level(rows) for side, rows in analysis["reconstruction"].items()}
        verdicts[case] = overall(represents([row["psnr"] for row in rows])
                                 for rows in trips["unseen"].values())
        last = {side: [rows[-1] for rows in levels.values()] for side, levels in trips.items()}
        brief.append([case, *(extent((row["psnr"] for row in last[side]), 1)
                              for side in ("unseen", "seen")),
                      extent((row["relative"] for row in last["unseen"]), 3), verdicts[case]])
        for side, levels in trips.items():
            label = case if side == "unseen" else f"{model}, seen"
            if label in done:  # The seen images are the same for every domain.
                continue
            done.add(label)
            for rows in zip(*levels.values(), strict=True):
                full.append([label, *(f"{number(row['psnr'], 1)} ({row['calls']})"
                                      for row in rows)])
    levels = [str(level) for level in next(iter(found.values()))["levels"]] if found else []
    body = table(["", "unseen, dB", "seen, dB", "unseen, relative error", "verdict"], brief)
    body += "\n\n" + fold("dB (network calls one way) at every level, by budget",
                          table(["", *(f"level {level}" for level in levels)], full))
    return Section(
        "Any image is representable",
        f"Up to {evidence.params.analyze.images} fit images, and as many of the seen domain, "
        "carried to every level and back; median over them of the peak signal-to-noise ratio, "
        "from the lowest to the highest over the levels, with the largest budget.",
        f"a level is confirmed from {FAITHFUL:.0f} dB with the largest budget, refuted if it stays "
        f"below and the last budget brought less than {GAIN:.0f} dB; all levels must be "
        "confirmed.", body if brief else "", verdicts, missing)


def _by_level(rows: list[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """Return the round trips of each level by increasing budget."""
    levels = sorted({row["level"] for row in rows})
    return {level: sorted((row for row in rows if row["level"] == level),
                          key=lambda row: row["steps"]) for level in levels}


def tolerates(evidence: Evidence) -> Section:
    """Return "inverted images bear fresh noise"."""
    found, missing = evidence.analysed("levels")
    etas = sorted(evidence.params.analyze.etas)
    least = next(eta for eta in etas if eta > 0)
    verdicts: dict[str, Verdict] = {}
    rows: dict[str, list[list[str]]] = {"content": [], "target": []}
    narrows: list[bool] = []
    for case, analysis in found.items():
        judged: list[Verdict] = []
        for sense, lines in rows.items():
            widths = [interval(part["bandwidth"][sense]) for _, part in levels_of(analysis)]
            found_here = [placed(width, least=least) for width in widths]
            lines.append([case, *(span(width) for width in widths), overall(found_here)])
            judged += found_here
            narrows.append(widths[-1].high < widths[0].low)
        verdicts[case] = overall(judged)
    levels = sorted({int(level) for analysis in found.values() for level in analysis["levels"]})
    head = ["", *(f"level {level}" for level in levels), "verdict"]
    body = ("Until nine tenths of the likeness to the original picture are left:\n\n"
            + table(head, rows["content"])
            + "\n\nUntil nine tenths of the images are still in the target domain:\n\n"
            + table(head, rows["target"])
            + f"\n\nFrom the lowest to the highest level the bandwidth narrows beyond chance in "
            f"{sum(narrows)} of {len(narrows)} lines.")
    return Section(
        "Inverted images bear fresh noise at every level (bandwidth)",
        f"The first {evidence.params.analyze.images} latents of a domain are denoised with "
        f"stochasticity η of {', '.join(map(str, etas))}; the bandwidth is the largest η at which "
        "an image keeps its content, with a 95 % bootstrap interval over the images. The paper "
        "reads it off by hand.",
        f"in both senses and at every level the interval must lie above the smallest η tried, "
        f"{least}; refuted if it lies below in one.", body if found else "", verdicts, missing)


def interpolates(evidence: Evidence) -> Section:
    """Return "paths between latents stay in the domain"."""
    found, missing = evidence.analysed("walks")
    verdicts, rows = {}, []
    for case, analysis in found.items():
        walks = {name: [Interval(*x) for x in zip(walk["in_target"], walk["low"], walk["high"],
                                                  strict=True)]
                 for name, walk in analysis["walks"].items() if name != "level"}
        inside = {name: min(points, key=lambda x: x.value) for name, points in walks.items()
                  if name != _CROSSING}
        verdicts[case] = overall(placed(least, least=MAJORITY) for least in inside.values())
        over = next((i for i, x in enumerate(walks[_CROSSING]) if x.value > MAJORITY), None)
        place = DASH if over is None else number(over / (len(walks[_CROSSING]) - 1), 1)
        rows.append([case, str(analysis["walks"]["level"]), *map(span, inside.values()),
                     f"{number(walks[_CROSSING][0].value)} to "
                     f"{number(walks[_CROSSING][-1].value)}, passed at {place}", verdicts[case]])
        names = [name.replace("unseen to unseen, ", "least share, ") for name in inside]
    body = "" if not rows else table(
        ["", "level", *names, "seen to unseen: share at both ends, and the part of the way "
         f"where it passes {MAJORITY}", "verdict"], rows)
    return Section(
        "Paths between unseen latents stay in the domain",
        f"At most {evidence.params.analyze.paths} paths of each kind at one level, each point "
        "denoised: between unseen latents along the great circle about the origin (slerp) and on "
        "the shell about their mean; and from seen to unseen latents. A probe says which share "
        "is in the target domain; the interval is Wilson's, wide with so few paths.",
        f"on both kinds of path the interval of the least share must lie above {MAJORITY}; "
        "refuted if one lies below.",
        body + evidence.picture("walks", "One path of each kind") if rows else "",
        verdicts, missing)


def untouched(evidence: Evidence) -> Section:
    """Return "the seen domain is unharmed"."""
    found, missing = evidence.analysed("weights", "own_samples")
    verdicts: dict[str, Verdict] = {}
    rows = []
    for model in evidence.models:
        mine: list[Analysis] = [analysis for case, analysis in found.items()
                                if case.partition("/")[0] == model]
        if not mine:
            continue
        hashes = [str(analysis["weights"]) for analysis in mine]
        own = [analysis["own_samples"] for analysis in mine]
        verdicts[model] = unharmed(hashes, [bool(x["identical"]) for x in own])
        rows.append([model, listed_hashes(hashes), str(len(mine)),
                     extent((x["compared"] for x in own), 0),
                     f"{sum(bool(x['identical']) for x in own)} of {len(own)}", verdicts[model]])
    body = table(["model", "SHA-256 of its weights", "analyses", "own samples compared in each",
                  "identical in", "verdict"], rows)
    return Section(
        "The seen domain is unharmed",
        "The hash of the weights is taken in every analysis, and the network makes images of its "
        "own domain from the same noise before and after it. Nothing here ever writes to the "
        "network, so only a fault could change them.",
        "all hashes of a model are equal and all samples are bit for bit the same; refuted "
        "otherwise.",
        body if rows else "", verdicts, missing)


def listed_hashes(hashes: list[str]) -> str:
    """Return the beginnings of the different hashes."""
    return ", ".join(f"`{text[:12]}…`" for text in dict.fromkeys(hashes))
