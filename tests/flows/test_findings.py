"""The findings: rules whose verdict is known, and pages that follow their artifacts."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from workspace import MODEL, OTHER, ROOT, SEEN, change, fetch_all

from flows.dispatch import run_stage
from flows.report.findings import SECTIONS, findings, pages
from flows.report.findings.appendix import copy_pictures
from flows.report.findings.evidence import load_evidence
from flows.report.findings.front import rivals
from flows.report.findings.related import RELATED
from flows.report.findings.text import Section, number, span, table
from flows.report.findings.verdicts import (
    at_floor,
    copying,
    duel,
    follows,
    gaussian,
    overall,
    placed,
    represents,
    selected,
    spread_ratio,
    tells,
    unharmed,
)
from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import reported
from unseen_core.judging.metrics import Interval

CASE = f"{MODEL}/{OTHER}"
KERNEL = "kd_projections"


def about(value, half=0.1):
    """Return an interval about a value."""
    return Interval(value, value - half, value + half)


@pytest.mark.parametrize(("found", "expected"), [
    (overall(["confirmed", "confirmed"]), "confirmed"),
    (overall(["confirmed", "refuted", "undecided"]), "refuted"),
    (overall(["confirmed", "undecided"]), "undecided"),
    (overall([]), "undecided"),
    (placed(about(0.95, 0.04), least=0.9), "confirmed"),
    (placed(about(0.95, 0.06), least=0.9), "undecided"),
    (placed(about(0.85, 0.04), least=0.9), "refuted"),
    (placed(about(1.3, 0.1), 0.8, 1.15), "refuted"),
    (placed(Interval(math.nan, math.nan, math.nan), 0, 1), "undecided"),
    (represents([20.0, 55.0]), "confirmed"),
    (represents([20.0, 30.0]), "undecided"),  # the error still falls
    (represents([29.9, 30.0]), "refuted"),
    (represents([30.0]), "undecided"),
    (gaussian(0.0, about(1.0)), "confirmed"),
    (gaussian(0.2, about(1.0)), "refuted"),
    (gaussian(0.0, about(2.0)), "refuted"),
    (gaussian(0.0, about(1.2)), "undecided"),
    (tells(about(0.95, 0.03), about(0.1, 0.05)), "confirmed"),
    (tells(about(0.95, 0.03), about(0.9, 0.05)), "refuted"),
    (tells(about(0.95, 0.03), about(0.6, 0.05)), "undecided"),
    (follows(1.0, [about(1.0, 0.05)]), "confirmed"),
    (follows(1.0, [about(1.0, 0.05), about(0.4, 0.05)]), "refuted"),
    (follows(0.7, [about(1.0, 0.05)]), "refuted"),
    (follows(1.0, [about(1.0, 0.2)]), "undecided"),
    (at_floor(about(0.1), about(0.05)), "confirmed"),
    (at_floor(about(0.2), about(0.0, 0.15)), "undecided"),
    (at_floor(about(0.4), about(0.0)), "refuted"),
    (duel(about(0.1), about(0.4)), "wins"),
    (duel(about(0.1), about(0.2)), "ties"),
    (duel(about(0.4), about(0.1)), "loses"),
    (copying(Interval(0.0, 0.0, 0.06), 0.01), "confirmed"),
    (copying(Interval(0.02, 0.003, 0.09), 0.01), "undecided"),
    (copying(Interval(0.3, 0.2, 0.4), 0.01), "refuted"),
    (selected(True, False), "confirmed"),
    (selected(False, True), "undecided"),
    (selected(False, False), "refuted"),
    (unharmed(["a", "a"], [True, True]), "confirmed"),
    (unharmed(["a", "b"], [True, True]), "refuted"),
    (unharmed(["a", "a"], [True, False]), "refuted"),
])
def test_a_rule_gives_the_known_verdict(found, expected):
    assert found == expected


def test_the_interval_of_a_spread_is_the_chi_square_one():
    # Quantiles of chi-square with 99 degrees of freedom: 73.361 and 128.422.
    found = spread_ratio(2.0, 4.0, 100)
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 * (99 / 128.422) ** 0.5, rel=1e-5)
    assert found.high == pytest.approx(0.5 * (99 / 73.361) ** 0.5, rel=1e-5)


def test_numbers_read_as_written():
    assert [number(x) for x in (0.126, -0.001, None, math.nan, 3)] == ["0.13", "0.00", "-", "-",
                                                                      "3.00"]
    assert span(Interval(0.5, -0.25, 1.0), 1) == "0.5 (-0.2 to 1.0)"
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_a_section_counts_its_verdicts_and_joins_what_is_missing():
    section = Section("Claim", "Ran.", "rule.", "body", {"m/a": "confirmed", "m/b": "refuted"},
                      [("m/c", "do this"), ("m/d", "do this")])
    text = section.markdown(3)
    assert "# 3. Claim\n\n**Verdict: refuted** (1 confirmed, 1 refuted of 2)." in text
    assert "* m/c, m/d: do this." in text
    assert Section("Claim", "Ran.", "rule.").verdict == "not measured"


def claims_of(docs):
    """Return the text of each claim's page by its number."""
    return {int(file.name[:2]): file.read_text("utf-8")
            for file in sorted((docs / "findings").glob("[0-9][0-9]-*.md"))}


def links(docs):
    """Return every local file that the index and its pages link to, pictures included."""
    found = set()
    for page in (docs / "findings.md", *(docs / "findings").glob("*.md")):
        found |= {(page.parent / name).resolve() for name in re.findall(
            r"\]\(([^)]+)\)", page.read_text("utf-8")) if not name.startswith(("https://", "#"))}
    return found


