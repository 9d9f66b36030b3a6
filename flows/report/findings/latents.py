"""The claims about latents: their law, where they lie, and what their geometry tells."""

from flows.report.findings.evidence import Evidence, levels_of
from flows.report.findings.text import (
    Section,
    extent,
    fold,
    interval,
    listed,
    number,
    span,
    table,
)
from flows.report.findings.verdicts import (
    APART,
    BAND,
    EFFECT,
    EXCESS,
    LENGTHS,
    REJECTED,
    follows,
    gaussian,
    overall,
    placed,
    spread_ratio,
    tells,
)
from unseen_core.judging.metrics import Interval

__all__ = ["apart", "closed_form", "geometry", "normal"]

_EVERY_LEVEL = "A case is confirmed if every level is, refuted if one level is."


def normal(evidence: Evidence) -> Section:
    """Return "inverted latents are Gaussian"."""
    found, missing = evidence.analysed("levels")
    verdicts, brief, full = {}, [], []
    for case, analysis in found.items():
        judged, worst, ratios, ranks, tails = [], [], [], [], []
        for level, part in levels_of(analysis):
            law = part["gaussianity"]
            norm, tests, leading = law["norm"], law["projections"], law["components"]
            ratio = spread_ratio(norm["sd"], norm["gaussian_sd"], law["count"])
            worst.append(max(tests["rejected_bh"], leading["rejected_bh"]))
            ratios.append(ratio.value)
            ranks.append(law["effective_rank"]["debiased"])
            tails.append(law["coordinates"]["kurtosis"]["median"])
            judged.append(gaussian(worst[-1], ratio))
            full.append([case, str(level), number(tests["rejected"], 3),
                         number(tests["rejected_bh"], 3), number(leading["rejected_bh"], 3),
                         f"{number(norm['mean'], 1)} / {number(norm['gaussian_mean'], 1)}",
                         span(ratio), number(ranks[-1], 0), number(tails[-1]), judged[-1]])
        verdicts[case] = overall(judged)
        brief.append([case, number(max(worst), 3), extent(ratios), extent(ranks, 0),
                      extent(tails), verdicts[case]])
    body = table(["", "tests rejected (BH), worst level", "spread of lengths / Gaussian's",
                  "effective rank", "median kurtosis of a pixel (Gaussian: 0)", "verdict"], brief)
    body += "\n\n" + fold("per level", table(
        ["", "level", "projections rejected", "after BH", "components after BH",
         "mean length / Gaussian's", "spread of lengths / Gaussian's (95 %)", "effective rank",
         "median kurtosis", "verdict"], full))
    return Section(
        "Inverted latents are Gaussian",
        "Shapiro-Wilk on random projections and on principal components of the fit images' "
        "latents, rejections after Benjamini-Hochberg (BH); the lengths of the latents against "
        "those of a Gaussian with the same mean and covariance. Projections of a high-dimensional "
        "set look normal almost whatever its law, so the lengths and the pixels' kurtosis say "
        "more than they do.",
        f"refuted at a level if more than {REJECTED * 100:.0f} % of the tests are rejected or the "
        f"interval of the lengths' relative spread lies outside {LENGTHS[0]} to {LENGTHS[1]}, "
        f"confirmed if it lies inside. {_EVERY_LEVEL}", body if brief else "", verdicts, missing)


def apart(evidence: Evidence) -> Section:
    """Return "they lie apart from the model's own"."""
    found, missing = evidence.analysed("levels")
    verdicts, brief, full, agree = {}, [], [], []
    for case, analysis in found.items():
        judged, accuracies, deep, ratios, rules = [], [], [], [], []
        for level, part in levels_of(analysis):
            state, inner = part["separability"], part["separability bottleneck"]
            svm, logistic = (interval(state["measured"][name]) for name in ("svm", "logistic"))
            deeper = [interval(inner["measured"][name]) for name in ("svm", "logistic")]
            judged.append(placed(svm, least=APART))
            accuracies.append(svm.value)
            deep.append(deeper[0].value)
            ratios.append(state["ratio"])
            agree.append((state["ratio"] > state["threshold"], judged[-1] == "confirmed"))
            full.append([case, str(level),
                         f"{number(state['ratio'], 1)} / {number(state['threshold'], 1)}",
                         f"{number(inner['ratio'], 1)} / {number(inner['threshold'], 1)}",
                         span(svm), span(logistic), *(span(x) for x in deeper), judged[-1]])
            rules.append(state["threshold"])
        verdicts[case] = overall(judged)
        counts = analysis["images"], analysis["seen"]
        brief.append([case, extent(ratios, 1), extent(rules, 1), extent(accuracies), extent(deep),
                      number(max(counts) / sum(counts)), verdicts[case]])
    body = table(["", "centre distance / spread", "rule d^(1/4)", "accuracy of the SVM",
                  "the same at the bottleneck", "chance", "verdict"], brief)
    far = sum(rule for rule, _ in agree)
    body += (f"\n\nThe paper's rule, distance over spread above d^(1/4), calls {far} of "
             f"{len(agree)} levels apart; the SVM separates {sum(m for _, m in agree)}; the two "
             f"agree on {sum(a == b for a, b in agree)}.\n\n")
    body += fold("per level", table(
        ["", "level", "distance / rule", "at the bottleneck", "SVM (95 %)", "logistic (95 %)",
         "SVM, bottleneck", "logistic, bottleneck", "verdict"], full))
    return Section(
        "They lie apart from the model's own",
        "Latents of fit images against latents of images of the seen domain, at every level: "
        "distance of the centres over the spread per dimension, and the cross-validated accuracy "
        "of linear classifiers, on the states and on the network's bottleneck.",
        f"at a level the SVM's 95 % interval of accuracy on states must lie above {APART}; "
        f"refuted if it lies below. {_EVERY_LEVEL}", body if brief else "", verdicts, missing)


