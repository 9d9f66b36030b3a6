"""The claims of the signal-leak paper: a leak sets colours, restores their spread, and a style."""

import math

import pandas as pd

from flows.report.findings.evidence import Evidence
from flows.report.findings.related.cells import ASK, cell_text, nearest_of, starts_of
from flows.report.findings.related.rules import LINEAR, beats, spreads
from flows.report.findings.text import DASH, Section, ends, extent, fold, number, span, table
from flows.report.findings.verdicts import BAND, Verdict, duel, overall, placed
from unseen_core.starts import Geometric, Noise, Prior, SignalLeak

__all__ = ["colours", "imitates", "misses"]

_STAGE = "steer"
_COLOUR = "colour"


def colours(evidence: Evidence) -> Section:
    """Return "a leak sets colours"."""
    found, missing = evidence.reported(_STAGE, "controls")
    verdicts: dict[str, Verdict] = {}
    rows, full = [], []
    for model, report in found.items():
        for name, control in report.content["controls"].items():
            made = _all_channels(report.tables[_COLOUR], name)
            best = made.loc[control["best_level"]]
            verdict = placed(ends(best, "r2"), least=LINEAR)
            if name == _COLOUR:
                verdicts[model] = verdict
            near = sum(row["slope_low"] <= row["predicted_slope"] <= row["slope_high"]
                       for _, row in made.iterrows())
            rows.append([model, name, *_at(made, control["best_level"]),
                         *_at(made, control["highest_good_level"]), f"{near} of {len(made)}",
                         verdict])
            full += [[model, name, str(level), span(ends(row, "slope")),
                      number(row["predicted_slope"]), span(ends(row, "r2"), 3),
                      number(row["predicted_r2"], 3), span(ends(row, "kernel"), 3)]
                     for level, row in made.iterrows()]
    head = ["slope (95 %); predicted", "R² (95 %)", "kernel distance (95 %)"]
    body = "" if not rows else table(
        ["", "control", "best level", *head, f"highest level with R² from {LINEAR}", *head,
         "levels with the predicted slope inside the interval", "verdict"], rows)
    body += "\n\n" + fold("every level, all channels together", table(
        ["", "control", "level", "slope (95 %)", "predicted", "R² (95 %)", "predicted",
         "kernel distance (95 %)"], full))
    return Section(
        "A leak sets colours",
        "Channel means (or gradients across the image) are set at random in a leak drawn of the "
        "seen domain, noised to a level and denoised; the outputs' are regressed on what was set, "
        "all channels together. The closed form predicts a slope of √κ. The kernel distance to "
        "held-out images says whether the outputs still look like the domain: a low level hides "
        "little of the leak, so a good control there is mere copying of it, and the highest good "
        "level says more.",
        f"the interval of R² for colours at the best level must lie above {LINEAR}; refuted if it "
        "lies below.", body if rows else "", verdicts, missing)


def misses(evidence: Evidence) -> Section:
    """Return "pure noise misses the spread of colours, and a leak restores it"."""
    found, missing = evidence.reported(_STAGE, "spread", "controls")
    verdicts: dict[str, Verdict] = {}
    rows, full = [], []
    for model, report in found.items():
        set_to = _all_channels(report.tables[_COLOUR], _COLOUR)
        judged, near, levels = [], 0, report.content["spread"]
        for row in levels:
            ratio = ends(row, "sd_ratio")
            restored = _restored(set_to.loc[row["level"]], row["sd_real"])
            near += ratio.low <= row["predicted_sd_ratio"] <= ratio.high
            counts = row["predicted_sd_ratio"] < BAND[0]
            if counts:
                judged.append(spreads(ratio, restored, BAND))
            full.append([model, str(row["level"]), span(ratio), number(row["predicted_sd_ratio"]),
                         number(row["shift"]), number(row["predicted_shift"]), number(restored),
                         judged[-1] if counts else DASH])
        verdicts[model] = overall(judged)
        rows.append([model, str(len(judged)), extent(row["sd_ratio"] for row in levels),
                     extent(row["predicted_sd_ratio"] for row in levels),
                     f"{near} of {len(levels)}", verdicts[model]])
    body = "" if not rows else table(
        ["", "levels judged", "spread from noise / domain's", "predicted",
         "levels with the prediction inside the interval", "verdict"], rows)
    body += "\n\n" + fold("per level", table(
        ["", "level", "spread from noise / domain's (95 %)", "predicted", "shift of the mean",
         "predicted", "spread with a leak / domain's", "verdict"], full))
    return Section(
        "Pure noise misses the spread of colours, and a leak restores it",
        "Images from N(0, I) put at a level: standard deviation of their channel means over that "
        "of held-out images. The spread with a leak follows from the slope and the R² of the "
        "control above, for set colours that spread as the domain's do; it has no interval.",
        "at every level where the closed form predicts a ratio below "
        f"{BAND[0]}, the interval from noise must lie below it, and the ratio with a leak within "
        f"{BAND[0]} to {BAND[1]}; refuted if one lies outside.",
        body if rows else "", verdicts, missing)


