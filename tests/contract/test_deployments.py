"""The deployments of prefect.yaml on a real server with a real worker, in a tiny project."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import requests
from repository import PATIENCE, end
from ruamel.yaml import YAML
from workspace import ROOT, change, isolate

pytestmark = pytest.mark.contract


def tool(*words, environment):
    """Run a command of the environment that tests run in, to its end."""
    done = subprocess.run([sys.executable, "-m", *words], env=environment, text=True, check=False,
                          timeout=PATIENCE, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(repository):
    """The finished project in git and DVC, with a change that makes the last stage stale."""
    shutil.copy(ROOT / "prefect.yaml", repository)
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, repository)
        change(repository, "compare", "novelty", to=0.5)
        yield repository


class Server:
    """What the tests ask of the Prefect API."""

    def __init__(self, api):
        self.api = api

    def ask(self, method, place, content=None):
        until = time.monotonic() + PATIENCE
        while True:
            answer = requests.request(method, f"{self.api}/{place}", json=content, timeout=PATIENCE)
            # A busy server says "Service Unavailable", and wants to be asked again.
            if answer.status_code != 503 or time.monotonic() > until:
                assert answer.ok, answer.text
                return answer.json()
            time.sleep(0.5)

    def find(self, kind, **filters):
        return self.ask("POST", f"{kind}/filter", filters)

    def trigger(self, deployment):
        return self.ask("POST", f"deployments/{deployment['id']}/create_flow_run",
                        {"state": {"type": "SCHEDULED"}})["id"]

    def await_state(self, run, *wanted):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            state = self.ask("GET", f"flow_runs/{run}")["state"]
            if state["type"] in wanted:
                return state
            assert state["type"] not in ("FAILED", "CRASHED"), state
            time.sleep(0.2)
        raise AssertionError(f"{run} stayed {state}")


@pytest.fixture(scope="module")
def deployed(project, server, prefect_home):
    """The environment of the three lines in prefect.yaml, after the first two of them."""
    environment = os.environ | {
        "PREFECT_API_URL": server, "PREFECT_HOME": prefect_home,
        "PREFECT_WORKER_QUERY_SECONDS": "1", "DO_NOT_TRACK": "true",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.1"}
    tool("prefect", "work-pool", "create", "unseen", "--type", "process", environment=environment)
    tool("prefect", "--no-prompt", "deploy", "--all", environment=environment)
    return environment


@pytest.fixture(scope="module")
def nightly_run(deployed, server, project):
    """The nightly deployment, triggered twice at once, and the log of its worker."""
    log = project.parent / "worker.log"
    with log.open("w") as stream:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "unseen"],
            env=deployed, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True)
    view = Server(server)
    nightly = next(one for one in view.find("deployments") if one["name"] == "nightly")
    try:
        first = view.trigger(nightly)
        view.await_state(first, "RUNNING")
        second = view.trigger(nightly)
        refusal = view.await_state(second, "CANCELLED")
        assert view.await_state(first, "COMPLETED", "RUNNING")["type"] == "RUNNING"
        view.await_state(first, "COMPLETED")
        yield first, refusal, nightly
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()}") from None
    finally:
        end(worker, patience=10)  # its runs are over; beside a busy server it may take minutes


def test_every_deployment_is_there_and_the_nightly_one_is_planned(deployed, server):
    view = Server(server)
    found = {one["name"]: one for one in view.find("deployments")}
    assert set(found) >= {"nightly", "domain", "sweep"}
    for name in ("nightly", "domain", "sweep"):
        assert found[name]["global_concurrency_limit"]["limit"] == 1
        assert found[name]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert set(found["nightly"]["parameter_openapi_schema"]["properties"]) == {
        "params", "overrides", "domains", "targets", "pull", "push"}
    only = {"deployments": {"id": {"any_": [found["nightly"]["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    until = time.monotonic() + PATIENCE
    while len(planned := view.find("flow_runs", **only)) < 2:
        assert time.monotonic() < until, "no run was planned"
        time.sleep(0.5)
    assert {run["expected_start_time"][11:16] for run in planned if run["auto_scheduled"]} == {
        "03:00"}


def test_the_nightly_deployment_brings_the_pipeline_up_to_date(nightly_run, server, project):
    view = Server(server)
    run, _, _ = nightly_run
    tasks = view.find("task_runs", flow_runs={"id": {"any_": [run]}})
    assert [task["name"].rpartition("-")[0] for task in tasks] == ["dvc-repro"]
    logs = [line["message"] for line in view.find(
        "logs", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")]
    assert [line for line in logs if line.startswith("Running stage")] == [
        "Running stage 'compare':"]
    stage, = view.find("flow_runs", flow_runs={"name": {"any_": ["compare"]}})
    assert stage["state_type"] == "COMPLETED"
    parts = view.find("task_runs", flow_runs={"id": {"any_": [stage["id"]]}})
    assert {part["name"] for part in parts} >= {"front", "distance_over_level"}
    params = YAML(typ="safe").load((project / "params.yaml").read_text("utf-8"))
    assert params["compare"]["novelty"] == 0.5


def test_a_run_shows_its_table_and_its_pictures(nightly_run, server, project):
    run, _, _ = nightly_run
    found = Server(server).find("artifacts", flow_runs={"id": {"any_": [run]}})
    artifacts = {one["key"]: one for one in found}
    table = artifacts["unseen-pipeline"]
    assert table["type"] == "markdown"
    assert (project / "data/report/summary.md").read_text() in table["data"]
    assert "| compare |" in table["data"]
    best = json.loads((project / "data/report/best.json").read_text())
    sheets = {f"sheet-{pair.replace('/', '-')}" for pair in best}
    for key in {"unseen-overview", "unseen-front"} | sheets:
        assert artifacts[key]["type"] == "image"
        assert artifacts[key]["data"].startswith("data:image/jpeg;base64,/9j/")


def test_a_second_run_at_the_same_time_is_refused(nightly_run):
    _, refusal, _ = nightly_run
    assert refusal["name"] == "Cancelled"
    assert "concurrency limit" in refusal["message"]
