"""The claims of the related works on tables by hand, whose verdict is known."""

import copy
import re
from dataclasses import replace

import pandas as pd
import pytest
from workspace import MODEL, OTHER, distances, parameters

from flows.report.findings import pages
from flows.report.findings.evidence import Evidence
from flows.report.findings.related import RELATED
from flows.report.findings.related.applications import anonymises, augments, enhances
from flows.report.findings.related.boomerang import keeps, loses
from flows.report.findings.related.leak import colours, imitates, misses
from flows.report.findings.related.painters import explained, outlines, perturbs, rotates, skips
from flows.report.findings.related.style import fails, tunes
from flows.report.findings.reports import Report
from flows.settings.params import Params

CASE = f"{MODEL}/{OTHER}"
KERNEL = "kd_projections"
SAMPLERS = {"leak": {"sampler": "signal-leak"}, "boomerang": {"sampler": "boomerang"},
            "boomerang-ode": {"sampler": "boomerang", "eta": 0.0},
            "style-noise": {"sampler": "style-noise"},
            "tuned": {"sampler": "noise", "network": "white/10", "levels": [1000]}}


def wide(name, value, half=0.02):
    """Return a figure's three columns."""
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def reports():
    """Return reports in which every claim holds."""
    ranks = {"value": 0.9, "low": 0.8, "high": 1.0}
    agreement = {"count": 9, "mean_gap": 5.0, "predicted_inside": 0.5, "rank_correlation": ranks,
                 "median_ratio": {"mode 0": 1.0}}
    axes = {name: {"dimension": {"value": 3.0, "low": 2.0, "high": 4.0}}
            for what in ("states", "differences", "noise") for name in (what, f"{what}_predicted")}
    levels = [{"level": level, "ev_noise_gaussian": 0.999,
               **wide("ev_clean_gaussian", 0.96, 0.01), **wide("ev_clean_mean", 0.5),
               **wide("ev_clean_delta", 0.9), **{key: value for name in (
                   "rotation", "rotation_predicted", "plane", "plane_predicted", "rotation_seen",
                   "plane_seen") for key, value in wide(name, 0.02, 0.01).items()}}
              for level in (0, 300, 700, 1000)]
    emergence = [{"mode": 0, "modes": 1, "variance": 9.0, "predicted": 600.0, "measured": 610.0,
                  "low": 590.0, "high": 630.0}]
    gains = [{"level": level, "direction": "mode 0", "predicted": 1.0, **wide("measured", 1.0),
              **wide("response", 1.0), **wide("distance", level / 1000)} for level in (100, 900)]
    jump = {"level": 700, "calls": 7, "n": 50, "relative_error": 0.01, **wide("kernel", 0.0)}
    jumps = [{**jump, "jump": "law", "saved": saved, "saved_share": saved / 10, "changed": False,
              **wide("kernel_difference", 0.001)} for saved in (0, 3)]
    colour = [{"control": name, "level": 300, "channel": "all", **wide("slope", 0.99),
               "predicted_slope": 0.98, **wide("r2", 0.98, 0.01), "predicted_r2": 0.98,
               "span": 0.8, **wide("kernel", 0.5)} for name in ("colour", "gradient")]
    control = {"best_level": 300, "highest_good_level": 300}
    spread = {"level": 300, **wide("sd_ratio", 0.2), "predicted_sd_ratio": 0.21, "shift": 0.1,
              "predicted_shift": 0.1, "sd_real": 0.3}
    hidden = [{"domain": OTHER, "fraction": fraction, "level": 300, **wide("top1", top1),
               "top1_chance": 0.01, "verified": 0.1, **wide("in_target", 0.8),
               **wide("kernel", 0.3), "utility": 0.7, "utility_sd": 0.01, "moved_rms": 0.2,
               "moved_rms_predicted": 0.2} for fraction, top1 in ((0.0, 1.0), (0.3, 0.2))]
    arm = {"domain": OTHER, "labels_a_class": 5, "copies": 2, "seeds": 3, "held_out": 40,
           "accuracy": 0.8, "sd": 0.01}
    arms = [{**arm, "arm": "none", **wide("gain", 0.0, 0.0)},
            {**arm, "arm": "boomerang 0.2", **wide("gain", 0.05)}]
    chosen = {"domain": OTHER, "factor": 2, "fraction": 0.1, "passes": 1, "bicubic": 1.0,
              **wide("perceptual_gain", -0.1)}
    enlarged = {**chosen, "perceptual": 0.9, "perceptual_bicubic": 1.0, "psnr": 20.0,
                "psnr_bicubic": 21.0, "kernel": 0.1, "kernel_bicubic": 0.2,
                **wide("kernel_gain", -0.1)}
    frames = {"trajectory": {"levels": levels, "emergence": emergence, "gains": gains},
              "steer": {"teleport": jumps, "colour": colour},
              "applications": {"anonymise": hidden, "augment": arms, "enhance": [enlarged]}}
    content = {
        "trajectory": {"settings": {"seeds": 4}, "domains": {"seen": {}}, "dimensions": axes,
                       "figures": {"rotation_max": 0.02}, "gains": agreement,
                       "emergence": {"first": 600.0, "all": agreement, "single_modes": agreement}},
        "steer": {"teleport": {"unchanged_share": 0.3}, "spread": [spread],
                  "controls": {"colour": control, "gradient": control}},
        "applications": {"anonymise": hidden, "augment": arms, "enhance": [enlarged],
                         "verdicts": {"anonymise": "this is no privacy guarantee",
                                      "enhance": [chosen]}}}
    return {stage: (content[stage], frames[stage]) for stage in content}


