"""The analyses as a stage: on enough images every table, on too few a note and no failure."""

import json
import math

import pandas as pd
import pytest
import torch
from PIL import Image
from workspace import MODEL, OTHER, SEEN, change, fetch_all

from flows.dispatch import run_stage
from unseen_core.errors import UnseenError
from unseen_core.store import TensorStore

TARGET = {"model": MODEL, "domain": OTHER}


def run_up_to_analysis() -> None:
    """Run what the stage needs, and the stage."""
    fetch_all((OTHER, SEEN))
    run_stage("invert", {"model": MODEL})
    run_stage("invert", TARGET)
    run_stage("fit", TARGET)
    run_stage("analyze", TARGET)


@pytest.fixture
def enough(workspace):
    """Twenty images of either domain, little network time."""
    change(workspace, "domains", OTHER, "fit", to=20)
    change(workspace, "domains", OTHER, "limit", to=40)
    change(workspace, "domains", SEEN, "fit", to=20)
    change(workspace, "domains", SEEN, "limit", to=40)
    change(workspace, "analyze", to={"latents": 18, "steps": [5, 8], "images": 3,
                                     "etas": [0.0, 0.5], "paths": 2})
    return workspace


def test_every_table_is_there_and_finite(enough) -> None:
    run_up_to_analysis()
    assert len(TensorStore(enough / "data/seen" / MODEL).ids) == 20
    out = enough / "data/analysis" / MODEL / OTHER
    report = json.loads((out / "analysis.json").read_text())
    assert (report["images"], report["seen"], report["latents"]) == (20, 20, 18)
    assert set(report["levels"]) == {"100", "200"}
    assert report["gap"]["low"] < report["gap"]["value"] < report["gap"]["high"]
    assert report["own_samples"] == {"compared": 8, "identical": True}
    for table in report["levels"].values():
        assert table["passed"]["seen latents"]["count"] == 18
        assert table["passed"]["held-out latents"]["count"] == 9
        assert set(table) == {"gaussianity", "geometry", "separability", "separability bottleneck",
                              "prior_gap", "leak", "spread", "passed", "bandwidth", "figures"}
        assert {"noise", "seen latents", "prior isotropic", "held-out latents"} <= set(
            table["passed"])
        for side in ("content", "target"):
            assert 0 <= table["bandwidth"][side]["value"] <= 0.5
        assert table["bandwidth"]["content"]["kept"][0] > 0.9  # without noise: a round trip
    for rows in report["reconstruction"].values():
        assert [(r["steps"], r["level"]) for r in rows] == [(5, 100), (5, 200), (8, 100), (8, 200)]
    walks = report["walks"]
    assert walks["level"] == 100 and len(walks["seen to unseen, slerp"]["in_target"]) == 11
    frame = pd.read_csv(out / "levels.csv")
    assert frame["level"].tolist() == [100, 200]
    assert all(math.isfinite(value) for value in frame.to_numpy().flatten())
    for name in ("analysis.png", "walks.png"):
        with Image.open(out / name) as picture:
            assert picture.size[0] > 100


def test_too_few_images_are_a_note_and_no_failure(workspace) -> None:
    run_up_to_analysis()
    out = workspace / "data/analysis" / MODEL / OTHER
    assert json.loads((out / "analysis.json").read_text())["levels"] == {}


def test_a_network_that_changes_under_the_analysis_is_an_error(enough, monkeypatch) -> None:
    import flows.stages.analyze as module

    real = module.reconstruction

    def careless(network, *args, **settings):
        with torch.no_grad():
            next(network._network.parameters()).add_(0.01)
        return real(network, *args, **settings)

    monkeypatch.setattr(module, "reconstruction", careless)
    with pytest.raises(UnseenError, match="own samples changed"):
        run_up_to_analysis()
