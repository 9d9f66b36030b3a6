"""The claims about Boomerang's applications: anonymise, augment, enhance."""

import math
from collections.abc import Iterator

import pandas as pd

from flows.report.findings.evidence import Evidence, case_of
from flows.report.findings.related.rules import any_of
from flows.report.findings.text import DASH, Section, ends, fold, number, span, table
from flows.report.findings.verdicts import MAJORITY, Verdict, overall, placed
from unseen_core.judging.metrics import Interval

__all__ = ["anonymises", "augments", "enhances"]

_STAGE = "applications"


def anonymises(evidence: Evidence) -> Section:
    """Return "local samples are anonymous and still of use"."""
    found, missing = evidence.reported(_STAGE, "anonymise")
    verdicts: dict[str, Verdict] = {}
    rows, full, notices = [], [], []
    for model, report in found.items():
        notices.append(str(report.content["verdicts"]["anonymise"]))
        for domain, made in _groups(report.tables["anonymise"], "domain"):
            made = made.sort_values("fraction")
            judged = [overall([placed(ends(row, "top1"), most=MAJORITY),
                               placed(ends(row, "in_target"), least=MAJORITY)])
                      for _, row in made.iterrows()]
            case = case_of(model, domain)
            verdicts[case] = any_of(judged)
            least, most = (next(made[made["fraction"] > 0].iloc[[place]].iterrows())[1]
                           for place in (0, -1))
            rows.append([case, *(f"{number(row['fraction'])}: {span(ends(row, 'top1'))}"
                                 for row in (least, most)), number(most["top1_chance"], 3),
                         f"{number(most['fraction'])}: {span(ends(most, 'in_target'))}",
                         verdicts[case]])
            full += [[case, number(row["fraction"]), str(int(row["level"])),
                      span(ends(row, "top1")), number(row["verified"]),
                      span(ends(row, "in_target")), span(ends(row, "kernel"), 3), _utility(row),
                      number(row["moved_rms"], 3), number(row["moved_rms_predicted"], 3)]
                     for _, row in made.iterrows()]
    body = "" if not rows else table(
        ["", "re-identified at the least fraction (95 %)", "at the largest", "by chance",
         "in the domain at the largest", "verdict"], rows)
    body += "\n\n" + fold("every fraction of the noising", table(
        ["", "fraction", "level", "re-identified, top 1 (95 %)", "verified", "in the domain (95 %)",
         "kernel distance (95 %)", "accuracy of a classifier trained on it", "change, RMS",
         "predicted"], full))
    body += "\n\n" + " ".join(f"{text[:1].upper()}{text[1:]}." for text in dict.fromkeys(notices))
    body += evidence.picture(_STAGE, "Copies traced and still of use, labels saved, enlargement")
    return Section(
        "Local samples are anonymous and still of use",
        "Images are noised to a fraction of the process and denoised again. Re-identified is an "
        "output whose own source is the nearest of all sources; verified, one that a matcher takes "
        "for its source, at one false accept in a hundred. Fraction 0 is the originals.",
        f"at one fraction less than {MAJORITY} must be re-identified and more than {MAJORITY} be "
        "in the domain, with both intervals; refuted if no fraction can have both.",
        body if rows else "", verdicts, missing)


def augments(evidence: Evidence) -> Section:
    """Return "local samples augment a labelled set"."""
    found, missing = evidence.reported(_STAGE, "augment")
    verdicts: dict[str, Verdict] = {}
    rows, seeds = [], []
    for model, report in found.items():
        for domain, made in _groups(report.tables["augment"], "domain"):
            case = case_of(model, domain)
            ours = made[made["arm"].str.startswith("boomerang")]
            verdicts[case] = any_of(placed(ends(row, "gain"), least=math.nextafter(0, 1))
                                    for _, row in ours.iterrows())
            first = made.iloc[0]
            seeds.append(f"On {domain} each class has {int(first['labels_a_class'])} labelled "
                         f"images and each image {int(first['copies'])} copies; "
                         f"{int(first['seeds'])} seeds, {int(first['held_out'])} images to test.")
            rows += [[case, row["arm"], f"{number(row['accuracy'], 3)} ± {number(row['sd'], 3)}",
                      DASH if row["arm"] == "none" else span(ends(row, "gain"), 3)]
                     for _, row in made.iterrows()]
    body = "" if not rows else table(
        ["", "arm", "accuracy ± its spread over seeds", "gain over none (95 %)"], rows)
    body += "\n\n" + " ".join(dict.fromkeys(seeds))
    return Section(
        "Local samples augment a labelled set",
        "A small classifier is trained on few labels, with the originals alone, with shifts and "
        "turns (classical), with Boomerang's copies under their source's label, and with both. "
        "The gain is paired by seed, its interval Student's.",
        "with copies alone, at one fraction, the interval of the gain must lie above 0; refuted "
        "if at every fraction it lies below.", body if rows else "", verdicts, missing)


def enhances(evidence: Evidence) -> Section:
    """Return "local sampling enhances better than bicubic enlargement"."""
    found, missing = evidence.reported(_STAGE, "enhance")
    verdicts: dict[str, Verdict] = {}
    rows, full = [], []
    for model, report in found.items():
        chosen = pd.DataFrame(report.content["verdicts"]["enhance"])
        for domain, made in _groups(chosen, "domain"):
            case = case_of(model, domain)
            judged = []
            for _, row in made.iterrows():
                gain = ends(row, "perceptual_gain")
                judged.append(placed(gain, most=math.nextafter(0, -1)))
                rows.append([case, str(int(row["factor"])), number(row["fraction"]),
                             str(int(row["passes"])), number(row["bicubic"]), span(gain, 3),
                             judged[-1]])
            verdicts[case] = overall(judged)
        full += [[case_of(model, row["domain"]), str(int(row["factor"])), number(row["fraction"]),
                  str(int(row["passes"])), *_change(row, "perceptual", 2),
                  f"{number(row['psnr'], 1)} / {number(row['psnr_bicubic'], 1)}",
                  *_change(row, "kernel", 3)] for _, row in report.tables["enhance"].iterrows()]
    body = "" if not rows else table(
        ["", "factor", "fraction", "passes", "perceptual distance of bicubic",
         "change of it (95 %)", "verdict"], rows)
    body += "\n\n" + fold("every setting", table(
        ["", "factor", "fraction", "passes", "perceptual distance / bicubic", "change (95 %)",
         "PSNR, dB / bicubic", "kernel distance / bicubic", "change (95 %)"], full))
    return Section(
        "Local sampling enhances better than bicubic enlargement",
        "Images are made small, enlarged, noised a little and denoised. The perceptual distance to "
        "the original is set against that of bicubic enlargement; below 0 is better. Fraction and "
        "passes are chosen by one half of the images and judged by the other.",
        "for every factor the interval of the change must lie below 0; refuted if one lies above.",
        body if rows else "", verdicts, missing)


def _groups(made: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each value of a column, in the table's order."""
    for value in dict.fromkeys(made[column]):
        yield str(value), made[made[column] == value]


def _utility(row: pd.Series) -> str:
    """Return the accuracy of a classifier trained on outputs, a dash without labels."""
    if pd.isna(row["utility"]):
        return DASH
    return f"{number(row['utility'])} ± {number(row['utility_sd'])}"


def _change(row: pd.Series, name: str, digits: int) -> list[str]:
    """Return a distance beside bicubic enlargement's, and its change."""
    gain: Interval = ends(row, f"{name}_gain")
    return [f"{number(row[name], digits)} / {number(row[f'{name}_bicubic'], digits)}",
            span(gain, digits)]
