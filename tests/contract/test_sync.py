"""MLflow unreachable, slow or full: one warning, and `sync` records the missing runs."""

import json
import shutil
import socket
import subprocess
from contextlib import contextmanager

import pytest
from workspace import full_disk, parameters, write_parameters

from flows.mlflow import tracking
from flows.mlflow.store import connect
from flows.mlflow.sync import sync
from unseen_core.errors import UnseenError

pytestmark = [
    pytest.mark.contract,
    # mlflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture
def project(root):
    """The workspace with parameters that name its model and domains."""
    params = parameters()
    params["pipeline"] = {"models": ["m"], "domains": ["digits", "faces"]}
    params["models"]["m"] = params["models"]["tiny"]
    params["domains"]["faces"] = params["domains"]["digits"]
    write_parameters(root, params)
    report = root / "data/report"
    report.mkdir()
    (report / "compare.csv").write_text("model\n")
    return root


def recorded(root):
    """Return the parents, newest first, each with the runs below it by name."""
    runs = list(connect(root).find(""))
    below = {}
    for run in runs:
        below.setdefault(run.tags.get("mlflow.parentRunId"), {})[run.name] = run
    return [(run, below.get(run.id, {})) for run in runs if "mlflow.parentRunId" not in run.tags]


def warnings_of(caplog):
    """Return what was said of the store."""
    return [record.getMessage() for record in caplog.records if record.name == "unseen"]


@contextmanager
def silent_server(monkeypatch):
    """Serve an address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server, monkeypatch.context() as patch:
        port = server.getsockname()[1]
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


@contextmanager
def out_of_patience(monkeypatch):
    """Give a store no time, as if each of its answers had taken long."""
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "PATIENCE", -1.0)
        yield


@contextmanager
def no_database(root, content):
    """Have a folder, or a file of another kind, where the store belongs."""
    place, kept = root / "mlflow.db", root / "kept.db"
    place.rename(kept)
    if content is None:
        place.mkdir()
    else:
        place.write_bytes(content)
    yield
    if content is None:
        place.rmdir()
    kept.rename(place)


@pytest.mark.parametrize("trouble", ["silent", "slow", "full", "folder", "foreign"])
def test_a_troubled_store_is_named_once_and_synced_later(project, cells, trouble, monkeypatch,
                                                         caplog):
    store = {"silent": lambda: silent_server(monkeypatch), "full": lambda: full_disk(100_000),
             "slow": lambda: out_of_patience(monkeypatch),
             "folder": lambda: no_database(project, None),
             "foreign": lambda: no_database(project, b"not a database" * 100)}[trouble]
    with store():
        tracking.record_invocation({"a": 1}, cells, root=project)
    line, = warnings_of(caplog)
    assert line.startswith("not recorded in the MLflow store ")
    assert line.endswith("`python -m flows sync` does it later")
    assert not [run for run, below in recorded(project) if below]

    said = []
    assert sync(root=project, say=said.append) == 10
    assert said[0].startswith("recorded 10 runs below run ")
    (parent, below), = [found for found in recorded(project) if found[1]]
    assert len(below) == 10
    assert {run.status for run in (parent, *below.values())} == {"FINISHED"}


def test_a_second_sync_adds_nothing_and_says_so(project):
    said = []
    assert sync(root=project, say=said.append) == 10
    before = recorded(project)
    assert sync(root=project, say=said.append) == 0
    assert said[1].startswith("nothing to add: all 8 cells are below run ")
    assert recorded(project) == before
    (parent, _), = before
    client = connect(project).client
    files = [entry.path for entry in client.list_artifacts(parent.id, "report")]
    assert files == ["report/compare.csv"]
    assert client.get_run(parent.id).data.params["pipeline.domains"] == '["digits", "faces"]'


def test_what_the_pipeline_recorded_is_not_recorded_again(project, cells):
    tracking.record_invocation({}, cells, root=project)
    assert sync(root=project, say=lambda line: None) == 0
    assert len(recorded(project)) == 1


def test_an_interrupted_sync_is_completed_under_the_same_parent(project):
    with unreadable_pictures(project), pytest.raises(UnseenError, match="sync again"):
        sync(root=project, say=lambda line: None)
    assert 0 < sync(root=project, say=lambda line: None) < 10
    (parent, below), = recorded(project)
    assert parent.status == "FINISHED"
    assert len(below) == 10


@contextmanager
def unreadable_pictures(project):
    """Let the pictures of the second domain fail."""
    folder = project / "data/generated/m/faces"
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    for file in folder.iterdir():
        file.write_bytes(b"no picture")
    yield
    shutil.rmtree(folder)
    kept.rename(folder)


def test_repeated_cells_point_to_the_run_that_has_their_pictures(project, cells):
    tracking.record_invocation({}, cells, root=project)
    file = project / "data/metrics/m/faces.json"
    content = json.loads(file.read_text())
    content["cells"][0]["metrics"]["kd_pixels"] = 7.0
    file.write_text(json.dumps(content))
    assert sync(root=project, say=lambda line: None) == 10
    (_, again), (_, first) = recorded(project)
    client = connect(project).client
    new = {name for name, run in again.items() if run.tags["cached"] == "false"}
    assert new == {"m/faces", "m/faces/L0300/noise"}
    for name, run in again.items():
        pictures = client.list_artifacts(run.id, "images")
        if name in new:
            assert pictures
            assert "unseen.computed_in" not in run.tags
        else:
            assert run.tags["unseen.computed_in"] == first[name].id
            assert not pictures
            assert client.list_artifacts(first[name].id, "images")


def test_the_parent_names_the_commit_that_wrote_the_lock(project):
    git = ["git", "-C", str(project), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    (project / "dvc.lock").write_text("schema: '2.0'\n")
    for words in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-q", "-m", "results"],
                  ["commit", "-q", "--allow-empty", "-m", "something else"]):
        subprocess.run([*git, *words], check=True)
    log = subprocess.run([*git, "log", "--format=%H"], check=True, capture_output=True, text=True)
    head, results = log.stdout.split()
    sync(root=project, say=lambda line: None)
    (parent, _), = recorded(project)
    assert parent.tags["dvc_lock_commit"] == results
    assert parent.tags["git_commit"] == head


def test_nothing_to_record_and_no_store_are_one_line_each(project, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
        with pytest.raises(UnseenError, match="MLflow store is not usable") as caught:
            sync(root=project)
        assert len(str(caught.value).splitlines()) == 1
    shutil.rmtree(project / "data/metrics")
    with pytest.raises(UnseenError, match="holds no metrics"):
        sync(root=project)
