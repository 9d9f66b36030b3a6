"""The claims of the Painters papers: how a denoising run goes, and what a Gaussian says of it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from flows.report.findings.evidence import Evidence
from flows.report.findings.related.rules import (
    DIMENSIONS,
    EXPLAINED,
    RANKS,
    RESIDUAL,
    SAVED,
    beats,
    explains,
    saves,
)
from flows.report.findings.reports import Report
from flows.report.findings.text import (
    DASH,
    Section,
    ends,
    fold,
    interval,
    listed,
    number,
    span,
    table,
)
from flows.report.findings.verdicts import Verdict, overall, placed
from unseen_core.judging.metrics import Interval

__all__ = ["explained", "outlines", "perturbs", "rotates", "skips"]

_STAGE = "trajectory"
_JUMPS = {"law": "closed form", "mean": "mean alone", "none": "noise put at the level"}


def rotates(evidence: Evidence) -> Section:
    """Return "trajectories are rotations in few dimensions"."""
    found, missing = evidence.reported(_STAGE, "dimensions", "figures")
    verdicts: dict[str, Verdict] = {}
    rows, sides = [], []
    for model, report in found.items():
        inner = _inner(report)
        worst = {name: ends(inner.loc[inner[name].idxmax()], name)
                 for name in ("rotation", "rotation_predicted", "plane", "plane_predicted")}
        axes = {what: interval(part["dimension"])
                for what, part in report.content["dimensions"].items()}
        verdicts[model] = overall([placed(worst["rotation"], most=RESIDUAL),
                                   placed(axes["states"], most=DIMENSIONS)])
        rows.append([model, *(span(x, 3) for x in worst.values()),
                     *(f"{span(axes[what], 1)}; {number(axes[f'{what}_predicted'].value, 1)}"
                       for what in ("states", "differences", "noise")), verdicts[model]])
        for side in report.content["domains"]:
            if f"rotation_{side}" in inner:
                off = [ends(inner.loc[inner[f"{name}_{side}"].idxmax()], f"{name}_{side}")
                       for name in ("rotation", "plane")]
                sides.append([model, side, *(span(x, 3) for x in off)])
    settings = [report.content["settings"] for report in found.values()]
    body = "" if not rows else table(
        ["", "off the rotation", "the same, Gaussian", "off the plane", "the same, Gaussian",
         "dimension of states; Gaussian", "of steps", "of predicted noise", "verdict"], rows)
    body += "\n\n" + fold("the same of images carried up", table(
        ["", "images", "off the rotation", "off the plane"], sides))
    return Section(
        "Trajectories are rotations in few dimensions",
        f"{listed(str(x['seeds']) for x in settings)} runs from noise with every state kept. The "
        "rotation is a x₀ + s x_T, drawn by the last and the first state; the residual is the "
        "squared distance to it over the squared length of the state, at the worst level. The "
        "dimension is how many axes explain 99.9 % of a run's variance. Behind the semicolon, and "
        "as \"Gaussian\", the closed form's run from the same noise. In brackets the band of 5 to "
        "95 % of the runs.",
        f"the band of the worst residual must lie below {RESIDUAL} and that of the states' "
        f"dimension below {DIMENSIONS:.0f}; refuted if one lies above.",
        body + evidence.picture(_STAGE, "Runs of the network and of a Gaussian")
        if rows else "", verdicts, missing)


def outlines(evidence: Evidence) -> Section:
    """Return "outline first, details later"."""
    found, missing = evidence.reported(_STAGE, "emergence")
    verdicts: dict[str, Verdict] = {}
    rows, modes = [], []
    for model, report in found.items():
        order = report.content["emergence"]
        ranks = _ranks(order["all"])
        verdicts[model] = placed(ranks, least=RANKS)
        single = order["single_modes"]
        rows.append([model, str(order["all"]["count"]), span(ranks),
                     number(order["all"]["mean_gap"], 0), number(single["mean_gap"], 0),
                     f"{number(100 * order['all']['predicted_inside'], 0)} %", verdicts[model]])
        for _, row in report.tables["emergence"].iterrows():
            last = int(row["mode"] + row["modes"] - 1)
            name = str(int(row["mode"])) + (f" to {last}" if last > row["mode"] else "")
            measured = Interval(*(float(row[key]) for key in ("measured", "low", "high")))
            modes.append([model, name, number(row["variance"]), number(row["predicted"], 0),
                          span(measured, 0)])
    body = "" if not rows else table(
        ["", "groups of modes", "rank correlation (95 %)", "measured - predicted level, mean",
         "the same, the leading modes", "prediction inside the interval", "verdict"], rows)
    body += "\n\n" + fold("level at which each group of modes emerges", table(
        ["", "modes", "variance", "predicted", "measured (95 %)"], modes))
    body += ("\n\nThe predicted levels advise on the mixing step: what emerges above it is decided "
             "by the start state, what emerges below it by the network.")
    return Section(
        "Outline first, details later",
        "A principal mode of the seen domain emerges at the level below which the predicted "
        "images hold half of its final energy. The closed form puts it where the noise is as "
        "strong as the mode. Rank correlation over groups of modes, bootstrapped over the groups.",
        f"the interval of the rank correlation must lie above {RANKS}; refuted if it lies below. "
        "The levels themselves are shown, not judged.",
        body + evidence.picture("strip", "Predicted images from noise to image, the closed form "
                                "below each run") if rows else "", verdicts, missing)


def perturbs(evidence: Evidence) -> Section:
    """Return "early changes move content, late ones details"."""
    found, missing = evidence.reported(_STAGE, "gains")
    verdicts: dict[str, Verdict] = {}
    rows, full = [], []
    for model, report in found.items():
        gains, agreement = report.tables["gains"], report.content["gains"]
        ranks = _ranks(agreement)
        leading = gains[gains["direction"] == gains["direction"].iloc[0]].sort_values("level")
        late, early = (ends(leading.iloc[place], "distance") for place in (0, -1))
        verdicts[model] = overall([beats(late, early), placed(ranks, least=RANKS)])
        ratios = agreement["median_ratio"]
        rows.append([model, f"{span(early, 3)} @{int(leading['level'].iloc[-1])}",
                     f"{span(late, 3)} @{int(leading['level'].iloc[0])}", span(ranks),
                     listed(f"{name} {number(x)}" for name, x in ratios.items()),
                     f"{number(100 * agreement['predicted_inside'], 0)} %", verdicts[model]])
        full += [[model, str(int(row["level"])), row["direction"], number(row["predicted"]),
                  span(ends(row, "measured")), span(ends(row, "response")),
                  span(ends(row, "distance"), 3)] for _, row in gains.iterrows()]
    body = "" if not rows else table(
        ["", "distance after an early kick", "after a late kick",
         "rank correlation of gains with the prediction (95 %)", "median gain / predicted",
         "prediction inside the band", "verdict"], rows)
    body += "\n\n" + fold("every level and direction", table(
        ["", "level", "direction", "predicted gain", "gain", "whole response",
         "perceptual distance"], full))
    return Section(
        "Early changes move content, late ones details",
        "States are kicked along principal modes of the seen domain and the run goes on. The gain "
        "is how much of the kick the image has along that mode, predicted by the closed form; the "
        "distance is perceptual, in units of that between images. The early kick is the one at "
        "the noisiest level, both along the largest mode; in brackets the band of 5 to 95 % of "
        "the runs.",
        "after the early kick the distance must be larger, with both bands, and the rank "
        f"correlation's interval must lie above {RANKS}; refuted if either is the other way "
        "round. The size of the gains is shown, not judged.",
        body if rows else "", verdicts, missing)


def explained(evidence: Evidence) -> Section:
    """Return "a Gaussian model explains the denoiser at high noise"."""
    found, missing = evidence.reported(_STAGE, "emergence", "figures")
    verdicts: dict[str, Verdict] = {}
    rows, full = [], []
    for model, report in found.items():
        inner, first = _inner(report), float(report.content["emergence"]["first"])
        judged, against = [], {"mean": [], "delta": []}
        for _, row in inner.iterrows():
            models = {name: ends(row, f"ev_clean_{name}") for name in ("gaussian", *against)}
            for name, outcomes in against.items():
                outcomes.append(beats(models[name], models["gaussian"]))
            if row["level"] > first:
                judged.append(explains(models["gaussian"], models["mean"]))
            full.append([model, str(int(row["level"])), *(span(x, 3) for x in models.values()),
                         number(row["ev_noise_gaussian"], 3)])
        verdicts[model] = overall(judged)
        lowest = inner.loc[inner["ev_clean_gaussian"].idxmin()]
        counts = (f"{sum(x == 'confirmed' for x in outcomes)} of {len(outcomes)}"
                  for outcomes in against.values())
        rows.append([model, number(first, 0),
                     f"{sum(x == 'confirmed' for x in judged)} of {len(judged)}", *counts,
                     f"{span(ends(lowest, 'ev_clean_gaussian'), 3)} @{int(lowest['level'])}",
                     number(lowest["ev_noise_gaussian"], 3), verdicts[model]])
    body = "" if not rows else table(
        ["", "high noise is above level", "levels there that confirm",
         "levels where it beats the mean", "levels where it beats the stored images",
         "least explained of the predicted image", "of the predicted noise there", "verdict"],
        rows)
    body += "\n\n" + fold("per level", table(
        ["", "level", "Gaussian", "mean only", "stored images", "predicted noise, Gaussian"], full))
    return Section(
        "A Gaussian model explains the denoiser at high noise",
        "Explained variance of the network's predicted images, for noised images of the seen "
        "domain, by the optimal denoiser of three models of that domain: a Gaussian, its mean "
        "alone, and its stored images (the delta mixture, which remembers them). The predicted "
        "noise is explained by anything at high noise, so it is not a test. High noise is above "
        "the level at which the first mode is predicted to emerge. Intervals over images.",
        f"at every level of high noise the Gaussian's interval must lie above {EXPLAINED} and "
        "above that of the mean; refuted if it lies below one of them.",
        body if rows else "", verdicts, missing)


def skips(evidence: Evidence) -> Section:
    """Return "the first steps can be skipped"."""
    found, missing = evidence.reported("steer", "teleport")
    verdicts: dict[str, Verdict] = {}
    rows, full = [], []
    for model, report in found.items():
        made = report.tables["teleport"].sort_values("saved")
        law = made[(made["jump"] == "law") & (made["saved"] > 0)]
        verdicts[model] = saves([(float(row["saved_share"]), bool(row["changed"]))
                                 for _, row in law.iterrows()])
        near = law[law["saved_share"] >= SAVED]
        crude = made[(made["jump"] != "law") & made["changed"]]
        rows.append([model, number(report.content["teleport"]["unchanged_share"]),
                     DASH if near.empty else span(ends(near.iloc[0], "kernel_difference"), 4),
                     f"{int(made['n'].iloc[0])}",
                     listed(f"{_JUMPS[row['jump']]} at {number(row['saved_share'])}"
                            for _, row in crude.iterrows()), verdicts[model]])
        full += [[model, _JUMPS[row["jump"]], str(int(row["saved"])), str(int(row["calls"])),
                  str(int(row["level"])), number(row["relative_error"], 3),
                  span(ends(row, "kernel"), 3), span(ends(row, "kernel_difference"), 4),
                  "yes" if row["changed"] else "no"] for _, row in made.iterrows()]
    body = "" if not rows else table(
        ["", "largest share of calls saved without a significant change",
         f"difference at the first share from {SAVED} (95 %)", "images a run",
         "cruder jumps that change the images", "verdict"], rows)
    body += "\n\n" + fold("every jump", table(
        ["", "jump", "calls saved", "calls left", "lands at level", "median relative error",
         "kernel distance (95 %)", "its difference to the whole run (95 %)", "significant"], full))
    return Section(
        "The first steps can be skipped (teleportation)",
        "Images of the seen domain from the last level; the first calls are replaced by the closed "
        "form of the Gaussian law. The difference of the kernel distance to held-out images is "
        "taken between the same noise with and without the jump. Cruder jumps, by the mean alone "
        "or by nothing, show what the law brings. No significant change does not prove equality: "
        "what is smaller than the interval goes unseen.",
        f"no share up to the first one of at least {SAVED} may change the distance (an interval "
        "of the difference without 0); refuted if one does.",
        body + evidence.picture("steer", "Calls saved, colours set, and what noise misses")
        if rows else "", verdicts, missing)


def _ranks(agreement: Mapping[str, Any]) -> Interval:
    """Return the rank correlation, not a number where there were too few pairs."""
    nothing = dict.fromkeys(("value", "low", "high"))
    return interval(agreement.get("rank_correlation", nothing))


def _inner(report: Report) -> pd.DataFrame:
    """Return the rows of levels between image and noise, noisiest first."""
    levels = report.tables["levels"]
    inner = levels[(levels["level"] > 0) & (levels["level"] < levels["level"].max())]
    return inner.sort_values("level", ascending=False)