def cell(sampler, distance, *, level=200, half=0.05):
    """Return a row of compare.csv."""
    return {"model": MODEL, "domain": OTHER, "level": level, "sampler": sampler, "n": 4,
            "in_target": 1.0, "novelty": 1.0, "copies": 0.0, "copies_held_out": 0.01,
            **distances(KERNEL, distance, distance - half, distance + half)}


def trained(noise, distance):
    """Return a row of training.csv."""
    return {"model": MODEL, "domain": OTHER, "noise": noise, "images": 20, "steps": 100,
            "batch": 16, "learning_rate": 1e-4, "seconds": 12.0, **wide("forgetting", 1.5),
            **distances(KERNEL, distance, distance - 0.02, distance + 0.02),
            "forgetting_untuned": 0.125}


def rows():
    """Return cells in the expected order."""
    return [cell("noise", 4.0), cell("boomerang", 3.0), cell("boomerang-ode", 2.0),
            cell("leak", 2.0), cell("prior-isotropic", 1.9), cell("reconstruction", 0.0),
            cell("style-noise", 3.5)]


def evidence(cells=(), found=None, training=None):
    """Return evidence of cells and reports; a floor is always there."""
    params = parameters()
    params["samplers"] = params["samplers"] | SAMPLERS
    table = pd.DataFrame([{**cell("real", 0.0, level=0), "novelty": 0.0, "copies": 1.0}, *cells])
    made = {stage: {MODEL: Report(content, {name: pd.DataFrame(frame)
                                            for name, frame in frames.items()})}
            for stage, (content, frames) in (found or {}).items()}
    return Evidence(Params.model_validate(params), table, None, {}, reports=made,
                    training=None if training is None else pd.DataFrame(training))


