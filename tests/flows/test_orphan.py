"""A stage ends when the run that started it was killed, and not before."""

import os
import signal
import subprocess
import sys
import time

from workspace import ROOT

from flows.dvc.process import environment
from flows.running.orphan import VARIABLE

STAGE = """
import sys, time
from flows.running.orphan import end_with_run
end_with_run()
print("begun", flush=True)
time.sleep(600)
print("slept", flush=True)
"""
# As `run` with DVC and a shell below it, and the stage below them.
RUN = f"""
import os, subprocess, sys
from flows.dvc.process import environment
subprocess.run(["sh", "-c", 'exec 3>&1; "$0" -c "$1"; echo ended', sys.executable, {STAGE!r}],
               env=environment())
"""


def test_a_stage_ends_with_a_killed_run():
    run = subprocess.Popen([sys.executable, "-c", RUN], cwd=ROOT, text=True,
                           stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert run.stdout.readline() == "begun\n"
    time.sleep(2.5)  # longer than it looks once
    assert run.poll() is None
    run.send_signal(signal.SIGKILL)
    run.wait()
    # The pipe ends when nobody is left who could write: stage and shell are gone.
    assert run.stdout.read() == "ended\n"
    run.stdout.close()


def test_only_stages_below_a_run_have_one_to_end_with(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert environment()[VARIABLE] == str(os.getpid())
    by_itself = subprocess.run([sys.executable, "-c", STAGE.replace("600", "0")],
                               cwd=ROOT, capture_output=True, text=True, check=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert by_itself.stdout == "begun\nslept\n"
