"""A real SQLite store: parents, children, series, images; a dead or broken store only warns."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
from workspace import ROOT

from flows.loading.seconds import record_seconds
from flows.mlflow import tracking
from flows.mlflow.store import Store, connect

pytestmark = [
    pytest.mark.contract,
    # mlflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

def runs_by_name(root):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    found = client.get_experiment_by_name("unseen")
    runs = client.search_runs([found.experiment_id]) if found else []
    by_name = {run.info.run_name: run for run in runs}
    assert len(by_name) == len(runs), "a run was written twice"
    return client, by_name


def children(by_name):
    return {name: run for name, run in by_name.items() if "/" in name}


def test_one_parent_and_the_right_children(root, cells):
    parent = tracking.open_parent({"levels": [300, 500], "fit": {"rank": 3}}, root=root)
    tracking.mirror(parent, cells, root=root, fresh={("m", "faces")})
    report = root / "compare.csv"
    report.write_text("model\n")
    tracking.close_parent(parent, root=root, metrics={"seconds": 2.5}, artifacts=[report])

    client, by_name = runs_by_name(root)
    assert len(by_name) == 1 + 2 * 4 + 2
    top = next(run for run in by_name.values() if run.info.run_id == parent)
    assert top.data.params == {"levels": "[300, 500]", "fit.rank": "3"}
    assert top.data.metrics == {"seconds": 2.5}
    assert top.info.status == "FINISHED"
    assert [entry.path for entry in client.list_artifacts(parent, "report")] == [
        "report/compare.csv"
    ]

    cell = by_name["m/faces/L0500/geometric"]
    assert cell.data.tags["mlflow.parentRunId"] == parent
    assert cell.data.tags["cached"] == "false"
    assert by_name["m/digits/L0500/geometric"].data.tags["cached"] == "true"
    axes = {"model": "m", "domain": "faces", "level": "500", "sampler": "geometric"}
    assert cell.data.params == axes | {"kind": "shrunk"}
    assert cell.data.metrics == {"kd_pixels": 0.5, "n": 64.0, "level": 500.0}
    images = client.list_artifacts(cell.info.run_id, "images")
    assert any(entry.path.endswith(".png") for entry in images)
    assert str(root / "mlartifacts") in cell.info.artifact_uri

    series = by_name["m/faces"].info.run_id
    history = client.get_metric_history(series, "kd_pixels/geometric")
    assert sorted((point.step, point.value) for point in history) == [(300, 0.3), (500, 0.5)]


def test_what_a_killed_run_left_running_is_ended_by_the_next(root, tmp_path):
    def status(run):
        return store.client.get_run(run).info.status

    killed = tracking.open_parent({}, root=root)
    store = connect(root)
    child = store.begin("m/faces", {"mlflow.parentRunId": killed})
    finished = store.begin("m/digits", {"mlflow.parentRunId": killed})
    store.end(finished)
    other = tracking.new_parent(store, {}, root=tmp_path.parent)  # another workspace, still at work
    parent = tracking.open_parent({}, root=root)
    assert [status(run) for run in (killed, child, finished, other, parent)] == [
        "KILLED", "KILLED", "FINISHED", "RUNNING", "RUNNING"]


def test_a_cell_shows_the_seconds_that_this_machine_took(root, cells):
    record_seconds(root, "m", "faces", "denoise", {"L0500-geometric": 1.5})
    tracking.mirror(tracking.open_parent({}, root=root), cells, root=root)
    _, by_name = runs_by_name(root)
    assert by_name["m/faces/L0500/geometric"].data.metrics["seconds"] == 1.5
    assert "seconds" not in by_name["m/faces/L0300/geometric"].data.metrics


def test_a_new_store_is_made_without_a_word(tmp_path):
    asked = "from pathlib import Path; from flows.mlflow.store import connect; connect(Path())"
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_LOGGING_LEVEL"}
    done = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, capture_output=True,
                          text=True, check=True, env=environment | {"PYTHONPATH": str(ROOT)})
    assert (tmp_path / "mlflow.db").is_file()
    assert (done.stdout, done.stderr) == ("", "")


def test_mirroring_twice_adds_nothing_and_a_changed_cell_is_added(root, cells):
    parent = tracking.open_parent({}, root=root)
    tracking.mirror(parent, cells[:1], root=root)
    tracking.mirror(parent, cells[:1], root=root)
    assert set(children(runs_by_name(root)[1])) == {"m/digits/L0300/noise", "m/digits"}
    tracking.mirror(parent, cells[:2], root=root)
    assert sorted(names_of_children(root)) == [
        "m/digits",
        "m/digits",
        "m/digits/L0300/geometric",
        "m/digits/L0300/noise",
    ]


def names_of_children(root):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("unseen").experiment_id
    names = [run.info.run_name for run in client.search_runs([experiment])]
    return [name for name in names if "/" in name]


def test_an_interrupted_mirror_is_completed(root, cells, monkeypatch):
    parent = tracking.open_parent({}, root=root)
    log, calls = Store.log, []

    def dies_inside_the_third_run(*arguments, **rest):
        calls.append(arguments)
        if len(calls) == 4:  # the parent's tag is the first
            raise OSError("disk full")
        log(*arguments, **rest)

    monkeypatch.setattr(Store, "log", dies_inside_the_third_run)
    tracking.mirror(parent, cells, root=root)
    states = [run.info.status for run in children(runs_by_name(root)[1]).values()]
    assert sorted(states) == ["FINISHED", "FINISHED", "RUNNING"]
    monkeypatch.setattr(Store, "log", log)
    tracking.mirror(parent, cells, root=root)
    states = [run.info.status for run in children(runs_by_name(root)[1]).values()]
    assert states == ["FINISHED"] * 10


def test_an_emptied_database_is_filled_again_from_the_metrics_files(root, cells, migrated):
    tracking.mirror(None, cells, root=root)
    before = {
        name: (run.data.params, run.data.metrics)
        for name, run in children(runs_by_name(root)[1]).items()
    }
    shutil.copy(migrated, root / "mlflow.db")
    assert runs_by_name(root)[1] == {}
    tracking.mirror(None, cells, root=root)
    after = {
        name: (run.data.params, run.data.metrics)
        for name, run in children(runs_by_name(root)[1]).items()
    }
    assert len(after) == 10
    assert after == before


def test_a_bare_repro_is_recorded_and_a_pipeline_is_left_to_itself(root, cells, monkeypatch):
    monkeypatch.setenv("UNSEEN_PARENT_RUN", "")
    tracking.record_invocation({"a": 1}, cells, root=root)
    assert runs_by_name(root)[1] == {}
    monkeypatch.delenv("UNSEEN_PARENT_RUN")
    tracking.record_invocation({"a": 1}, cells[:1], root=root)
    _, by_name = runs_by_name(root)
    parent = next(run for name, run in by_name.items() if "/" not in name)
    assert parent.data.params == {"a": "1"}
    assert len(children(by_name)) == 2


def dead_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://me:secret@127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("store", ["dead server", "no database", "unwritable place"])
def test_a_store_that_is_away_costs_one_warning(root, cells, store, monkeypatch, caplog):
    if store == "dead server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_address())
    elif store == "no database":
        (root / "mlflow.db").write_bytes(b"not a database" * 100)
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    tracking.record_invocation({"a": 1}, cells, root=root)
    lines = [record.getMessage() for record in caplog.records if record.name == "unseen"]
    assert len(lines) == 1
    assert lines[0].startswith("not recorded in the MLflow store ")
    assert "secret" not in caplog.text
    assert "\n" not in lines[0]


def test_a_store_that_fails_midway_never_raises(root, cells, monkeypatch, caplog):
    parent = tracking.open_parent({}, root=root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_address())
    tracking.mirror(parent, cells, root=root)
    tracking.close_parent(parent, root=root)
    assert caplog.text.count("not recorded in the MLflow store") == 1
    assert "python -m flows sync" in caplog.text
