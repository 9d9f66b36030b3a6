"""The claims about generated images: what a Gaussian fit gives, copies, selection, far domains."""

import pandas as pd

from flows.report.findings.evidence import NOT_HERE, Evidence, place_of
from flows.report.findings.text import DASH, Section, interval, listed, number, span, table
from flows.report.findings.verdicts import Verdict, at_floor, copying, duel, selected
from unseen_core.errors import UnseenError
from unseen_core.judging.domain_gap import rank_relation
from unseen_core.starts import Prior
from unseen_core.starts.protocol import BLEND, CORRECTED

__all__ = ["copies", "farther", "generates", "selects"]

_FEWEST = 3  # domains that can be ranked


def generates(evidence: Evidence) -> Section:
    """Return "a Gaussian fit, corrected by geometry, gives new images"."""
    names = [name for name, section in evidence.params.samplers.items()
             if section.space == "latents" and section.network is None]
    kinds = {name: evidence.built[name].label for name in names}
    corrected, blends = ([name for name in names if kinds[name] == kind]
                         for kind in (CORRECTED, BLEND))
    verdicts: dict[str, Verdict] = {}
    reached: dict[str, list[str]] = {"confirmed": [], "undecided": [], "refuted": []}
    missing = []
    for case, rows in evidence.cases.items():
        floor = evidence.floor(case)
        judged = {}
        for kind, group in ((CORRECTED, corrected), (BLEND, blends)):
            best = evidence.nearest(evidence.qualified(rows[rows["sampler"].isin(group)]))
            judged[kind] = ("refuted" if best is None or floor is None else
                            at_floor(evidence.distance(best), evidence.distance(floor)))
        reached[judged[BLEND]].append(case)
        if floor is not None and rows["sampler"].isin(corrected).any():
            verdicts[case] = judged[CORRECTED]
        else:
            missing.append((case, f"{NOT_HERE}; list a sampler `geometric` with a prior as "
                            "proposal in params.yaml, then `python -m flows run`"))
    body = "\n\n".join(_closest(evidence, model, names, kinds) for model in evidence.models)
    body += f"\n\n{_with_and_without(evidence, corrected)}"
    body += ("\n\nBlends of a few latents, which are not a Gaussian fit, by the same rule: "
             f"confirmed on {listed(reached['confirmed'])}; "
             f"undecided on {listed(reached['undecided'])}; "
             f"refuted on {listed(reached['refuted'])}.")
    bounds = evidence.params.compare
    return Section(
        "A Gaussian fit, corrected by geometry, gives new images of the domain",
        f"{evidence.params.sample.count} images a cell; {evidence.shown} to held-out images at "
        "each sampler's closest level, with a 95 % bootstrap interval; bold where the cell is in "
        f"target (>= {bounds.in_target}), new (>= {bounds.novelty}) and no copy.",
        "confirmed if the closest such cell of a Gaussian fit with geometry is no farther than the "
        "upper end of the fit images' own interval, refuted if its interval lies above that or no "
        "cell qualifies.", body, verdicts, missing)


def _closest(evidence: Evidence, model: str, names: list[str], kinds: dict[str, str]) -> str:
    """Return a table of a model: samplers by domains."""
    mine = {case.partition("/")[2]: case for case in evidence.cases
            if case.partition("/")[0] == model}
    rows = [["fit images", "the floor", *(
        DASH if (floor := evidence.floor(case)) is None else span(evidence.distance(floor), 3)
        for case in mine.values())]]
    for name in names:
        cells = []
        for case in mine.values():
            table_of = evidence.cases[case]
            nearest = evidence.nearest(table_of[table_of["sampler"] == name])
            if nearest is None:
                cells.append(DASH)
                continue
            text = f"{span(evidence.distance(nearest), 3)} @{int(nearest['level'])}"
            good = nearest.name in evidence.qualified(table_of).index
            cells.append(f"**{text}**" if good else text)
        if any(cell != DASH for cell in cells):
            rows.append([name, kinds[name], *cells])
    return table([model, "kind", *mine], rows)


def _with_and_without(evidence: Evidence, corrected: list[str]) -> str:
    """Return whether the geometry brings the same Gaussian fit closer, at the same level."""
    outcomes: dict[str, list[str]] = {"wins": [], "ties": [], "loses": []}
    plain = {built.kind: name for name, built in evidence.built.items() if isinstance(built, Prior)
             and evidence.params.samplers[name].space == "latents"}
    for case, rows in evidence.cases.items():
        for _, row in rows[rows["sampler"].isin(corrected)].iterrows():
            kind = getattr(evidence.built[row["sampler"]], "proposal", None)
            twin = rows[(rows["sampler"] == plain.get(kind)) & (rows["level"] == row["level"])]
            if len(twin):
                result = duel(evidence.distance(row), evidence.distance(twin.iloc[0]))
                outcomes[result].append(f"{case} {place_of(row)}")
    if not any(outcomes.values()):
        return "No Gaussian fit was drawn with and without geometry at the same level."
    closer, same, farther_off = (len(outcomes[key]) for key in ("wins", "ties", "loses"))
    return (f"What the geometry adds: the same fit at the same level is closer with it in "
            f"{closer}, farther in {farther_off}, and within chance in {same} of "
            f"{closer + same + farther_off} cells"
            + (f" (closer: {listed(outcomes['wins'])})." if closer else "."))


