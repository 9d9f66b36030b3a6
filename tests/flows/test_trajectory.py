"""Trajectories as a stage: every table beside its prediction, on a network of random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from workspace import DOMAIN, MODEL, OTHER, SEEN, change, contents

from flows.dispatch import run_stage
from flows.loading.source_law import load_source
from flows.running.registry import STAGES
from flows.running.run import DirectRun
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.store import save_tensors

OUT = Path("data/trajectory", MODEL)


def numbers(value) -> list[float]:
    """Return every number of a JSON value."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [number for part in inner for number in numbers(part)]
    return [value] if isinstance(value, int | float) else []


def test_every_table_is_there_and_finite(done) -> None:
    report = json.loads((OUT / "trajectory.json").read_text())
    assert np.isfinite(numbers(report)).all()
    grid = report["grid"]
    assert grid[0] == 0 and grid[-1] == 1000 and {100, 200} <= set(grid)
    assert set(report["domains"]) == {"seen", DOMAIN, OTHER}
    assert report["images"] == {"noised": 3, "centres": 6} and report["seen"] == SEEN
    for name, table in report["domains"].items():
        assert 0 < table["variance_inside"] <= 1 + 1e-9, name
        assert [row["level"] for row in table["settled"]] == [100, 200]
    levels = pd.read_csv(OUT / "levels.csv")
    assert levels["level"].tolist() == grid[::-1]
    predictions = [name for name in levels if name.endswith("_predicted")]
    assert {"rotation_predicted", "plane_predicted", "pixels_predicted"} <= set(predictions)
    assert {name.removesuffix("_predicted") for name in predictions} <= set(levels)
    figures = levels.select_dtypes("number").iloc[:-1]  # nothing is predicted of a clean image
    assert np.isfinite(figures.to_numpy()).all()
    assert (levels["rotation_low"] <= levels["rotation"]).all()
    assert levels["rotation"].iloc[-1] == 0 and levels["distance"].iloc[-1] == 0
    assert levels["error_states_gaussian"].iloc[0] == 0  # one start for all
    assert set(levels["best_clean"]) <= {"gaussian", "mean", "delta"}
    emergence = pd.read_csv(OUT / "emergence.csv")
    assert len(emergence) == report["law"]["modes"] >= 1
    assert emergence["predicted"].is_monotonic_decreasing
    assert (emergence["predicted"] - emergence["exact_run"]).abs().max() < 1
    gains = pd.read_csv(OUT / "gains.csv")
    assert gains["direction"].tolist() == ["mode 0", "off span"] * 2  # there is no mode 500
    assert gains["level"].tolist() == [100, 100, 1000, 1000]
    for name in ("trajectory.png", "strip.png"):
        with Image.open(OUT / name) as picture:
            assert picture.size[0] > 100


def test_tables_do_not_depend_on_how_runs_are_parted(done, monkeypatch) -> None:
    before = contents(OUT, "*.csv")
    shutil.rmtree(OUT)
    monkeypatch.setattr("flows.stages.trajectory._PART", 1)
    STAGES["trajectory"](DirectRun(), model=MODEL)
    for name, old in before.items():
        was, now = (pd.read_csv(pd.io.common.BytesIO(data))
                    for data in (old, (OUT / name).read_bytes()))
        # A batch of another size changes the last bits of what the network answers.
        pd.testing.assert_frame_equal(was, now, rtol=2e-2, atol=1e-3)


def test_a_law_without_modes_is_a_note_and_no_failure(done, caplog) -> None:
    file = Path("data/source/models", MODEL, "law.safetensors")
    law = load_source(MODEL)
    plain = Gaussian(law.mean, law.factor[:, :0], law.diagonal)
    save_tensors(file, plain.state())
    assert run_stage("trajectory", {"model": MODEL}) == {"runs": 0}
    assert "too few images of shapes" in caplog.text
    assert list(contents(OUT)) == ["trajectory.json"]


def test_what_is_wrong_is_said_in_one_line(done) -> None:
    change(done, "trajectory", "levels", to=[100, 2000])
    with pytest.raises(UnseenError, match=r"^trajectory.levels: 2000 is out of range; use 1 to "):
        run_stage("trajectory", {"model": MODEL})
    Path("data/source/models", MODEL, "law.safetensors").unlink()
    with pytest.raises(UnseenError, match=r"law\.safetensors: no such file"):
        run_stage("trajectory", {"model": MODEL})
