"""A real Prefect server records real flow runs; without one prefect is not even imported."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]

NO_OP = """
import json, sys
from flows.stage import run_stage, stage

@stage("quick")
def quick(run, *, model):
    return {"values": run.map(str.upper, ["a", "b"], name=str), "model": model}

outcome = run_stage("quick", {"model": "m"})
print(json.dumps([outcome, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

RECORDED = """
import functools, json
from flows import recorded
from flows.stage import run_stage, stage
from unseen_core.errors import UnseenError

attempts = {"flaky": 0, "wrong": 0}

def part(name):
    if name in attempts:
        attempts[name] += 1
    if name == "flaky" and attempts[name] == 1:
        raise RuntimeError("device lost")
    if name == "wrong":
        raise UnseenError("params.yaml: levels: give a number")
    return {"length": len(name)}

@stage("invert")
def invert(run, *, model, domain):
    run.log.warning("inverting %s", domain)
    names = ["one", "flaky"] + (["wrong"] if domain == "faces_2" else [])
    parts = run.map(part, names, name=lambda name: f"{model}/{domain}/{name}")
    return {"parts": len(parts), "length": sum(part["length"] for part in parts)}

recorded.PrefectRun = functools.partial(recorded.PrefectRun, delay=0)
result = run_stage("invert", {"model": "m", "domain": "digits"})
try:
    run_stage("invert", {"model": "m", "domain": "faces_2"})
    caught = None
except UnseenError as error:
    caught = [type(error).__name__, str(error)]
print(json.dumps({"result": result, "caught": caught, "attempts": attempts}))
"""


def run_script(script, **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=kept | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory):
    return str(tmp_path_factory.mktemp("prefect"))


@pytest.fixture(scope="session")
def server(prefect_home):
    """The API address of a Prefect server of its own, stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--analytics-off"]
    child = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", port],
        env=os.environ | {"PREFECT_HOME": prefect_home, "DO_NOT_TRACK": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    api = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(600):
            assert child.poll() is None, "the Prefect server ended"
            try:
                if requests.get(f"{api}/health", timeout=1).ok:
                    break
            except requests.RequestException:
                time.sleep(0.1)
        else:
            pytest.fail("the Prefect server did not answer")
        yield api
    finally:
        child.terminate()
        child.wait(30)


@pytest.fixture(scope="session")
def recorded(server, prefect_home):
    """What the script printed, its standard error, and the API's view of it afterwards."""
    done = run_script(
        RECORDED,
        PREFECT_API_URL=server,
        PREFECT_HOME=prefect_home,
        PREFECT_LOGGING_TO_API_BATCH_INTERVAL="0.1",
        UNSEEN_PARENT_RUN="invocation-1",
    )
    assert done.returncode == 0, done.stderr

    def runs(kind):
        found = requests.post(f"{server}/{kind}/filter", json={}, timeout=30)
        return found.json()

    # Task runs and logs reach the database a moment after the flow has ended.
    for _ in range(100):
        view = {kind: runs(kind) for kind in ("flow_runs", "task_runs", "artifacts", "logs")}
        if sum(run["state_type"] in ("COMPLETED", "FAILED") for run in view["task_runs"]) == 5:
            break
        time.sleep(0.1)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr, view


def test_a_stage_is_a_flow_run_with_a_task_for_each_part(recorded):
    printed, _, view = recorded
    assert printed["result"] == {"parts": 2, "length": 8}
    flows = {run["name"]: run for run in view["flow_runs"]}
    assert set(flows) == {"invert-m-digits", "invert-m-faces_2"}
    digits = flows["invert-m-digits"]
    assert digits["state_type"] == "COMPLETED"
    assert set(digits["tags"]) == {"invert", "m", "digits", "invocation-1"}
    assert digits["parameters"] == {"targets": {"model": "m", "domain": "digits"}}
    names = {run["name"] for run in view["task_runs"] if run["flow_run_id"] == digits["id"]}
    assert names == {"m/digits/one", "m/digits/flaky"}


def test_a_failing_part_is_tried_again_and_named(recorded):
    printed, _, view = recorded
    assert printed["attempts"]["flaky"] == 3  # twice for digits, once more for faces
    counts = {run["name"]: run["run_count"] for run in view["task_runs"]}
    assert (counts["m/digits/one"], counts["m/digits/flaky"]) == (1, 2)


def test_a_mistake_comes_out_unchanged_after_one_attempt_without_traceback(recorded):
    printed, errors, view = recorded
    assert printed["caught"] == ["UnseenError", "params.yaml: levels: give a number"]
    assert printed["attempts"]["wrong"] == 1
    states = {run["name"]: run["state_type"] for run in view["task_runs"] + view["flow_runs"]}
    assert states["m/faces_2/wrong"] == states["invert-m-faces_2"] == "FAILED"
    assert "give a number" in errors
    assert "Traceback" not in errors
    assert not [
        record
        for record in view["logs"]
        if "give a number" in record["message"] and "Traceback" in record["message"]
    ]


def test_artifacts_and_logs_are_recorded(recorded):
    _, _, view = recorded
    artifacts = {artifact["key"]: artifact for artifact in view["artifacts"]}
    assert float(artifacts["invert-m-digits-progress"]["data"]) == 100.0
    rows = json.loads(artifacts["invert-m-digits"]["data"])
    assert {"name": "parts", "value": "2"} in rows
    assert any(record["message"] == "inverting digits" for record in view["logs"])


def test_a_missing_server_is_one_clear_line(prefect_home):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
    done = run_script(NO_OP, PREFECT_API_URL=address, PREFECT_HOME=prefect_home)
    last = done.stderr.splitlines()[-1]
    assert f"UnseenError: no Prefect server answers at PREFECT_API_URL={address}" in last


def test_without_an_address_prefect_is_never_imported():
    done = run_script(NO_OP)
    outcome, modules = json.loads(done.stdout)
    assert outcome == {"values": ["A", "B"], "model": "m"}
    assert not {"prefect", "mlflow", "dvc", "torch"} & set(modules)
