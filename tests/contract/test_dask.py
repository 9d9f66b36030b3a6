"""Parts done by worker processes of a Dask cluster: equal bytes, and a lost worker costs time."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from distributed import Client
from repository import PATIENCE, end
from workspace import (
    DOMAIN,
    MODEL,
    ROOT,
    SAMPLERS,
    SEEN,
    change,
    contents,
    copied_project,
    enter_copy,
    fetch_all,
    run_stages,
)

import flows.stages.denoise
import flows.stages.invert
from flows.prefect.workers import PATIENT, is_spread
from unseen_core.errors import UnseenError

pytestmark = pytest.mark.contract
PARTS = 8  # of invert: one for each fit image
DENOISED = 8  # of denoise: two samplers at two levels, two parts each
LATENTS, GENERATED = Path("data/latents", MODEL, DOMAIN), Path("data/generated", MODEL, DOMAIN)


@pytest.fixture(scope="module")
def hosts():
    """A scheduler and two workers, each with an address of its own, as on three machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    worker = [address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    words = {"scheduler": ["scheduler", "--host", address, "--no-dashboard", "--no-show"],
             "one": ["worker", *worker, "--host", "127.0.0.1", "--name", "one"],
             "two": ["worker", *worker, "--host", "127.0.0.2", "--name", "two"]}
    children = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | PATIENT | {"PYTHONPATH": str(ROOT)})
        for name, (kind, *options) in words.items()}
    try:
        with Client(address, timeout=PATIENCE) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
        yield children | {"address": address}
    finally:
        for child in reversed(children.values()):
            end(child)


@pytest.fixture(scope="module")
def made(blank, tmp_path_factory):
    """A project whose latents and images one process has made, in parts of one or two."""
    folder = tmp_path_factory.mktemp("made") / "project"
    with copied_project(blank, folder):
        change(folder, "compute", to={"device": "cpu", "threads": 2})
        change(folder, "invert", "part_size", to=1)
        change(folder, "sample", "part_size", to=2)
        change(folder, "samplers", to={name: SAMPLERS[name] for name in ("noise", "slerp")})
        fetch_all((DOMAIN, SEEN))
        run_stages(["invert", "fit", "sample", "denoise"])
    return folder


@pytest.fixture
def spread(made, tmp_path, monkeypatch, server, hosts):
    """A copy of it as the working directory, whose stages go to the workers.

    Gives the calls made in this process, which does a part itself where a busy server (its SQLite
    answers 503 now and then) has lost the task.
    """
    enter_copy(made, tmp_path, monkeypatch)
    monkeypatch.setenv("PREFECT_API_URL", server)
    monkeypatch.setenv("UNSEEN_TASK_RUNNER", "dask")
    monkeypatch.setenv("UNSEEN_DASK_ADDRESS", hosts["address"])
    here = []

    def counted(true):
        return lambda *a, **k: here.append(a) or true(*a, **k)

    monkeypatch.setattr("flows.stages.invert.carry_up", counted(flows.stages.invert.carry_up))
    monkeypatch.setattr("flows.stages.denoise.denoise_starts",
                        counted(flows.stages.denoise.denoise_starts))
    return here


def pictures():
    """Return what ``denoise`` published."""
    return contents(GENERATED)


def test_workers_of_two_hosts_make_the_bytes_of_one_process(spread):
    latents, images = contents(LATENTS), pictures()
    shutil.rmtree(LATENTS)
    run_stages(["invert"])
    assert contents(LATENTS) == latents
    assert len(spread) < PARTS
    spread.clear()
    shutil.rmtree(GENERATED)
    run_stages(["denoise"])
    assert pictures() == images
    assert len(spread) < DENOISED


def test_a_killed_worker_costs_nothing_but_time(spread, hosts):
    latents, left = contents(LATENTS), []
    shutil.rmtree(LATENTS)

    def kill_one():
        until = time.monotonic() + PATIENCE
        while not (done := list(Path(".work").glob("invert-*/L0200/*.sha256"))):
            if time.monotonic() > until:
                return
            time.sleep(0.001)
        hosts["one"].kill()
        left.append(PARTS - len(done))

    thread = threading.Thread(target=kill_one)
    thread.start()
    run_stages(["invert"])
    thread.join()
    assert left and left[0] > 0  # it died with parts still to be made
    assert contents(LATENTS) == latents


def test_another_runner_is_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("UNSEEN_TASK_RUNNER", "ray")
    with pytest.raises(UnseenError, match="UNSEEN_TASK_RUNNER=ray is not a task runner; use"):
        is_spread("invert")
    monkeypatch.setenv("UNSEEN_TASK_RUNNER", "dask")
    assert is_spread("denoise") and not is_spread("fit")