def test_a_finished_run_has_its_pages(done):
    docs = done / "docs"
    (docs / "findings").mkdir(parents=True)
    (docs / "findings/99-old.md").write_text("from an earlier run")
    index = findings()
    text = index.read_text("utf-8")
    made = load_evidence()
    wins = sum(rivals(made, case).outcome == "wins" for case in made.cases)
    assert f"on **{wins} of 2 domains**" in text.partition("\n## ")[0]  # what the page opens with
    titles = {line[3:].lower().replace(" ", "-") for line in text.splitlines() if line[:3] == "## "}
    assert {*re.findall(r"\(#([^)]+)\)", text)} <= titles
    claims = claims_of(docs)
    assert [*claims] == [*range(1, len(SECTIONS) + len(RELATED) + 1)]
    assert len(SECTIONS) == 12
    for place in (1, 2, 3, 4, 5, 7, 8, 11, 12):
        assert "not measured in this run, as 8 images are too few" in claims[place]
    assert all(file.exists() for file in links(docs))
    written = {file.resolve() for file in (index, *(docs / "findings").glob("*.md"))}
    assert written <= links(docs)  # each page is linked, and the earlier run's page is gone
    pictures = [*(docs / "findings").glob("*.png")]
    assert docs / "findings/front.png" in pictures and len(pictures) <= 14
    assert all(file.stat().st_size < 1_000_000 for file in pictures)
    assert f"All {len(pd.read_csv(done / 'data/report/compare.csv'))} rows" in text


def test_the_committed_pages_are_those_that_the_command_writes(done):
    findings()
    made, committed = done / "docs/findings", ROOT / "docs/findings"
    names = {file.name for file in made.glob("[0-9][0-9]-*.md")}
    assert {file.name for file in committed.glob("[0-9][0-9]-*.md")} == names
    for name in names:
        ours, theirs = ((folder / name).read_text("utf-8").splitlines()
                        for folder in (made, committed))
        assert (theirs[0], theirs[-1]) == (ours[0], ours[-1])
    heads = [[line for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
             for file in (made.parent / "findings.md", committed.parent / "findings.md")]
    assert heads[0] == heads[1]
    assert {file.resolve() for file in committed.iterdir()} <= links(committed.parent)
    assert all(file.exists() for file in links(committed.parent))


def test_the_page_follows_the_table(done):
    file = done / "data/report/compare.csv"
    rows = pd.read_csv(file)
    cells = findings().parent / f"findings/cells-{MODEL}.md"
    before = cells.read_text("utf-8")
    row = rows[rows["sampler"] == "slerp"].index[0]
    rows.loc[row, reported(KERNEL)] = [71.234, 70.5, 72.5]
    rows.to_csv(file, index=False)
    findings()
    after = cells.read_text("utf-8")
    assert "71.234 (70.500 to 72.500)" in after and "71.234" not in before


def test_every_distance_on_the_page_stands_in_the_table(done):
    text = (findings().parent / f"findings/cells-{MODEL}.md").read_text("utf-8")
    rows = pd.read_csv(done / "data/report/compare.csv")
    known = {span(Interval(*row[1:]), 3)
            for row in rows[reported(KERNEL)].itertuples()}
    found = {line.split(" | ")[1] for line in text.splitlines() if " (" in line and "| " in line
             and "cell" not in line.split(" | ")[0]}
    assert found == known


def test_the_page_reads_what_analyze_writes(done):
    for name in (OTHER, SEEN):
        change(done, "domains", name, "fit", to=20)
        change(done, "domains", name, "limit", to=40)
    change(done, "analyze", to={"latents": 20, "steps": [5, 8], "images": 3,
                                     "etas": [0.0, 0.5], "paths": 2})
    fetch_all((OTHER, SEEN))
    run_stage("invert", {"model": MODEL})
    for stage in ("invert", "fit", "analyze"):
        run_stage(stage, {"model": MODEL, "domain": OTHER})
    claims = claims_of(findings().parent)
    for place in (1, 2, 3, 4, 5, 7, 8):
        verdict = rf"^\| {CASE} \|.* (confirmed|refuted|undecided) \|$"
        assert re.search(verdict, claims[place], re.M)
    assert "**Verdict: confirmed** (1 confirmed of 1)" in claims[12]
    names = {file.name for file in links(done / "docs")}
    assert {"walks.png", f"analysis-{MODEL}.png"} <= names
    report = json.loads((done / "data/analysis" / CASE / "analysis.json").read_text())
    assert report["weights"][:12] in claims[12]


def noisy(file, width):
    """Write a picture of noise: three bytes a pixel, one in 256 colours."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    assert file.stat().st_size > 1_000_000


@pytest.mark.parametrize(("width", "kept"), [(600, True), (2400, False)])
def test_a_large_picture_loses_colours_or_stays_out_and_an_old_one_goes(done, width, kept):
    folder = done / "docs/findings"
    folder.mkdir(parents=True)
    (folder / "old.png").write_bytes(b"")
    noisy(done / "data/report/front.png", width)
    found = copy_pictures(load_evidence(), folder)
    assert ("front" in found) == (folder / "front.png").is_file() == kept
    assert not (folder / "old.png").exists()
    assert all(file.stat().st_size < 1_000_000 for file in folder.iterdir())
    assert "front.png" not in "".join(pages(load_evidence()).values())  # which has no pictures


def test_without_a_report_there_is_one_line(workspace):
    with pytest.raises(UnseenError, match=r"compare\.csv: no such file; run the pipeline first"):
        findings()


def test_a_report_by_another_judge_is_refused(done):
    change(done, "evaluate", "extractors", to={"pixels": {}})
    with pytest.raises(UnseenError, match="has no kd_pixels"):
        findings()
