"""A real MLflow server on loopback: what its users find there of a finished project."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from repository import PATIENCE, end
from workspace import DOMAIN, MODEL, OTHER

from flows.dispatch import run_stage
from flows.mlflow.provenance import datasets
from flows.mlflow.sync import sync
from flows.priors import load_prior
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError

pytestmark = pytest.mark.contract


@pytest.fixture
def server(done, migrated, monkeypatch):
    """An MLflow server with a database and an artifact store of its own, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = done.parent / "server"
    place.mkdir()
    shutil.copy(migrated, place / "mlflow.db")
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port",
               str(port), "--workers", "1", "--backend-store-uri",
               f"sqlite:///{place / 'mlflow.db'}", "--artifacts-destination",
               str(place / "artifacts")]
    quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (place / "log").open("wb") as log, subprocess.Popen(
            command, env=quiet, cwd=place, stdout=log, stderr=log) as process:
        try:
            until = time.monotonic() + PATIENCE
            while not answers(f"{address}/health"):
                assert process.poll() is None and time.monotonic() < until, (
                    (place / "log").read_text())
                time.sleep(0.2)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(PATIENCE)))
            monkeypatch.delenv("UNSEEN_PARENT_RUN")
            yield address
        finally:
            end(process)


def answers(address):
    """Say whether a server is there."""
    try:
        with urllib.request.urlopen(address, timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def test_users_find_domains_levels_images_inputs_and_priors(done, server):
    from mlflow import MlflowClient

    run_stage("compare")  # the last stage of a bare `dvc repro`
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("unseen").experiment_id

    def find(query):
        return client.search_runs([experiment], query)

    parent, = find("tags.`unseen.kind` = 'invocation'")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["levels"] == "[100, 200]"
    below = find(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    series = {run.info.run_name: run for run in below
              if run.data.tags["unseen.kind"] == "series"}
    assert set(series) == {f"{MODEL}/{DOMAIN}", f"{MODEL}/{OTHER}"}

    # The table: a row per cell, filtered by the UI's own means.
    rows = find(f"params.domain = '{DOMAIN}' and params.sampler = 'slerp' and metrics.level > 150")
    cell, = rows
    assert cell.info.run_name == f"{MODEL}/{DOMAIN}/L0200/slerp"
    assert {"kd_projections", "novelty", "in_target", "level"} <= set(cell.data.metrics)
    assert client.list_artifacts(cell.info.run_id, "images")

    # The chart: a metric over levels, a line per domain.
    for run in series.values():
        history = client.get_metric_history(run.info.run_id, "kd_projections/slerp")
        assert sorted(point.step for point in history) == [100, 200]
        pictures = [entry.path for entry in client.list_artifacts(run.info.run_id, "images")]
        for step in (100, 200):
            assert [path for path in pictures if re.search(rf"slerp\W+step\W+{step}\W", path)]

    # The inputs: the fetched images by content.
    used = {made.dataset.digest: (made.dataset.name, made.tags[0].value)
            for made in cell.inputs.dataset_inputs}
    assert used == {made.digest: (DOMAIN, made.side) for made in datasets(done, DOMAIN)}
    assert set(used.values()) == {(DOMAIN, "fit"), (DOMAIN, "held_out")}

    stored = client.list_artifacts(series[f"{MODEL}/{DOMAIN}"].info.run_id, "priors")
    assert [entry.path for entry in stored] == [
        f"priors/L{level:04d}.{ending}" for level in (0, 100, 200)
        for ending in ("json", "safetensors")]

    assert sync(root=done, say=lambda line: None) == 0

    run = series[f"{MODEL}/{DOMAIN}"].info.run_id
    drawn, kept = (load_prior(source, 200, "empirical").sample(Streams(0, "draws", ["0", "1"]))
                   for source in (run, done / "data/priors" / MODEL / DOMAIN))
    assert torch.equal(drawn, kept)
    assert drawn.shape == (2, 3 * 16 * 16)
    with pytest.raises(UnseenError, match="holds no priors; name a run MODEL/DOMAIN"):
        load_prior(cell.info.run_id, 200, "empirical")
    with pytest.raises(UnseenError, match="the priors of run nothing cannot be read"):
        load_prior("nothing", 200, "empirical")
