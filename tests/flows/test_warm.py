"""A command handed to the warm process is run as it would have run by itself."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from workspace import ROOT

from flows.running.warm import VARIABLE, hand_over, warm_stages

CLIENT = """
import sys
sys.path[0] = sys.argv.pop(1)
from flows.running.warm import hand_over
sys.path[0] = sys.argv.pop(1)
code = hand_over()
sys.exit(99 if code is None else code)
"""
STAGE = """
import os, signal, sys, time
def main():
    assert "torch" in sys.modules
    print(*sys.argv[1:], os.environ["COLOUR"], os.path.basename(os.getcwd()), input())
    print("a mistake", file=sys.stderr)
    if sys.argv[1] == "sleep":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        print(os.getpid(), flush=True)
        time.sleep(600)
    sys.exit(3)
"""


@pytest.fixture
def project(tmp_path):
    """A folder with a `flows` of its own, as an experiment of DVC has."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/__init__.py").touch()
    (tmp_path / "flows/__main__.py").write_text(STAGE)
    return tmp_path


def start(warm, project, *words):
    """Start a client with the code of this project and the stage of ``project``."""
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(ROOT), str(project), *words], cwd=project, text=True,
        env=os.environ | warm | {"COLOUR": "blue"}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def gone(process: int) -> bool:
    """Wait until a process is no more; say whether that happened."""
    for _ in range(600):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_output_input_environment_folder_and_exit_code_are_those_of_the_command(warm, project):
    out, mistakes = start(warm, project, "one", "two").communicate("spoken\n", timeout=120)
    assert out == f"one two blue {project.name} spoken\n"
    assert mistakes == "a mistake\n"


def test_a_signal_is_passed_on_and_the_exit_code_passed_back(warm, project):
    client = start(warm, project, "sleep")
    client.stdin.write("\n")
    client.stdin.flush()
    client.stdout.readline()
    int(client.stdout.readline())
    client.send_signal(signal.SIGTERM)
    assert client.wait(120) == 7
    client.communicate()


def test_a_command_ends_with_the_process_that_asked_for_it(warm, project):
    client = start(warm, project, "sleep")
    client.stdin.write("\n")
    client.stdin.flush()
    client.stdout.readline()
    process = int(client.stdout.readline())
    client.kill()
    client.communicate()
    assert gone(process)


def test_a_client_that_says_nothing_does_no_harm(warm, project):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(warm[VARIABLE])
    out, _ = start(warm, project, "one").communicate("spoken\n", timeout=120)
    assert out.startswith("one blue")


def test_where_the_warm_process_has_ended_the_command_runs_by_itself(monkeypatch):
    monkeypatch.setattr("flows.running.warm._PROGRAM", "")
    with warm_stages() as variables:
        for key, value in variables.items():
            monkeypatch.setenv(key, value)
        assert hand_over() is None


def test_without_a_warm_process_the_command_runs_by_itself(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert hand_over() is None
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent"))
    assert hand_over() is None
    assert VARIABLE not in os.environ
