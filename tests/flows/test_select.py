"""The stage ``select`` on planted images, and what held-out images say of its choice."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from workspace import DOMAIN, MODEL, OTHER, SAMPLERS, change, distances, parameters

from flows.dispatch import run_stage
from flows.report.choice import best_cells, judge_selections
from flows.report.summary import summarise_selections
from flows.settings.params import Params, load_params
from flows.settings.plan import Plan
from unseen_core.errors import UnseenError
from unseen_core.store import read_pictures, write_pictures

FIT, MADE = 60, 60
DIGITS = torch.from_numpy(load_digits().images * 15.9).to(torch.uint8).repeat_interleave(
    2, dim=1).repeat_interleave(2, dim=2)[:, None].repeat(1, 3, 1, 1)  # (1797, 3, 16, 16)
GENERATED = Path("data/generated", MODEL, DOMAIN)
SELECTION = Path("data/selection", MODEL)


def plant(cell, images):
    """Put images into a cell, the fit image i and its successor as the parents of image i."""
    file = GENERATED / f"{cell}.parquet"
    read_pictures(file)  # the stage did make such a cell
    write_pictures(file, images, pd.DataFrame({
        "id": [f"{cell}-{i}" for i in range(len(images))],
        "parents": [f"f{i % FIT},f{(i + 1) % FIT}" for i in range(len(images))]}))


def select():
    """Run the stage; return its JSON, its CSV by cell, and its plot."""
    run_stage("select", {"model": MODEL, "domain": DOMAIN})
    table = pd.read_csv(SELECTION / f"{DOMAIN}.csv")
    names = [f"L{level:04d}-{sampler}" for level, sampler
             in zip(table["level"], table["sampler"], strict=True)]
    return (json.loads((SELECTION / f"{DOMAIN}.json").read_text()), table.set_axis(names),
            (SELECTION / f"{DOMAIN}.png").read_bytes())


@pytest.fixture
def planted(done):
    """A domain of real digits; every cell of the blends holds noise.

    The bound on novelty is far from the 1 of new real images, so that it is no coin toss.
    """
    change(done, "select", "novelty", to=0.5)
    write_pictures(Path("data/source/domains", DOMAIN, "fit.parquet"), DIGITS[:FIT],
                   pd.DataFrame({"id": [f"f{i}" for i in range(FIT)]}))
    random = torch.Generator().manual_seed(0)
    for cell in ("L0100-slerp", "L0200-slerp", "L0100-geometric", "L0200-geometric"):
        plant(cell, torch.randint(256, (MADE, 3, 16, 16), generator=random, dtype=torch.uint8))
    return done


@pytest.mark.parametrize(("level", "other", "sampler"), [
    (100, 200, "slerp"), (200, 100, "slerp"), (100, 200, "geometric"), (200, 100, "geometric")])
def test_the_level_of_new_real_images_is_chosen(planted, level, other, sampler):
    fresh, copies = f"L{level:04d}-{sampler}", f"L{other:04d}-{sampler}"
    plant(fresh, DIGITS[FIT : FIT + MADE])
    plant(copies, DIGITS[torch.arange(MADE) % FIT])  # each is its own first parent
    report, table, plot = select()
    assert report["chosen"]["cell"] == fresh
    assert (report["chosen"]["level"], report["chosen"]["sampler"]) == (level, sampler)
    assert report["confidence"] > 0.95
    assert report["chosen"]["low"] < report["chosen"]["criterion"] < report["chosen"]["high"]
    assert report["candidates"] == len(table) == 4
    assert table.index[table["chosen"]].tolist() == [fresh]
    assert table.loc[copies, "novelty"] == 0
    assert not table.loc[copies, "admissible"]
    # Copies are no nearer to the other fit images than new real images are.
    noise = table.drop([copies, fresh])["criterion"]
    assert abs(table.loc[copies, "criterion"]) < 0.1 * noise.min()
    assert table.loc[fresh, "share"] == report["confidence"]
    assert plot.startswith(b"\x89PNG")
    before = {file.name: file.read_bytes() for file in SELECTION.iterdir()}
    for side in ("held_out", "rest"):
        Path("data/source/domains", DOMAIN, f"{side}.parquet").unlink(missing_ok=True)
    select()
    assert before == {file.name: file.read_bytes() for file in SELECTION.iterdir()}


def test_near_copies_of_the_parents_do_not_win(planted):
    bright = DIGITS[:MADE].clone()
    bright[:, :, 0, 0] += 8  # a corner that is dark in every digit
    plant("L0100-slerp", bright)
    report, table, _ = select()
    assert report["chosen"]["cell"] != "L0100-slerp"  # noise is left, and that at least is new
    assert table["criterion"].idxmin() == "L0100-slerp"
    assert 0 < table.loc["L0100-slerp", "novelty"] < 0.5


@pytest.mark.parametrize(("key", "threshold"), [("novelty", 1e6), ("diversity", 1e6)])
def test_no_admissible_cell_is_told_and_is_no_failure(planted, key, threshold, caplog):
    change(planted, "select", key, to=threshold)
    caplog.set_level(logging.WARNING, logger="unseen")
    report, table, plot = select()
    assert report["chosen"] is None and report["confidence"] == 0 and report["admissible"] == 0
    assert report["thresholds"][key] == threshold
    assert "no cell has novelty" in report["reason"]
    assert len(table) == 4 and not table["chosen"].any()
    assert plot.startswith(b"\x89PNG")
    assert [record.getMessage() for record in caplog.records] == [
        f"select: {MODEL}/{DOMAIN}: {report['reason']}"]


def test_no_candidate_at_all_is_told_and_is_no_failure(planted, caplog):
    file = Path("data/starts", MODEL, DOMAIN, "report.json")
    cells = json.loads(file.read_text())["cells"]
    file.write_text(json.dumps(
        {"cells": [row for row in cells if row["sampler"] in ("noise", "pixel-blend")]}))
    caplog.set_level(logging.WARNING, logger="unseen")
    report, table, plot = select()
    assert report["chosen"] is None and report["cells"] == [] and report["candidates"] == 0
    assert "add a sampler geometric" in report["reason"]
    assert table.empty and "criterion" in table
    assert plot.startswith(b"\x89PNG")
    assert len(caplog.records) == 1


def test_only_blends_of_named_parents_are_candidates():
    def cells(**samplers):
        return [cell.key for cell in Plan.of(
            Params.model_validate(parameters() | {"samplers": samplers})).candidates]

    assert cells(**SAMPLERS) == ["L0100-slerp", "L0200-slerp", "L0100-geometric",
                                 "L0200-geometric"]
    assert cells(a={"sampler": "bands", "levels": [200]}, b={"sampler": "geometric"}) == [
        "L0200-a", "L0100-b", "L0200-b"]
    assert cells(
        a={"sampler": "geometric", "proposal": "empirical"},
        b={"sampler": "slerp", "partner": "isotropic"},
        c={"sampler": "bands", "space": "pixels"},
    ) == []


def test_the_report_of_sample_names_the_candidates(done):
    cells = json.loads(Path("data/starts", MODEL, DOMAIN, "report.json").read_text())["cells"]
    assert [row["cell"] for row in cells if row["candidate"]] == [
        cell.key for cell in Plan.of(load_params()).candidates]
    assert {row["sampler"] for row in cells if row["repeats"]} == {"reconstruction"}


def test_parents_of_another_split_are_named(planted):
    plant("L0200-slerp", DIGITS[:MADE])
    fit = Path("data/source/domains", DOMAIN, "fit.parquet")
    write_pictures(fit, DIGITS[:FIT], pd.DataFrame({"id": [f"g{i}" for i in range(FIT)]}))
    with pytest.raises(UnseenError, match=r"L0100-slerp\.parquet: parent 'f0' is not among"):
        select()


def selection(domain, chosen, cells, confidence=0.5):
    return {"model": "m", "domain": domain, "confidence": confidence, "cells": cells,
            "chosen": chosen and {"cell": chosen}}


ROWS = [  # domain, level, sampler, kd, low, high, in_target, novelty, copies
    ("a", 0, "real", -0.5, -0.6, -0.4, 1.0, 0.0, 1.0),
    ("a", 300, "x", 0.20, 0.08, 0.30, 1.0, 1.0, 0.0),
    ("a", 500, "x", 0.10, 0.00, 0.20, 1.0, 1.1, 0.1),
    ("a", 300, "y", 0.01, 0.00, 0.20, 1.0, 1.0, 0.0),   # no candidate
    ("a", 500, "z", 0.02, 0.00, 0.20, 0.8, 1.0, 0.0),   # off target
    ("a", 700, "z", 0.03, 0.00, 0.20, 1.0, 0.8, 0.0),   # a copy
    ("b", 300, "x", -0.092, -0.20, 0.10, 1.0, 1.0, 0.0),
    ("b", 500, "x", -0.10, -0.20, 0.10, 1.0, 1.0, 0.0),
    ("c", 300, "x", 0.43, 0.42, 0.44, 1.0, 1.0, 0.2),
    ("c", 500, "x", 0.40, 0.39, 0.42, 1.0, 1.0, 0.0),
    ("d", 300, "x", 0.40, 0.30, 0.50, 0.1, 1.0, 0.0),
    ("e", 300, "x", 0.40, 0.30, 0.50, 1.0, 1.0, 0.0),
]


def judged():
    """Judge five selections on the small table."""
    table = pd.DataFrame([
        {"model": "m", "domain": domain, "level": level, "sampler": sampler, "in_target": inside,
         "novelty": new, "copies": copies, **distances("kd", value, low, high)}
        for domain, level, sampler, value, low, high, inside, new, copies in ROWS])
    params = Params.model_validate(parameters())
    assert (params.compare.in_target, params.compare.novelty) == (0.9, 0.9)
    both, one = ["L0300-x", "L0500-x"], ["L0300-x"]
    return judge_selections([
        selection("a", "L0300-x", [*both, "L0500-z", "L0700-z"], 0.25), selection("b", *both[:1],
        both), selection("c", "L0300-x", both), selection("d", "L0300-x", one),
        selection("e", None, one, 0.0)], table, "kd", params).set_index("domain")


def test_the_choice_is_set_beside_the_best_candidate():
    found = judged()
    a = found.loc["a"]
    assert (a["level"], a["sampler"], a["confidence"]) == (300, "x", 0.25)
    assert (a["kd_second"], a["kd_second_low"], a["kd_second_high"], a["novelty"], a["copies"]) == (
        0.2, 0.08, 0.3, 1.0, 0.0)
    assert (a["best_level"], a["best_sampler"], a["best_kd_second"], a["best_kd_second_low"],
            a["best_kd_second_high"]) == (500, "x", 0.1, 0.0, 0.2)
    assert a["ratio"] == pytest.approx(2) and a["difference"] == pytest.approx(0.1)
    assert not a["within_10_percent"] and a["within_chance"]  # 0.1 lies in (0.08, 0.30)
    # Below zero a ratio says nothing; 0.008 is 8 % of 0.10.
    assert pd.isna(found.loc["b", "ratio"])
    assert found.loc["b", "difference"] == pytest.approx(0.008)
    assert found.loc["b", "within_10_percent"] and found.loc["b", "within_chance"]
    # 0.03 is less than 10 % of 0.40, yet 0.40 lies below the interval.
    assert found.loc["c", "within_10_percent"] and not found.loc["c", "within_chance"]
    # No candidate qualifies, or none was chosen.
    assert pd.isna(found.loc["d", ["best_level", "best_kd_second", "difference"]]).all()
    assert found.loc["d", "kd_second"] == 0.4
    assert pd.isna(found.loc["e", ["level", "sampler", "kd_second", "confidence", "ratio"]]).all()
    assert found.loc["e", "best_kd_second"] == 0.4
    assert not found.loc[["d", "e"], ["within_10_percent", "within_chance"]].any(axis=None)


def test_a_cell_is_picked_by_one_half_of_the_held_out_images_and_reported_by_the_other():
    params = Params.model_validate(parameters())
    common = {"model": "m", "domain": "a", "n": 4, "in_target": 1.0, "novelty": 1.0, "copies": 0.0,
              "copies_held_out": 0.1}
    table = pd.DataFrame([
        common | {"level": level, "sampler": "slerp"} | distances("kd", second, 0.0, 1.0)
        | {"kd": 0.0, "kd_first": first}
        for level, first, second in ((100, 0.1, 0.7), (300, 0.2, 0.3))])
    found = judge_selections([selection("a", "L0300-slerp", ["L0100-slerp", "L0300-slerp"])],
                             table, "kd", params).iloc[0]
    assert (found["best_level"], found["best_kd_second"], found["kd_second"]) == (100, 0.7, 0.3)
    best = best_cells(params, Plan.of(params), table, "kd")["m/a"]
    assert (best["level"], best["kd_second"]) == (100, 0.7)


def test_the_summary_has_a_line_for_every_choice():
    lines = summarise_selections(judged().reset_index(), "kd").splitlines()
    assert len(lines) == 2 + 5
    assert lines[2] == "| a | x@300 (0.25) | 0.200 (0.080 to 0.300) | x@500 | 0.100 |"
    assert lines[5] == "| d | x@300 (0.50) | 0.400 (0.300 to 0.500) | none |  |"
    assert lines[6] == "| e | none |  | x@300 | 0.400 |"


def test_compare_writes_the_choice_of_every_domain(done):
    table = pd.read_csv("data/report/selection.csv")
    assert table[["model", "domain"]].to_numpy().tolist() == [[MODEL, OTHER], [MODEL, DOMAIN]]
    for _, row in table.iterrows():
        report = json.loads((SELECTION / f"{row['domain']}.json").read_text())
        if report["chosen"] is None:
            assert pd.isna(row["level"])
        else:
            assert [row["level"], row["sampler"]] == [report["chosen"]["level"],
                                                      report["chosen"]["sampler"]]
    assert "chosen by fit images" in Path("data/report/summary.md").read_text()
    (SELECTION / f"{OTHER}.json").unlink()
    with pytest.raises(UnseenError, match=rf"data/selection/{MODEL}/{OTHER}\.json: no such file"):
        run_stage("compare")


def test_a_choice_of_another_run_is_named(done):
    file = SELECTION / f"{DOMAIN}.json"
    report = json.loads(file.read_text())
    file.write_text(json.dumps(report | {"chosen": {"cell": "L0700-slerp"}}))
    with pytest.raises(UnseenError, match=f"{file}: chose L0700-slerp, which has no metrics"):
        run_stage("compare")