def geometry(evidence: Evidence) -> Section:
    """Return "the geometry tells the domain"."""
    found, missing = evidence.analysed("levels")
    verdicts, brief, lengths, rates, names = {}, [], [], [], []
    for case, analysis in found.items():
        judged, failed = [], {"noise": [], "seen latents": []}
        passed = {name: [] for name in ("held-out latents", *failed)}
        for level, part in levels_of(analysis):
            shares = {name: interval(rate["joint"]) for name, rate in part["passed"].items()}
            for name in passed:
                passed[name].append(shares[name].value)
            for name, levels in failed.items():
                judged.append(tells(shares["held-out latents"], shares[name]))
                if judged[-1] == "refuted":
                    levels.append(str(level))
            names += [name for name in shares if name not in names]
            lengths.append([case, str(level), *_sides(part["geometry"])])
            rates.append((case, level, shares))
        verdicts[case] = overall(judged)
        brief.append([case, *(extent(values) for values in passed.values()),
                      *(listed(levels) for levels in failed.values()), verdicts[case]])
    body = table(["", "held-out latents pass", "N(0, I) passes", "seen latents pass",
                  "levels where noise passes as often", "levels where seen latents do",
                  "verdict"], brief)
    body += ("\n\nWhere N(0, I) passes as often as the domain's own latents, these criteria do "
             "not tell the domain from noise there: they fix radius and direction of the mean, "
             "never the structure of an image.\n\n")
    order = sorted(names, key=lambda name: (name != "held-out latents", name))
    body += fold("share that passes all criteria, per level", table(
        ["", "level", *order],
        ([case, str(level), *(span(shares.get(name)) for name in order)]
         for case, level, shares in rates)))
    sides = table(["", "level", "radius", "pair distance", "angle at the origin (°)",
                   "angle at a third latent (°)"], lengths)
    body += "\n\n" + fold("geometry per level: unseen / seen / Gaussian of unseen moments", sides)
    return Section(
        "Radius, distances and angles tell the domain",
        "The envelope of radius, distances and angles is fitted to the fit images' latents; then "
        "latents that it has not seen, latents of the seen domain, N(0, I) and draws of the "
        "fitted priors are put to it. A half of the latents judges the other half "
        f"(fit.coverage {evidence.params.fit.coverage} is the share that should pass).",
        f"at a level noise and seen latents must pass less than {EFFECT} times as often as "
        "held-out latents, with both intervals; refuted if their interval overlaps that of "
        f"held-out latents. {_EVERY_LEVEL}", body if brief else "", verdicts, missing)


def _sides(rows: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return the statistics of unseen, seen and Gaussian latents, mean ± spread."""
    cells = []
    for name, digits in (("radius", 1), ("pair_distance", 1), ("origin_angle", 1),
                         ("third_angle", 1)):
        sides = (rows[side][name] for side in ("unseen", "seen", "gaussian"))
        cells.append(" / ".join(f"{number(x['mean'], digits)} ± {number(x['sd'], digits)}"
                                for x in sides))
    return cells


def closed_form(evidence: Evidence) -> Section:
    """Return "their law is that of noised images"."""
    found, missing = evidence.analysed("levels")
    verdicts, brief, full = {}, [], []
    for case, analysis in found.items():
        judged, traces, lowest, highest, shifts = [], [], [], [], []
        for level, part in levels_of(analysis):
            gap = part["prior_gap"]
            bands = [Interval(b["ratio"], b["ratio"] - EXCESS * b["sd"],
                              b["ratio"] + EXCESS * b["sd"]) for b in gap["bands"]]
            judged.append(follows(gap["trace_ratio"], bands))
            traces.append(gap["trace_ratio"])
            lowest.append(min(band.value for band in bands))
            highest.append(max(band.value for band in bands))
            shifts.append(gap["mean"]["offset"] / gap["mean"]["paired_noise"])
            nats = gap["nats_per_dimension"]
            full.append([case, str(level), number(traces[-1]),
                         " ".join(number(band.value) for band in bands), number(shifts[-1]),
                         f"{number(nats['gap'], 3)} ± {number(nats['sd'], 3)}", judged[-1]])
        verdicts[case] = overall(judged)
        brief.append([case, extent(traces), number(min(lowest)), number(max(highest)),
                      extent(shifts, 1), verdicts[case]])
    body = table(["", "total variance / closed form's", "least ratio of a band",
                  "largest ratio of a band", "offset of the mean / its noise", "verdict"], brief)
    body += "\n\n" + fold("per level; bands are octaves of frequency, lowest first", table(
        ["", "level", "total variance", "variance of each band", "offset of the mean / its noise",
         "held-out log-likelihood gained by fitting (nats per dimension)", "verdict"], full))
    return Section(
        "Their law is that of noised images",
        "The closed form a² Σ + s² I is exact for images with noise added. Inverted images are "
        "another thing; here their variance, in total and in octaves of frequency, and their mean "
        "are set against it. All ratios are 1, and the offset is about its noise, if it holds.",
        f"at a level total and every band (± {EXCESS} standard errors) must lie within {BAND[0]} "
        f"to {BAND[1]}; refuted if one lies outside. {_EVERY_LEVEL}",
        body if brief else "", verdicts, missing)
