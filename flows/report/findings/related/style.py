"""The claims of Diffusion in Style: style noise for fine-tuning, and what it costs without."""

import pandas as pd

from flows.report.findings.evidence import NOT_HERE, Evidence
from flows.report.findings.related.cells import ASK, cell_text, nearest_of, starts_of
from flows.report.findings.related.rules import beats
from flows.report.findings.text import Section, ends, extent, number, span, table
from flows.report.findings.verdicts import Verdict, at_floor, duel, overall
from unseen_core.starts import Noise, StyleNoise

__all__ = ["fails", "tunes"]

_TRAIN = (f"{NOT_HERE}; `python -m flows run --params presets/related.yaml --params "
          "presets/finetune.yaml` trains and draws")
_BUDGET = ["images", "steps", "batch", "learning_rate"]
_OPPOSITE: dict[Verdict, Verdict] = {"confirmed": "refuted", "refuted": "confirmed",
                                     "undecided": "undecided"}


def tunes(evidence: Evidence) -> Section:
    """Return "style noise fine-tunes better than white noise"."""
    verdicts: dict[str, Verdict] = {}
    rows, missing, seconds = [], [], []
    for case in evidence.cases:
        mine = _trained(evidence, case)
        best = evidence.best(case)
        judged = []
        for budget, pair in mine.groupby(_BUDGET):
            sides = {noise: pair[pair["noise"] == noise] for noise in ("style", "white")}
            if any(side.empty for side in sides.values()):
                continue
            style, white = (evidence.nearest(side) for side in sides.values())
            judged.append(beats(evidence.distance(style), evidence.distance(white)))
            seconds += [float(x["seconds"]) for x in (style, white) if pd.notna(x["seconds"])]
            rows.append([case, str(int(budget[0])), str(int(budget[1])),
                         *(span(evidence.distance(x), 3) for x in (style, white)), judged[-1],
                         " / ".join(number(x["seconds"], 0) for x in (style, white)),
                         *(span(ends(x, "forgetting")) for x in (style, white)),
                         number(style["forgetting_untuned"]), cell_text(evidence, best),
                         "none qualifies" if best is None else
                         duel(evidence.distance(best), evidence.distance(style))])
        if judged:
            verdicts[case] = overall(judged)
        else:
            missing.append((case, _TRAIN))
    body = "" if not rows else table(
        ["", "images", "steps", "style noise", "white noise", "style is nearer",
         "seconds of training, style / white", "forgetting, style", "forgetting, white",
         "before training", "best frozen cell", "frozen against style"], rows)
    if seconds:
        body += (f"\n\nTraining took {extent(seconds, 0)} seconds a network and domain; the frozen "
                 "cells need none.")
    return Section(
        "Style noise fine-tunes better than white noise",
        "Copies of the network trained further on the fit images, at equal images, steps, batch "
        f"and learning rate; {evidence.shown} to held-out images with its 95 % interval. Each "
        "network is trained once, and the chance of that is in no interval. Forgetting is the same "
        "distance of a network's own images to the seen domain. The best frozen cell is that of "
        "the first table, the best of many by the images that judge it here.",
        "at every budget style noise must be nearer, beyond chance; refuted if white noise is at "
        "one, undecided where they tie.",
        body + evidence.picture("training", "Distance over steps of training") if rows else "",
        verdicts, missing)


def fails(evidence: Evidence) -> Section:
    """Return "a frozen network fails from style noise"."""
    verdicts: dict[str, Verdict] = {}
    rows, missing = [], []
    for case in evidence.cases:
        style = nearest_of(evidence, case, starts_of(evidence, StyleNoise))
        noise = nearest_of(evidence, case, starts_of(evidence, Noise))
        floor = evidence.floor(case)
        if style is None or floor is None:
            missing.append((case, ASK))
            continue
        verdicts[case] = _OPPOSITE[at_floor(evidence.distance(style), evidence.distance(floor))]
        rows.append([case, cell_text(evidence, style), cell_text(evidence, noise),
                     span(evidence.distance(floor), 3), verdicts[case]])
    body = table(["", "style noise", "closest noise N(0, I)", "fit images (the floor)", "verdict"],
                 rows)
    return Section(
        "A frozen network fails from style noise",
        f"{evidence.shown} to held-out images with its 95 % interval, novelty, and share in the "
        "target domain. The frozen network takes style noise, which varies less, for noise of "
        "power 1: contrast should fall and the mean be driven too far.",
        "confirmed if its interval lies above that of the fit images, refuted if it is no farther "
        "than their upper end.", body if rows else "", verdicts, missing)


def _trained(evidence: Evidence, case: str) -> pd.DataFrame:
    """Return the cells of fine-tuned networks of a case."""
    found = evidence.training
    if found is None:
        return pd.DataFrame(columns=[*_BUDGET, "noise"])
    model, _, domain = case.partition("/")
    return found[(found["model"] == model) & (found["domain"] == domain)]
