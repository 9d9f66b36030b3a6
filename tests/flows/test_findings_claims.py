"""Each claim of the findings on tables by hand, whose verdict is known."""

import copy

import pandas as pd
import pytest
from workspace import MODEL, OTHER, distances, parameters

from flows.report.findings.evidence import Evidence
from flows.report.findings.front import opening, rivals
from flows.report.findings.images import copies, farther, generates, selects
from flows.report.findings.latents import apart, closed_form, geometry, normal
from flows.report.findings.network import interpolates, reconstructs, tolerates, untouched
from flows.settings.params import Params

CASE = f"{MODEL}/{OTHER}"
KERNEL = "kd_projections"


def share(value, half=0.03):
    """Return a share with its interval as an artifact has it."""
    return {"value": value, "low": value - half, "high": value + half}


def cell(sampler, distance, *, level=200, domain=OTHER, half=0.1, **more):
    """Return a row of compare.csv; ghosts only if given."""
    row = {"model": MODEL, "domain": domain, "level": level, "sampler": sampler, "n": 4,
           "in_target": 1.0, "novelty": 1.0, "copies": 0.0, "copies_held_out": 0.01} | more
    return row | distances(KERNEL, distance, distance - half, distance + half)


def haunted(value):
    """Return ghost columns."""
    return {"ghosts": value, "ghosts_low": value - 0.05, "ghosts_high": value + 0.05}


def evidence(rows=(), analyses=None, selection=None):
    """Return evidence of rows; a floor is always there."""
    params = parameters()
    params["samplers"] = params["samplers"] | {
        "corrected": {"sampler": "geometric", "proposal": "isotropic"}}
    domains = dict.fromkeys([row["domain"] for row in rows] or [OTHER])
    floor = [cell("real", 0.0, level=0, domain=domain, novelty=0.0, copies=1.0)
             for domain in domains]
    return Evidence(Params.model_validate(params), pd.DataFrame([*floor, *rows]), selection,
                    analyses or {})


@pytest.mark.parametrize(("ours", "theirs", "expected"), [
    (cell("geometric", 0.1), cell("pixel-blend", 0.5, level=0), "wins"),
    (cell("geometric", 0.1), cell("pixel-blend", 0.2, level=0), "ties"),
    (cell("geometric", 0.5), cell("pixel-blend", 0.1, level=0), "loses"),
    (cell("geometric", 0.1, **haunted(0.5)), cell("pixel-blend", 0.5, level=0, **haunted(0.5)),
     "wins"),
    (cell("geometric", 0.1, **haunted(0.9)), cell("pixel-blend", 0.5, level=0, **haunted(0.5)),
     "ghosts"),
    (cell("geometric", 0.1, copies=0.5), cell("pixel-blend", 0.5, level=0), "none"),
    (cell("geometric", 0.1, novelty=0.5), cell("pixel-blend", 0.5, level=0), "none"),
    (cell("noise", 0.1), cell("pixel-blend", 0.5, level=0), "none"),
    (cell("reconstruction", 0.1), cell("pixel-blend", 0.5, level=0), "none"),
])
def test_the_best_latent_cell_meets_the_model_free_one(ours, theirs, expected):
    made = evidence([ours, theirs])
    assert rivals(made, CASE).outcome == expected
    assert f"on **{int(expected == 'wins')} of 1 domains**" in opening(made)
    assert ("Ghosts were not measured" in opening(made)) == ("ghosts" not in ours)


def test_the_rival_is_the_closest_at_least_as_new_or_else_the_newest():
    ours = cell("geometric", 0.5, novelty=1.2)
    near, new = (cell("pixel-blend", 0.1, level=0, novelty=1.0),
                 cell("pixel-gaussian", 0.9, level=0, novelty=1.3))
    pair = rivals(evidence([ours, near, new]), CASE)
    assert (pair.theirs["sampler"], pair.as_new, pair.outcome) == ("pixel-gaussian", True, "wins")
    made = evidence([ours, near, {**new, "novelty": 1.1}])
    pair = rivals(made, CASE)
    assert (pair.theirs["sampler"], pair.as_new) == ("pixel-gaussian", False)
    assert f"On {OTHER} no model-free cell is as new" in opening(made)


