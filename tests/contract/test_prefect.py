"""A real Prefect server records real flow runs; without one prefect is not even imported."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from repository import PATIENCE, end

pytestmark = pytest.mark.contract

ROOT = Path(__file__).resolve().parents[2]

NO_OP = """
import json, sys
from flows.running.registry import stage
from flows.dispatch import run_stage

@stage("quick")
def quick(run, *, model):
    return {"values": run.map(str.upper, ["a", "b"], name=str), "model": model}

outcome = run_stage("quick", {"model": "m"})
print(json.dumps([outcome, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

RECORDED = """
import functools, json
from flows.prefect import runs as recorded
from flows.running.registry import stage
from flows.dispatch import run_stage
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
        timeout=PATIENCE,
    )


@pytest.fixture(scope="module")
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

    mine = {"flow_runs": {"tags": {"all_": ["invocation-1"]}}}  # another test uses the server too

    def runs(kind):
        chosen = mine if kind.endswith("_runs") else {}
        found = requests.post(f"{server}/{kind}/filter", json=chosen, timeout=PATIENCE)
        return found.json()

    # Task runs and logs reach the database a moment after the flow has ended.
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
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


def away():
    """Return an address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/api"


def test_a_missing_server_costs_the_record_and_one_line(prefect_home):
    address = away()
    done = run_script(NO_OP, PREFECT_API_URL=address, PREFECT_HOME=prefect_home)
    outcome, modules = json.loads(done.stdout)
    assert outcome == {"values": ["A", "B"], "model": "m"}
    assert "prefect" not in modules
    line = f"not recorded in Prefect: the server at PREFECT_API_URL={address} does not answer"
    assert done.stderr.splitlines() == [line]


def test_a_server_that_accepts_but_never_answers_is_given_up_soon(prefect_home):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"http://127.0.0.1:{mute.getsockname()[1]}/api"
        done = run_script(NO_OP, PREFECT_API_URL=address, PREFECT_HOME=prefect_home)
    assert json.loads(done.stdout)[0]["values"] == ["A", "B"]
    assert len(done.stderr.splitlines()) == 1


LOST = """
import pathlib, sys, time
from flows.running.registry import stage
from flows.dispatch import run_stage

def part(name):
    if name == "b":
        pathlib.Path(sys.argv[1]).touch()
        while pathlib.Path(sys.argv[1]).exists():
            time.sleep(0.05)
    return name.upper()

@stage("invert")
def invert(run, *, model):
    first = run.map(part, ["a", "b", "c"], name=str)
    return {"values": first + run.map(part, ["d"], name=str)}

print(run_stage("invert", {"model": "m"}))
"""


def test_a_server_that_is_lost_meanwhile_costs_the_record_and_one_line(
    server, prefect_home, tmp_path
):
    mark = tmp_path / "reached"
    with contextlib.ExitStack() as stack:
        with Relay(urlsplit(server).port) as relay:
            kept = {key: value for key, value in os.environ.items()
                    if not key.startswith("PREFECT")}
            child = subprocess.Popen(
                [sys.executable, "-c", LOST, str(mark)], cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=kept | {"PREFECT_API_URL": f"http://127.0.0.1:{relay.port}/api",
                            "PREFECT_HOME": prefect_home, "PREFECT_CLIENT_MAX_RETRIES": "0"})
            stack.callback(end, child)
            until = time.monotonic() + PATIENCE
            while not mark.exists():
                assert child.poll() is None and time.monotonic() < until
                time.sleep(0.05)
        mark.unlink()
        output, errors = child.communicate(timeout=PATIENCE)
    assert child.returncode == 0, errors
    assert output.splitlines()[-1] == "{'values': ['A', 'B', 'C', 'D']}"
    assert errors.count("not recorded in Prefect from here on") == 1
    assert "Traceback" not in errors


class Relay:
    """A port that passes bytes on to another one, until it is left."""

    def __init__(self, target):
        self._target, self._open = target, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Closing alone does not wake a thread that waits in accept or recv.
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def test_without_an_address_prefect_is_never_imported():
    done = run_script(NO_OP)
    outcome, modules = json.loads(done.stdout)
    assert outcome == {"values": ["A", "B"], "model": "m"}
    assert not {"prefect", "mlflow", "dvc", "torch"} & set(modules)
