"""Ports, and that both servers stop with us."""

import os
import signal
import socket
import sys
import threading

import pytest

from flows import serve as module
from flows.serve import serve
from unseen_core.errors import UnseenError


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "UNSEEN_MLFLOW_PORT", "UNSEEN_PREFECT_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", ["UNSEEN_MLFLOW_PORT", "UNSEEN_PREFECT_PORT"])
def test_a_taken_port_is_one_line_that_names_the_variable(tmp_path, monkeypatch, variable):
    free, other = free_port(), "UNSEEN_PREFECT_PORT"
    monkeypatch.setenv("UNSEEN_MLFLOW_PORT", str(free))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv(other, str(free_port()))
        monkeypatch.setenv(variable, str(taken.getsockname()[1]))
        with pytest.raises(UnseenError, match=f"is not free; set {variable}"):
            serve(root=tmp_path)


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1"])
def test_a_port_is_a_number_in_range(tmp_path, monkeypatch, text):
    monkeypatch.setenv("UNSEEN_MLFLOW_PORT", text)
    with pytest.raises(UnseenError, match="is not a valid port"):
        serve(root=tmp_path)


def stand_in(*words, port):
    """Return the command of a small server in place of the real ones."""
    return [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]


def test_sigterm_stops_both(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_module", stand_in)
    ports = [free_port(), free_port()]
    lines = []

    def say(line):
        lines.append(line)
        if line.startswith("Ctrl-C"):
            for port in ports:
                socket.create_connection(("127.0.0.1", port)).close()
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()

    before = signal.getsignal(signal.SIGTERM)
    serve(root=tmp_path, mlflow_port=ports[0], prefect_port=ports[1], say=say)
    assert lines[:2] == [
        f"MLflow   http://127.0.0.1:{ports[0]}",
        f"Prefect  http://127.0.0.1:{ports[1]}",
    ]
    assert signal.getsignal(signal.SIGTERM) is before
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_server_that_ends_by_itself_is_reported_and_the_other_stopped(tmp_path, monkeypatch):
    def command(*words, port):
        if words[0] == "prefect":
            return [sys.executable, "-c", "raise SystemExit(3)"]
        return stand_in(port=port)

    monkeypatch.setattr(module, "_module", command)
    port = free_port()
    with pytest.raises(UnseenError, match="the Prefect server did not start"):
        serve(root=tmp_path, mlflow_port=port, prefect_port=free_port(), say=str)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_remote_store_is_named_not_served(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example")
    monkeypatch.setattr(module, "_module", lambda *words, port: [sys.executable, "-c", "1"])
    lines = []
    with pytest.raises(UnseenError, match="Prefect"):
        serve(root=tmp_path, prefect_port=free_port(), say=lines.append)
    assert lines == ["MLflow   https://mlflow.example  (MLFLOW_TRACKING_URI, served elsewhere)"]
