"""What stages per model found, in a real SQLite store: one run each, with curves and files."""

import json
from itertools import product

import pytest
from PIL import Image

from flows.loading.metrics import invocation_cells
from flows.loading.reports import read_stages
from flows.mlflow import tracking
from flows.mlflow.store import connect

pytestmark = [
    pytest.mark.contract,
    # mlflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]


@pytest.fixture
def staged(root):
    """The workspace with reports of two stages beside its metrics."""
    steer, applications = root / "data/steer/m", root / "data/applications/m"
    for folder in (steer, applications):
        folder.mkdir(parents=True)
    (steer / "steer.json").write_text(json.dumps({
        "model": "m", "method": "dpm3m", "settings": {"images": 4, "skips": [0.1]},
        "teleport": {"unchanged_share": 0.5, "grid": [0, 1], "rows": [{"saved": 1}]}}))
    (steer / "teleport.csv").write_text(
        "jump,saved,kernel,kernel_low,kernel_high\nlaw,0,0.25,0,1\nlaw,4,0.5,0,1\nmean,4,,0,1\n")
    Image.new("RGB", (8, 8)).save(steer / "steer.png")
    (applications / "applications.json").write_text(json.dumps({"model": "m"}))
    (applications / "anonymise.csv").write_text(
        "domain,level,moved_rms,moved_rms_predicted\nfaces,100,0.125,0.25\nfaces,200,0.5,0.75\n")
    return root


def stage_runs(root):
    """Return the runs of stages by name, newest first."""
    found = {}
    for run in connect(root).find("tags.`unseen.kind` = 'analysis'"):
        found.setdefault(run.name, []).append(run)
    return found


def test_a_stage_is_one_run_with_curves_parameters_and_files(staged):
    parent = tracking.open_parent({}, root=staged)
    tracking.mirror(parent, read_stages(staged, {"m"}), root=staged, fresh={("m", "steer")})
    runs = stage_runs(staged)
    assert {name: len(found) for name, found in runs.items()} == {"m/steer": 1,
                                                                  "m/applications": 1}
    (steer,), (applications,) = runs["m/steer"], runs["m/applications"]
    assert steer.tags["mlflow.parentRunId"] == parent
    assert (steer.tags["cached"], applications.tags["cached"]) == ("false", "true")
    assert steer.parameters == {"model": "m", "stage": "steer", "method": "dpm3m",
                                "settings.images": "4", "settings.skips": "[0.1]"}
    client = connect(staged).client
    assert client.get_run(steer.id).data.metrics == {
        "teleport/unchanged_share": 0.5, "teleport/kernel/law": 0.5}
    points = client.get_metric_history(steer.id, "teleport/kernel/law")
    assert sorted((point.step, point.value) for point in points) == [(0, 0.25), (4, 0.5)]
    for name, values in (("moved_rms", [0.125, 0.5]), ("moved_rms_predicted", [0.25, 0.75])):
        points = client.get_metric_history(applications.id, f"anonymise/{name}/faces")
        assert sorted((point.step, point.value) for point in points) == [*zip((100, 200), values,
                                                                               strict=True)]
    files = {entry.path for entry in client.list_artifacts(steer.id, "steer")}
    assert files == {f"steer/{name}" for name in ("steer.json", "steer.png", "teleport.csv")}


def test_a_repeated_stage_points_to_the_run_that_has_its_files(staged):
    for _ in range(2):
        tracking.record_invocation({}, invocation_cells(staged, {("m", "faces")})[:1], root=staged)
    again, first = stage_runs(staged)["m/steer"]
    assert again.tags["unseen.computed_in"] == first.id
    client = connect(staged).client
    assert client.list_artifacts(first.id, "steer") and not client.list_artifacts(again.id, "steer")
    parent = again.tags["mlflow.parentRunId"]
    tracking.mirror(parent, read_stages(staged, {"m"}), root=staged)
    assert len(stage_runs(staged)["m/steer"]) == 2


def test_a_bare_repro_and_sync_agree_on_what_there_is(staged, cells, monkeypatch):
    mirrored = []
    monkeypatch.setattr(tracking, "mirror", lambda parent, found, root: mirrored.append(found))
    tracking.record_invocation({}, cells, root=staged)
    pairs = {*product(["m"], ["digits", "faces"])}
    assert mirrored == [invocation_cells(staged, pairs)]
    assert [record["stage"] for record in mirrored[0] if "stage" in record] == ["steer",
                                                                               "applications"]
