"""The stage ``steer`` on a tiny network: every table and picture, and what a bad level says."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from workspace import DOMAIN, MODEL, OTHER, change

from flows.dispatch import run_stage
from flows.stages.steer import unchanged_share
from unseen_core.errors import UnseenError

TARGET = {"model": MODEL}


def test_every_table_is_there_and_flat(done) -> None:
    run_stage("steer", TARGET)
    out = Path("data/steer", MODEL)
    report = json.loads((out / "steer.json").read_text())
    teleport = pd.read_csv(out / "teleport.csv")
    # Of six calls: none, two and three are skipped by the law, three by the cruder jumps.
    assert [*zip(teleport["jump"], teleport["saved"], teleport["calls"], strict=True)] == [
        ("law", 0, 6), ("law", 2, 4), ("law", 3, 3), ("mean", 3, 3), ("none", 3, 3)]
    assert teleport["relative_error"][0] == 0 < teleport["relative_error"][1:].min()
    assert teleport["level"].is_monotonic_decreasing and set(teleport["n"]) == {4}
    assert set(teleport["held_out"]) == {6}
    assert report["teleport"]["unchanged_share"] == unchanged_share(report["teleport"]["rows"])
    colour = pd.read_csv(out / "colour.csv")
    assert len(colour) == 2 * 2 * 4
    assert set(zip(colour["control"], colour["level"], strict=True)) == {
        (name, level) for name in ("colour", "gradient") for level in (200, 600)}
    for name in ("slope", "r2"):
        assert (colour[f"{name}_low"] <= colour[f"{name}_high"]).all()
        assert colour[f"predicted_{name}"].between(0, 1).all()
    assert not colour.isna().any(axis=None) and not teleport.isna().any(axis=None)
    assert report["controls"]["colour"]["best_level"] in (200, 600)
    assert [row["level"] for row in report["spread"]] == [200, 600]
    names = ["generated", DOMAIN, OTHER]
    assert [row["subject"] for row in report["variation"]] == [n for n in names for _ in range(2)]
    assert len(report["search"]) == 4
    for row in report["search"]:
        assert row["left"] <= 1 and row["path"] == sorted(row["path"], reverse=True)
    for name in ("steer", "colour", "variations"):
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 100


def test_the_largest_share_that_changes_nothing() -> None:
    def row(saved: int, changed: bool, jump: str = "law") -> dict[str, object]:
        return {"jump": jump, "saved": saved, "saved_share": saved / 10, "changed": changed}

    rows = [row(0, False), row(4, False), row(2, False), row(6, True), row(8, False)]
    assert unchanged_share([*rows, row(9, False, "none")]) == 0.4
    assert unchanged_share([row(0, False), row(1, True), row(2, False)]) == 0


def test_a_level_that_is_not_there_is_one_line(done) -> None:
    change(done, "steer", "search", to=1001)
    with pytest.raises(UnseenError, match="steer: 1001 is out of range"):
        run_stage("steer", TARGET)