CLAIMS = {
    rotates: ("trajectory", 1, ("levels", 1), wide("rotation", 0.31), "0.310"),
    outlines: ("trajectory", 0, ("emergence", "all", "rank_correlation"),
               {"value": 0.17, "low": 0.0, "high": 0.3}, "0.17 (0.00 to 0.30)"),
    perturbs: ("trajectory", 1, ("gains", 0), wide("distance", 1.77), "1.770"),
    explained: ("trajectory", 1, ("levels", 2), wide("ev_clean_gaussian", 0.61), "0.610"),
    skips: ("steer", 1, ("teleport", 1), {"changed": True, **wide("kernel_difference", 0.4321)},
            "0.4321"),
    colours: ("steer", 1, ("colour", 0), wide("r2", 0.77), "0.770"),
    misses: ("steer", 0, ("spread", 0), wide("sd_ratio", 1.23), "1.23"),
    anonymises: ("applications", 1, ("anonymise", 1), wide("top1", 0.67), "0.67"),
    augments: ("applications", 1, ("augment", 1), wide("gain", -0.077), "-0.077"),
    enhances: ("applications", 0, ("verdicts", "enhance", 0), wide("perceptual_gain", 0.321),
               "0.321"),
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_claim_that_holds_is_confirmed_and_a_planted_fault_refutes_it(claim):
    stage, part, keys, fault, text = CLAIMS[claim]
    good = reports()
    before = claim(evidence(found=good))
    assert (before.verdict, before.missing) == ("confirmed", [])
    bad = copy.deepcopy(good)
    place = bad[stage][part]
    for key in keys:
        place = place[key]
    place.update(fault)
    after = claim(evidence(found=bad))
    assert after.verdict == "refuted"
    assert text in after.body and text not in before.body


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
@pytest.mark.parametrize("found", [None, {stage: ({"model": MODEL}, {}) for stage in (
    "trajectory", "steer", "applications")}])
def test_what_was_not_measured_is_said_with_its_command(claim, found):
    section = claim(evidence(found=found))
    assert (section.verdict, section.body) == ("not measured", "")
    assert f"`python -m flows run {CLAIMS[claim][0]}`" in section.markdown(1)


def test_every_application_report_says_that_it_is_no_privacy_guarantee():
    assert "This is no privacy guarantee." in anonymises(evidence(found=reports())).body


def test_a_leak_restores_the_spread_that_slope_and_residual_tell():
    # Slope 0.6 with R² 0.75 on amplitudes of variance 0.8² / 3, where the domain has 0.3².
    made = reports()
    made["steer"][1]["colour"][0] |= wide("slope", 0.6) | wide("r2", 0.75)
    expected = (0.36 + 0.36 * 0.64 / 3 * (1 / 0.75 - 1) / 0.09) ** 0.5
    assert f"| {expected:.2f} | refuted |" in misses(evidence(found=made)).body


ORDERED = {
    imitates: ("leak", 5.0), loses: ("boomerang", 1.0), keeps: ("noise", 0.5),
    fails: ("style-noise", 0.0),
}


@pytest.mark.parametrize("claim", ORDERED, ids=lambda claim: claim.__name__)
def test_a_claim_about_cells_follows_their_distances(claim):
    sampler, distance = ORDERED[claim]
    assert claim(evidence(rows())).verdict == "confirmed"
    moved = [cell(sampler, distance) if row["sampler"] == sampler else row for row in rows()]
    section = claim(evidence(moved))
    assert section.verdict == "refuted" and f"{distance:.3f}" in section.body
    absent = claim(evidence([row for row in rows() if row["sampler"] == "noise"]))
    assert absent.verdict == "not measured"
    assert "presets/related.yaml" in absent.markdown(1)


def test_a_violated_order_names_the_cells():
    body = keeps(evidence([cell("boomerang", 1.0), cell("leak", 2.0)])).body
    assert f"| {CASE} | 200 | 2 | boomerang@200 nearer than leak@200 | refuted |" in body


@pytest.mark.parametrize(("style", "expected"), [(0.1, "confirmed"), (0.31, "undecided"),
                                                 (0.9, "refuted")])
def test_style_noise_meets_white_noise_at_equal_budgets(style, expected):
    made = [trained("style", style), trained("white", 0.3), {**trained("white", 0.0), "steps": 50}]
    section = tunes(evidence(rows(), training=made))
    assert section.verdict == expected
    assert section.body.count(CASE) == 1
    assert "12 / 12" in section.body and "1.50 (1.48 to 1.52)" in section.body
    assert "Training took 12 seconds" in section.body


def test_without_a_pair_of_equal_budget_nothing_is_judged():
    section = tunes(evidence(rows(), training=[trained("style", 0.1)]))
    assert section.verdict == "not measured" and "presets/finetune.yaml" in section.markdown(1)


def test_a_fine_tuned_network_is_never_the_best_frozen_cell():
    found = evidence([cell("leak", 1.0), cell("tuned", 0.1, level=1000)])
    assert found.best(CASE)["sampler"] == "leak"


def test_the_index_has_a_second_part_with_its_own_verdicts():
    made = replace(evidence(rows(), reports()), pictures={"steer": ("steer.png", MODEL)})
    written = pages(made)
    first, _, second = written["findings.md"].partition("\n## The four related works\n")
    for number in ("2303.02490", "2412.09726", "2309.15842", "2210.12100"):
        assert f"https://arxiv.org/abs/{number}" in second
    overview = second.partition("\n## ")[0]
    titles = [claim(made).title for claim in RELATED]
    linked = re.findall(r"^\| [0-9]+ \| \[(.+)\]\((.+)\) \|", overview, re.M)
    assert [title for title, _ in linked] == titles
    assert all(title not in first for title in titles)
    for place, (title, name) in enumerate(linked, 13):
        assert written[name].startswith(f"# {place}. {title}\n")
    assert "](steer.png)" in written["findings/17-skips.md"]
