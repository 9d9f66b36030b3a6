"""A Prefect server for the tests of one file, on a free port, with a database of its own."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
import requests
from repository import PATIENCE, end
from workspace import made_once


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory):
    """Prefect's folder, with the tables of its database made: that takes longer than a server."""

    def make(folder):
        folder.mkdir()
        subprocess.run([sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
                       env=os.environ | {"PREFECT_HOME": str(folder), "DO_NOT_TRACK": "true"},
                       check=True, capture_output=True, timeout=PATIENCE)

    folder = tmp_path_factory.mktemp("prefect") / "home"
    shutil.copytree(made_once(tmp_path_factory, "prefect-home", make), folder)
    return str(folder)


@pytest.fixture(scope="module")
def server(prefect_home):
    """The API address of the server, stopped after the file: one costs time while it idles."""
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
        until = time.monotonic() + PATIENCE
        while True:
            assert child.poll() is None, "the Prefect server ended"
            assert time.monotonic() < until, "the Prefect server did not answer"
            try:
                if requests.get(f"{api}/health", timeout=10).ok:
                    break
            except requests.RequestException:
                time.sleep(0.1)
        yield api
    finally:
        end(child)