def imitates(evidence: Evidence) -> Section:
    """Return "a leak of a few images gives the unseen domain without inversion"."""
    leaks = [name for name in starts_of(evidence, SignalLeak) if not _coloured(evidence, name)]
    others = {"noise": starts_of(evidence, Noise), "Gaussian fit": starts_of(evidence, Prior),
              "geometric": starts_of(evidence, Geometric)}
    verdicts: dict[str, Verdict] = {}
    rows, missing = [], []
    for case in evidence.cases:
        ours = nearest_of(evidence, case, leaks)
        rivals = {kind: nearest_of(evidence, case, names) for kind, names in others.items()}
        noise, fit = rivals["noise"], rivals["Gaussian fit"]
        if ours is None or noise is None or fit is None:
            missing.append((case, ASK))
            continue
        mine = evidence.distance(ours)
        outcome = duel(mine, evidence.distance(fit))
        verdicts[case] = overall([beats(mine, evidence.distance(noise)),
                                  "refuted" if outcome == "loses" else "confirmed"])
        rows.append([case, cell_text(evidence, ours), *(cell_text(evidence, rival)
                                                       for rival in rivals.values()),
                     outcome, verdicts[case]])
    body = table(["", "closest leak", *(f"closest, {kind}" for kind in others),
                  "leak against the Gaussian fit", "verdict"], rows)
    return Section(
        "A leak of a few images gives the unseen domain without inversion",
        f"{evidence.shown} to held-out images with its 95 % interval, then novelty and share in "
        "the target domain, at each kind's closest level. A leak is a law of the clean fit images, "
        "noised; the Gaussian fit is one of their inverted latents; geometric cells start from "
        "the latents themselves.",
        "the closest leak must be nearer than the closest noise and no farther than the closest "
        "Gaussian fit, beyond chance; refuted if it is farther than one of them, undecided if it "
        "ties with noise.", body if rows else "", verdicts, missing)


def _all_channels(colour: pd.DataFrame, control: str) -> pd.DataFrame:
    """Return the rows of a control by level, all channels together."""
    rows = colour[(colour["control"] == control) & (colour["channel"].astype(str) == "all")]
    return rows.sort_values("level").set_index("level")


def _at(made: pd.DataFrame, level: int | None) -> list[str]:
    """Return the cells of a table about one level, dashes where there is none."""
    if level is None:
        return [DASH] * 4
    row = made.loc[level]
    return [str(level), f"{span(ends(row, 'slope'))}; {number(row['predicted_slope'])}",
            span(ends(row, "r2"), 3), span(ends(row, "kernel"), 3)]


def _restored(row: pd.Series, real: float) -> float:
    """Return the spread of outputs over the domain's, for set colours that spread as it does.

    Amplitudes were uniform within plus and minus ``span``. The slope passes on their share of the
    variance, and what the regression leaves does not depend on them.
    """
    passed = float(row["slope"]) ** 2
    left = passed * float(row["span"]) ** 2 / 3 * (1 / float(row["r2"]) - 1)
    return math.sqrt(passed + left / real**2)


def _coloured(evidence: Evidence, name: str) -> bool:
    """Say whether a leak has colours of its own."""
    return bool(getattr(evidence.built[name], "color", ()))