def copies(evidence: Evidence) -> Section:
    """Return "the images are new, not copies"."""
    verdicts: dict[str, Verdict] = {}
    rows, missing = [], []
    for case in evidence.cases:
        cells = evidence.in_space(evidence.cases[case], "latents")
        nearest = evidence.nearest(cells)
        found = None if nearest is None else evidence.measured(nearest, "copies")
        if found is None or "copies_nominal" not in cells:
            missing.append((case, f"{NOT_HERE}; `python -m flows run` does it"))
            continue
        nominal = float(nearest["copies_nominal"])
        verdicts[case] = copying(found, nominal)
        over = cells[cells["copies_low"] > cells["copies_nominal"]]
        first = [nearest.get(key) for key in ("nearer_than_any", "nearer_than_any_pixels",
                                              "nearer_than_any_nominal")]
        rows.append([case, place_of(nearest), span(found), number(nominal, 3),
                     " / ".join(number(x) for x in first[:2]), number(first[2], 3),
                     f"{len(over)} of {len(cells)}" + (": " + listed(dict.fromkeys(over["sampler"]))
                                                         if len(over) else ""),
                     verdicts[case]])
    body = "" if not rows else table(
        ["", "closest latent cell", "copies (95 %)", "new real images", "nearer than any held-out: "
         "features / pixels", "new real images", "latent cells with clearly more copies",
         "verdict"], rows)
    return Section(
        "The images are new, not copies",
        "A copy is nearer to a fit image than 99 % of the held-out images are; beside it the "
        "share that new real images would have. The cell is the closest latent one whatever its "
        "novelty, since closeness is easily bought by copying.",
        "confirmed if its share of copies is no larger than that of new real images, refuted if "
        "its whole interval is larger.",
        body + evidence.picture("pairs", "The nearest images of every cell beside their fit image")
        + "\n\nEvery cell's nearest pairs are in `data/metrics/<model>/<domain>.png`."
        if rows else "", verdicts, missing)


def selects(evidence: Evidence) -> Section:
    """Return "the mixing step is found automatically"."""
    verdicts: dict[str, Verdict] = {}
    rows, near, missing, shown = [], [], [], evidence.shown
    if evidence.selection is None:
        missing += [(case, f"{NOT_HERE}; `python -m flows run` does it") for case in evidence.cases]
    else:
        for _, row in evidence.selection.iterrows():
            case = f"{row['model']}/{row['domain']}"
            if pd.isna(row["best_level"]):
                missing.append((case, "no candidate is new and in target, so none can be found"))
                continue
            # Where nothing was chosen, neither answer is true.
            verdicts[case] = selected(bool(row["within_10_percent"]), bool(row["within_chance"]))
            chosen = evidence.measured(row, shown)
            rows.append([case, "none" if pd.isna(row["level"]) else place_of(row),
                         number(row["confidence"]), span(chosen, 3),
                         f"{row['best_sampler']}@{int(row['best_level'])}",
                         number(row[f"best_{shown}"], 3), number(row["difference"], 3),
                         verdicts[case]])
            near.append(bool(row["within_chance"]))
    close = sum(verdict == "confirmed" for verdict in verdicts.values())
    body = "" if not rows else table(
        ["", "chosen by fit images", "confidence", shown, "best candidate by held-out images",
         shown, "difference", "verdict"], rows)
    body += (f"\n\nThe choice is within 10 % of the best candidate on {close}, and within chance "
             f"of it on {sum(near)}, of {len(rows)}. The "
             "best candidate is picked by one half of the held-out images; the other half judges."
             if rows else "")
    return Section(
        "The mixing step is found automatically",
        "Stage `select` compares each candidate's images with the fit images that are not their "
        "parents, and chooses level and sampler without any held-out image.",
        "confirmed if the chosen cell's distance is within 10 % of the best candidate's, undecided "
        "if only within its 95 % interval, refuted otherwise, and if nothing was chosen.",
        body + evidence.picture("selection", "The criterion over levels") if rows else "",
        verdicts, missing)


def farther(evidence: Evidence) -> Section:
    """Return "farther domains are easier"."""
    found, missing = evidence.analysed("gap")
    verdicts: dict[str, Verdict] = {}
    rows, lines = [], []
    for model in evidence.models:
        pairs = []
        for case, analysis in found.items():
            best = evidence.best(case)
            if case.partition("/")[0] == model and best is not None:
                pairs.append((interval(analysis["gap"]), evidence.distance(best)))
                rows.append([case, span(pairs[-1][0]), place_of(best), span(pairs[-1][1], 3)])
        if len(pairs) < _FEWEST:
            missing.append((model, f"not enough domains: {len(pairs)} with a distance to the seen "
                            f"one and a latent cell that qualifies, where {_FEWEST} are needed"))
            continue
        try:
            ranks = rank_relation(*map(list, zip(*pairs, strict=True)), larger_is_better=False,
                                  seed=evidence.params.seed)
        except UnseenError as error:
            missing.append((model, str(error)))
            continue
        verdicts[model] = ranks.verdict
        lines.append(f"{model}: rank correlation {span(ranks.spearman)} (Spearman; Kendall "
                     f"{span(ranks.kendall)}) over {len(pairs)} domains, positive if farther is "
                     f"better, p = {number(ranks.p_spearman, 3)}; the least p that so many domains "
                     f"can give is {number(ranks.smallest_p, 3)}: {ranks.verdict}.")
    body = "" if not rows else "\n\n".join([table(
        ["", "distance from the seen domain", "best latent cell", evidence.shown], rows), *lines])
    return Section(
        "Farther domains are easier",
        "Kernel distance of the fit images to the seen domain's images, against the kernel "
        "distance of the best latent cell to held-out images, smaller being better. The scale of "
        "that distance differs between domains, so this is a weak test.",
        "the permutation p-value of the rank correlation is below .05 and its interval lies on "
        "one side of 0.", body, verdicts, missing)