@pytest.mark.parametrize(("rows", "expected"), [
    ([cell("corrected", 0.05)], "confirmed"),
    ([cell("corrected", 0.15)], "undecided"),
    ([cell("corrected", 0.5)], "refuted"),
    ([cell("corrected", 0.05, in_target=0.2)], "refuted"),
    ([cell("corrected", 0.5), cell("geometric", 0.0)], "refuted"),  # a blend is no Gaussian fit
    ([cell("geometric", 0.0)], "not measured"),
])
def test_a_gaussian_fit_with_geometry_is_held_to_the_floor(rows, expected):
    assert generates(evidence(rows)).verdict == expected


def test_the_nearest_cell_is_that_of_one_half_and_its_distance_that_to_the_other():
    near = cell("geometric", 0.7) | {f"{KERNEL}_first": 0.1}
    far = cell("slerp", 0.3) | {f"{KERNEL}_first": 0.2}
    made = evidence([near, far])
    best = made.best(CASE)
    assert best["sampler"] == "geometric" and made.distance(best).value == 0.7


def test_the_fit_with_geometry_is_set_against_the_same_fit_without():
    rows = [cell("corrected", 0.1), cell("prior-isotropic", 0.9), cell("corrected", 0.9, level=100),
            cell("prior-isotropic", 0.1, level=100)]
    assert "closer with it in 1, farther in 1, and within chance in 0 of 2" in generates(
        evidence(rows)).body


def test_copies_are_judged_on_the_closest_cell_whatever_its_novelty():
    def shares(value):
        return {"copies": value, "copies_low": max(value - 0.05, 0), "copies_high": value + 0.05,
                "copies_nominal": 0.02}

    rows = [cell("slerp", 0.1, novelty=0.1, **shares(0.5)), cell("geometric", 0.3, **shares(0.0))]
    section = copies(evidence(rows))
    assert section.verdict == "refuted"
    assert "slerp@200 | 0.50 (0.45 to 0.55) | 0.020" in section.body
    assert "1 of 2: slerp" in section.body
    assert copies(evidence(rows[1:])).verdict == "confirmed"
    assert copies(evidence([cell("slerp", 0.1)])).verdict == "not measured"


def choice(**changes):
    """Return a line of selection.csv."""
    return {"model": MODEL, "domain": OTHER, "level": 200, "sampler": "slerp", "confidence": 0.75,
            **distances(KERNEL, 0.2, 0.1, 0.3), "best_level": 100,
            "best_sampler": "geometric", f"best_{KERNEL}_second": 0.15, "difference": 0.05,
            "within_10_percent": False, "within_chance": True} | changes


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, "undecided"), ({"within_10_percent": True}, "confirmed"),
    ({"within_chance": False}, "refuted"),
    ({"level": None, "sampler": None, "within_chance": False, **distances(KERNEL, None)},
     "refuted"),
    ({"best_level": None}, "not measured"),
])
def test_a_choice_is_held_to_the_best_candidate(changes, expected):
    section = selects(evidence([cell("slerp", 0.2)], selection=pd.DataFrame([choice(**changes)])))
    assert section.verdict == expected
    if not changes:
        assert "slerp@200 | 0.75 | 0.200 (0.100 to 0.300) | geometric@100 | 0.150" in section.body
        assert "within 10 % of the best candidate on 0, and within chance of it on 1, of 1" in (
            section.body)


@pytest.mark.parametrize(("order", "expected"), [
    (range(6), "refuted"), (range(5, -1, -1), "confirmed"), (range(2), "not measured")])
def test_farther_domains_are_ranked(order, expected):
    rows = [cell("geometric", 1.0 + k, domain=f"d{k}", half=0.01) for k in range(len(order))]
    gaps = {f"{MODEL}/d{k}": {"levels": {"100": {}}, "gap": share(1.0 + place, 0.01)}
            for k, place in enumerate(order)}
    section = farther(evidence(rows, gaps))
    assert section.verdict == expected
    assert ("not enough domains: 2" in section.markdown(1)) == (len(order) == 2)


