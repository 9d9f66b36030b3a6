"""One invocation: streamed repro, locks, mirror, an end by a signal."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import ROOT

from flows import pipeline
from flows.dvc import process as repro
from flows.mlflow import tracking
from flows.pipeline import only_run, run_pipeline
from flows.running.registry import UNRECORDED
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
PARAMETERS = "levels: [500]\npipeline: {models: [m], domains: [faces, digits]}\n"
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
    (tmp_path / "params.yaml").write_text(PARAMETERS)
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "evaluate.py").write_text(EVALUATE)
    for domain in ("faces", "digits"):
        (tmp_path / f"{domain}.txt").write_text("1")

    (tmp_path / "data/report").mkdir(parents=True)
    (tmp_path / "data/report/compare.csv").touch()

    lines = []
    run_pipeline(root=tmp_path, say=lines.append)
    assert mirrored["fresh"] == {("m", "faces"), ("m", "digits")}
    assert len(mirrored["n"]) == 2
    assert mirrored["status"] == "FINISHED"
    assert {"seconds", "seconds/evaluate/faces"} <= set(mirrored["metrics"])
    assert f"table     {tmp_path / 'data/report/compare.csv'}" in lines
    assert not [line for line in lines if line.startswith("pictures")]  # there are none

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
    monkeypatch.setattr(repro, "LOCK_DELAY", 0.0)
    (tmp_path / "params.yaml").write_text(PARAMETERS)
    calls = []

    def stream(locked_for, failing=False):
        def fake(command, root, environment, say):
            calls.append(command)
            locked = len(calls) <= locked_for
            return repro.Outcome(code=255 if locked or failing else 0, locked=locked)

        return fake

    monkeypatch.setattr(repro, "_stream", stream(locked_for=1))
    run_pipeline(root=tmp_path, say=str)
    assert len(calls) == 2

    calls.clear()
    monkeypatch.setattr(repro, "_stream", stream(locked_for=99))
    with pytest.raises(UnseenError, match="another DVC process"):
        run_pipeline(root=tmp_path, say=str)
    assert len(calls) == repro.LOCK_ATTEMPTS

    calls.clear()
    monkeypatch.setattr(repro, "_stream", stream(locked_for=0, failing=True))
    with pytest.raises(UnseenError, match="stopped"):
        run_pipeline(root=tmp_path, say=str)
    assert len(calls) == 1


def test_stream_reads_stages_lock_and_code(tmp_path):
    script = (
        "import sys; print(\"WARNING: stage: 'pretrain' is frozen. Its dependencies are not going "
        "to be reproduced.\"); print(\"Running stage 'invert@faces':\"); print('ERROR: Unable to "
        "acquire lock. Most likely', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    )
    lines = []
    for code, locked in (("0", False), ("255", True)):
        command = [sys.executable, "-c", script, code]
        outcome = repro._stream(command, tmp_path, {}, lines.append)
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
        return repro.Outcome()

    monkeypatch.setattr(repro, "_stream", fake)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "x")
    (tmp_path / "params.yaml").write_text(PARAMETERS)
    run_pipeline(root=tmp_path, say=str)
    assert seen["UNSEEN_PARENT_RUN"] == ""
    assert "PREFECT__FLOW_RUN_ID" not in seen
    assert mirrored == {}


@pytest.mark.parametrize("target", ["--force", "a b", "../x", "", "in;vert"])
def test_a_target_is_checked_before_anything_runs(tmp_path, target):
    with pytest.raises(UnseenError, match="is not a stage"):
        run_pipeline(root=tmp_path, targets=[target])


def test_a_schedule_needs_a_server_address():
    # In a process of its own: Prefect changes logging where it is imported.
    variables = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    done = subprocess.run([sys.executable, "-m", "flows", "schedule"], cwd=ROOT, env=variables,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: set PREFECT_API_URL")
    assert len(done.stderr.splitlines()) == 1


def test_a_second_run_is_refused_and_told_who_works(tmp_path, mirrored, monkeypatch):
    (tmp_path / "params.yaml").write_text(PARAMETERS)
    monkeypatch.setattr(repro, "_stream", lambda *_: repro.Outcome())
    with only_run(tmp_path):
        with pytest.raises(UnseenError, match=r"another run .* works in .*; wait until") as caught:
            run_pipeline(root=tmp_path, say=str)
        assert f"(process {os.getpid()}, since 20" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert mirrored == {}
    run_pipeline(root=tmp_path, say=str)
    assert mirrored["status"] == "FINISHED"


def test_sync_is_refused_while_a_run_works(workspace, command):
    with only_run(workspace):
        code, _, said = command("sync")
    assert code == 2 and said.startswith("error: another run of the pipeline, or sync (process")


def test_sync_leaves_nothing_in_a_folder_that_is_no_project(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    assert command("sync")[0] == 2 and not list(tmp_path.iterdir())


def test_domains_become_the_last_stages_or_an_override(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "pipeline: {models: [m, n], domains: [a, b]}\ndomains: {a: {}, b: {}, c: {}}\n")
    assert pipeline._narrow(tmp_path, {}, ["a"], ()) == ({}, [
        f"{stage}@{model}-a" for model in "mn" for stage in ("evaluate", "select", "analyze")])
    assert pipeline._narrow(tmp_path, {}, ["a", "c"], ()) == (
        {"pipeline": {"domains": ["a", "c"]}}, ())
    assert pipeline._narrow(tmp_path, {"levels": [1]}, ["a"], ()) == (
        {"levels": [1], "pipeline": {"domains": ["a"]}}, ())
    assert pipeline._narrow(tmp_path, {}, (), ["fit@m-a"]) == ({}, ["fit@m-a"])
    with pytest.raises(UnseenError, match=r"domains\.d is not defined"):
        pipeline._narrow(tmp_path, {}, ["d"], ())
    with pytest.raises(UnseenError, match="both"):
        pipeline._narrow(tmp_path, {}, ["a"], ["fit@m-a"])


def test_an_absent_prefect_server_is_told_once_and_kept_from_the_stages(
    tmp_path, mirrored, monkeypatch, caplog
):
    seen = {}
    monkeypatch.setattr(repro, "_stream", lambda command, root, env, say:
                        seen.update(env) or repro.Outcome())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    (tmp_path / "params.yaml").write_text(PARAMETERS)
    run_pipeline(root=tmp_path, say=str)
    assert "PREFECT_API_URL" not in seen
    assert mirrored["status"] == "FINISHED"
    told, = (record for record in caplog.records if UNRECORDED in record.getMessage())
    assert f"http://127.0.0.1:{port}/api does not answer" in told.getMessage()


def test_of_many_stages_that_are_not_recorded_one_tells(tmp_path):
    script = f"print('{UNRECORDED}: a'); print('x'); print('{UNRECORDED}: b'); print('y')"
    lines = []
    repro._stream([sys.executable, "-c", script], tmp_path, {}, lines.append)
    assert lines == [f"{UNRECORDED}: a", "x", "y"]


def test_sigterm_ends_the_stages_too_and_the_run_is_marked_killed(tmp_path, mirrored, monkeypatch):
    (tmp_path / "params.yaml").write_text(PARAMETERS)
    inner = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    outer = ("import os, subprocess, sys; print(os.getpid(), flush=True); "
             f"subprocess.run([sys.executable, '-c', {inner!r}])")
    real, processes = repro._stream, []
    monkeypatch.setattr(repro, "_stream", lambda _, *rest: real(
        [sys.executable, "-c", outer], *rest))

    def say(line):
        processes.append(int(line))
        if len(processes) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(root=tmp_path, say=say)
    assert mirrored["status"] == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [pid for pid in processes if alive(pid)]


def alive(pid):
    """Tell whether a process still runs."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
