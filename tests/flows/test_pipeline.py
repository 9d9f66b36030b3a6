"""One invocation: overlay, streamed repro, lock, mirror."""

import subprocess
import sys

import pytest

from flows import pipeline, tracking
from flows.pipeline import overlay, run_pipeline
from unseen_core.errors import UnseenError

EVALUATE = """
import json, os, pathlib, sys
assert os.environ["UNSEEN_PARENT_RUN"] == "parent-1"
domain = sys.argv[1]
if pathlib.Path(f"{domain}.txt").read_text() == "bad":
    sys.exit("domain is bad")
path = pathlib.Path("data/metrics/m") / f"{domain}.json"
path.parent.mkdir(parents=True, exist_ok=True)
cell = dict(model="m", domain=domain, level=500, sampler="noise", metrics={})
path.write_text(json.dumps({"cells": [cell]}))
"""
STAGES = """
stages:
  evaluate:
    foreach: [faces, digits]
    do:
      cmd: python evaluate.py ${item}
      deps: [evaluate.py, "${item}.txt"]
      outs: [{"data/metrics/m/${item}.json": {cache: false}}]
"""


@pytest.fixture
def mirrored(monkeypatch):
    """Record what would be mirrored instead of opening a store."""
    seen = {}
    monkeypatch.setattr(tracking, "open_parent", lambda parameters, root: "parent-1")
    monkeypatch.setattr(
        tracking, "mirror", lambda parent, cells, *, root, fresh: seen.update(fresh=fresh, n=cells)
    )
    monkeypatch.setattr(tracking, "close_parent", lambda parent, **rest: seen.update(rest))
    return seen


@pytest.mark.contract
def test_a_real_repro_is_run_once_and_cached_cells_are_told_apart(tmp_path, mirrored, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "params.yaml").write_text("levels: [500]\n")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "evaluate.py").write_text(EVALUATE)
    for domain in ("faces", "digits"):
        (tmp_path / f"{domain}.txt").write_text("1")

    lines = []
    run_pipeline(root=tmp_path, say=lines.append)
    assert mirrored["fresh"] == {("m", "faces"), ("m", "digits")}
    assert len(mirrored["n"]) == 2
    assert mirrored["status"] == "FINISHED"
    assert {"seconds", "seconds/evaluate/faces"} <= set(mirrored["metrics"])
    assert f"table     {tmp_path / 'data/report/compare.csv'}" in lines

    (tmp_path / "faces.txt").write_text("2")
    run_pipeline(root=tmp_path, say=lines.append)
    assert mirrored["fresh"] == {("m", "faces")}
    assert len(mirrored["n"]) == 2

    (tmp_path / "faces.txt").write_text("bad")
    with pytest.raises(UnseenError, match="stopped at stage evaluate@faces"):
        run_pipeline(root=tmp_path, targets=["evaluate@faces"], say=lines.append)
    assert mirrored["status"] == "FAILED"
    assert "domain is bad" in lines


def test_a_lock_is_waited_for(tmp_path, mirrored, monkeypatch):
    monkeypatch.setattr(pipeline, "LOCK_DELAY", 0.0)
    (tmp_path / "params.yaml").write_text("levels: [500]\n")
    calls = []

    def stream(locked_for, failing=False):
        def fake(command, root, environment, say):
            calls.append(command)
            locked = len(calls) <= locked_for
            return pipeline._Outcome(code=255 if locked or failing else 0, locked=locked)

        return fake

    monkeypatch.setattr(pipeline, "_stream", stream(locked_for=1))
    run_pipeline(root=tmp_path, say=str)
    assert len(calls) == 2

    calls.clear()
    monkeypatch.setattr(pipeline, "_stream", stream(locked_for=99))
    with pytest.raises(UnseenError, match="another DVC process"):
        run_pipeline(root=tmp_path, say=str)
    assert len(calls) == pipeline.LOCK_ATTEMPTS

    calls.clear()
    monkeypatch.setattr(pipeline, "_stream", stream(locked_for=0, failing=True))
    with pytest.raises(UnseenError, match="stopped"):
        run_pipeline(root=tmp_path, say=str)
    assert len(calls) == 1


def test_stream_reads_stages_lock_and_code(tmp_path):
    script = (
        "import sys; print(\"Running stage 'invert@faces':\"); print('ERROR: Unable to acquire "
        "lock. Most likely', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    )
    lines = []
    for code, locked in (("0", False), ("255", True)):
        command = [sys.executable, "-c", script, code]
        outcome = pipeline._stream(command, tmp_path, {}, lines.append)
        assert (outcome.code, outcome.locked) == (int(code), locked)
        assert list(outcome.seconds) == ["invert@faces"]
    assert sorted(set(lines)) == [
        "ERROR: Unable to acquire lock. Most likely",
        "Running stage 'invert@faces':",
    ]


def test_a_pipeline_without_store_still_runs(tmp_path, mirrored, monkeypatch):
    monkeypatch.setattr(tracking, "open_parent", lambda parameters, root: None)
    seen = {}

    def fake(command, root, environment, say):
        seen.update(environment)
        return pipeline._Outcome()

    monkeypatch.setattr(pipeline, "_stream", fake)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "x")
    (tmp_path / "params.yaml").write_text("levels: [500]\n")
    run_pipeline(root=tmp_path, say=str)
    assert seen["UNSEEN_PARENT_RUN"] == ""
    assert "PREFECT__FLOW_RUN_ID" not in seen
    assert mirrored == {}


def test_overlay_merges_keeps_comments_and_drops_nulls(tmp_path):
    base, extra = tmp_path / "params.yaml", tmp_path / "reduced.yaml"
    base.write_text("# why\nlevels: [300, 500]\nrate: 1e-4\ndomains:\n  a: {n: 9, m: 1}\n  b: {}\n")
    extra.write_text("levels: [500]\ndomains:\n  a: {n: 2}\n  b: null\nnew: 1\n")
    overlay(base, extra)
    text = base.read_text()
    assert text.startswith("# why\n")
    assert "rate: 1e-4" in text
    expected = {"levels": [500], "rate": 1e-4, "domains": {"a": {"n": 2, "m": 1}}, "new": 1}
    assert pipeline._load(base) == expected


@pytest.mark.parametrize("content", [None, "- 1\n", "a: [\n", "a: 1\na: 2\n"])
def test_a_bad_parameter_file_is_one_line_that_names_it(tmp_path, content):
    base, extra = tmp_path / "params.yaml", tmp_path / "extra.yaml"
    base.write_text("a: 1\n")
    if content is not None:
        extra.write_text(content)
    with pytest.raises(UnseenError, match=r"extra\.yaml") as caught:
        overlay(base, extra)
    assert "\n" not in str(caught.value)
    assert base.read_text() == "a: 1\n"


@pytest.mark.parametrize("target", ["--force", "a b", "../x", "", "in;vert"])
def test_a_target_is_checked_before_anything_runs(tmp_path, target):
    with pytest.raises(UnseenError, match="no stage name"):
        run_pipeline(root=tmp_path, targets=[target])


def test_a_schedule_needs_a_server_address(monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(UnseenError, match="PREFECT_API_URL"):
        pipeline.serve_schedule(cron="0 3 * * *")
