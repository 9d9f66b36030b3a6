"""Runs with overrides and sweeps as real DVC experiments in a small repository."""

import os
import subprocess
import sys

import pytest
from workspace import isolate

from flows.dvc.experiments import check_sweep, export_report, finished, run_sweep, sweep_points
from flows.pipeline import run_pipeline
from unseen_core.errors import UnseenError

PARAMS = """# the committed parameters
pipeline: {models: [m], domains: [a]}
levels: [100, 300]
domains: {a: {n: 1}, b: {n: 2}}
samplers:
  noise: {sampler: noise}
  slerp: {sampler: slerp, levels: [100]}
"""
STAGES = """
stages:
  compare:
    matrix: {domain: "${pipeline.domains}"}
    cmd: python compare.py ${item.domain}
    deps: [compare.py]
    params: [levels, domains, samplers]
    outs: [{"data/report/summary.md": {cache: false}}, data/report/overview.png]
"""
COMPARE = """
import pathlib, sys
text = pathlib.Path("params.yaml").read_text()
report = pathlib.Path("data/report")
report.mkdir(parents=True, exist_ok=True)
(report / "summary.md").write_text(f"{sys.argv[1]}\\n{text}")
(report / "overview.png").write_text("picture")
sys.exit(sys.argv[1] == "b" and "sampler: slerp" not in text)
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one stage, nothing run, as the working directory."""
    isolate(monkeypatch, tmp_path)
    for name, text in (("params.yaml", PARAMS), ("dvc.yaml", STAGES), ("compare.py", COMPARE),
                       (".gitignore", "/.work\n")):
        (tmp_path / name).write_text(text)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"],
                    ["git", "config", "user.name", "test"],
                    ["git", "config", "user.email", "test@example.org"],
                    ["git", "add", "--all"], ["git", "commit", "-q", "-m", "nothing has run"]):
        subprocess.run(command, check=True, env=os.environ)
    return tmp_path


@pytest.mark.contract
def test_overrides_run_beside_the_workspace_and_a_sweep_tells_what_failed(repository):
    lines = []
    done = run_pipeline(overrides={"levels": [700], "samplers": {"slerp": None}}, say=lines.append)
    assert list(done.seconds) == ["compare@a"]
    assert any(done.experiment in line and "dvc exp apply" in line for line in lines)
    assert (repository / "params.yaml").read_text() == PARAMS
    assert not (repository / "data").exists()
    folder = repository / "copy"
    folder.mkdir()
    export_report(repository, done.experiment, folder)
    text = (folder / "summary.md").read_text()
    assert "- 700" in text and "slerp" not in text and "# the committed parameters" in text
    assert (folder / "overview.png").read_text() == "picture"

    points = {name: point for name, point in sweep_points(
        {"domains": {"a": {}, "b": {}}, "samplers": {"noise": {}, "slerp": {"levels": [100]}}},
        domains=["a", "b"], levels=[300], samplers=["noise"]).items()}
    results = run_sweep(points, {}, kind="sweep-1", jobs=1, root=repository, say=lines.append)
    assert results == {"sweep-1-a-L0300-noise": True, "sweep-1-b-L0300-noise": False}
    assert set(finished(repository)) == {done.experiment, "sweep-1-a-L0300-noise"}
    with pytest.raises(UnseenError, match="1 of 2 experiments failed: sweep-1-b-L0300-noise"):
        check_sweep(results)
    assert (repository / "params.yaml").read_text() == PARAMS


def test_a_repository_without_a_commit_is_told(tmp_path):
    (tmp_path / "params.yaml").write_text("levels: [1]\n")
    with pytest.raises(UnseenError, match="git commit"):
        run_pipeline(root=tmp_path, overrides={"levels": [2]}, say=str)


def test_sweep_points_narrow_the_pipeline_to_one_cell_each():
    parameters = {"domains": {"a": {}, "b": {}},
                  "samplers": {"noise": {}, "slerp": {"sampler": "slerp", "levels": [100]}}}
    points = sweep_points(parameters, domains=["a"], levels=[300, 500])
    assert points == {f"a-L0{level}": {
        "pipeline": {"domains": ["a"]}, "levels": [level],
        "samplers": {"noise": {}, "slerp": {"levels": [level]}}} for level in (300, 500)}
    points = sweep_points(parameters, domains=["a", "b"], levels=[300], samplers=["slerp"])
    assert set(points) == {"a-L0300-slerp", "b-L0300-slerp"}
    assert points["b-L0300-slerp"]["samplers"] == {"noise": None, "slerp": {"levels": [300]}}
    for wrong in ({"domains": ["c"], "levels": [1]}, {"domains": [], "levels": [1]},
                  {"domains": ["a"], "levels": []},
                  {"domains": ["a"], "levels": [1], "samplers": ["x"]}):
        with pytest.raises(UnseenError, match="sweep: ") as caught:
            sweep_points(parameters, **wrong)
        assert len(str(caught.value).splitlines()) == 1