def analysis():
    """Return an analysis.json of one level."""
    apart_by = {"ratio": 20.0, "threshold": 5.0,
                "measured": {name: share(0.96) for name in ("centroid", "logistic", "svm")}}
    sides = {name: {"mean": 1.0, "sd": 0.1} for name in ("radius", "pair_distance", "origin_angle",
                                                         "third_angle")}
    walk = {"in_target": [0.9] * 3, "low": [0.7] * 3, "high": [1.0] * 3}
    trip = {"psnr": 50.0, "relative": 0.01, "level": 100}
    level = {
        "gaussianity": {
            "norm": {"mean": 10.0, "sd": 1.0, "gaussian_mean": 10.0, "gaussian_sd": 1.0},
            "projections": {"rejected": 0.05, "rejected_bh": 0.0},
            "components": {"rejected_bh": 0.0}, "count": 200,
            "effective_rank": {"debiased": 90.0}, "coordinates": {"kurtosis": {"median": 0.0}}},
        "separability": apart_by, "separability bottleneck": apart_by,
        "geometry": dict.fromkeys(("unseen", "seen", "gaussian"), sides),
        "passed": {name: {"joint": share(value)} for name, value in (
            ("held-out latents", 0.95), ("noise", 0.05), ("seen latents", 0.05))},
        "prior_gap": {"mean": {"offset": 1.0, "paired_noise": 1.0}, "trace_ratio": 1.0,
                      "bands": [{"ratio": 1.0, "sd": 0.01}],
                      "nats_per_dimension": {"gap": 0.0, "sd": 0.01}},
        "bandwidth": {"content": share(0.5), "target": share(0.5)},
    }
    return {"images": 200, "seen": 200, "levels": {"100": level}, "weights": "a" * 64,
            "own_samples": {"compared": 8, "identical": True},
            "gap": {"value": 1.0, "low": 0.9, "high": 1.1},
            "reconstruction": {side: [{**trip, "steps": 5, "calls": 5, "psnr": 30.0},
                                      {**trip, "steps": 8, "calls": 8}]
                               for side in ("unseen", "seen")},
            "walks": {"level": 100, "unseen to unseen, slerp": walk,
                      "unseen to unseen, shell": walk,
                      "seen to unseen, slerp": {**walk, "in_target": [0.0, 0.4, 1.0]}}}


CLAIMS = {
    reconstructs: (("reconstruction", "unseen", 1, "psnr"), 30.5, "refuted", "30.5"),
    normal: (("levels", "100", "gaussianity", "norm", "sd"), 0.5, "refuted", "0.50"),
    apart: (("levels", "100", "separability", "measured", "svm"), share(0.71), "refuted", "0.71"),
    geometry: (("levels", "100", "passed", "noise", "joint"), share(0.94), "refuted", "0.94"),
    closed_form: (("levels", "100", "prior_gap", "bands", 0, "ratio"), 0.42, "refuted", "0.42"),
    tolerates: (("levels", "100", "bandwidth", "content"), share(0.04), "refuted", "0.04"),
    interpolates: (("walks", "unseen to unseen, shell"),
                   {"in_target": [0.9, 0.1, 0.9], "low": [0.7, 0.0, 0.7], "high": [1.0, 0.3, 1.0]},
                   "refuted", "0.10 (0.00 to 0.30)"),
    untouched: (("own_samples", "identical"), False, "refuted", "0 of 1"),
}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_claim_that_holds_is_confirmed_and_a_planted_fault_refutes_it(claim):
    keys, value, verdict, text = CLAIMS[claim]
    good = analysis()
    before = claim(evidence(analyses={CASE: good}))
    assert (before.verdict, before.missing) == ("confirmed", [])
    bad = copy.deepcopy(good)
    place = bad
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    after = claim(evidence(analyses={CASE: bad}))
    assert after.verdict == verdict
    assert text in after.body and text not in before.body


def test_the_geometry_names_the_levels_at_which_noise_passes():
    bad = analysis()
    bad["levels"]["100"]["passed"]["noise"]["joint"] = share(0.94)
    body = geometry(evidence(analyses={CASE: bad})).body
    assert f"| {CASE} | 0.95 | 0.94 | 0.05 | 100 | none | refuted |" in body


@pytest.mark.parametrize("lost", [{}, {CASE: {"levels": {}, "images": 8}}])
def test_what_was_not_measured_is_said_with_its_command(lost):
    for claim in CLAIMS:
        section = claim(evidence(analyses=lost))
        assert (section.verdict, section.body) == ("not measured", "")
        assert "`python -m flows run analyze`" in section.markdown(1)
