"""Sixty kills over the stages of a run: each rerun has the bytes of a run that nobody disturbed.

Not part of `make test`; `make test-faults` runs it. Downloads and training are not among them.
Stages run as in a pipeline: a command hands its work to the warm process, which forks for it. A
stage is ended in four ways, each time at a random moment: SIGKILL of the stage, SIGKILL of the
command that waits for it, SIGTERM to that command, and Ctrl-C.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from repository import PATIENCE
from workspace import DOMAIN, MODEL, OUTPUTS, ROOT, copied_project, results

pytestmark = pytest.mark.faults

STAGES = [*OUTPUTS, ("analyze", {"model": MODEL, "domain": DOMAIN},
                     f"data/analysis/{MODEL}/{DOMAIN}")]
ENDS = ("stage", "command", "SIGTERM", "SIGINT")


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    """A finished project, in which a stage's output is deleted and made again."""
    folder = tmp_path_factory.mktemp("kills") / "project"
    with copied_project(finished, folder):
        yield folder


def begin(warm, stage, targets):
    """Start a stage's command."""
    words = [word for key, value in targets.items() for word in (f"--{key}", value)]
    return subprocess.Popen(
        [sys.executable, "-m", "flows", stage.replace("_", "-"), *words], text=True,
        env=os.environ | warm | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)


def ended(process):
    """Wait for a command and for all that it started; return its exit code and output."""
    said = process.communicate(timeout=PATIENCE)[0]
    until = time.monotonic() + PATIENCE
    while forks():
        assert time.monotonic() < until, "the stage lives on"
        time.sleep(0.005)
    return process.returncode, said


def forks():
    """Return the stages that the warm process runs."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            parent = one.parent()
            if parent and one.status() != psutil.STATUS_ZOMBIE and any(
                    "wait_for_commands" in word for word in parent.cmdline()):
                found.append(one)
    return found


def at_work(process):
    """Wait until the warm process runs the command's stage; say whether it does."""
    while not forks():
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def strike(process, way):
    """End a running stage in one of the ways."""
    if way == "stage":
        for one in forks():
            with suppress(psutil.Error):
                one.kill()
    else:
        process.send_signal(signal.SIGKILL if way == "command" else getattr(signal, way))


@pytest.mark.parametrize(("stage", "targets", "out"), STAGES)
def test_a_killed_stage_ends_as_if_nobody_had_killed_it(warm, project, stage, targets, out):
    undisturbed = results(project)
    moments = random.Random(f"{stage} {targets}")

    def clear():
        shutil.rmtree(out) if Path(out).is_dir() else Path(out).unlink(missing_ok=True)

    clear()
    process = begin(warm, stage, targets)
    assert at_work(process)
    began = time.monotonic()
    code, said = ended(process)
    lasts = time.monotonic() - began
    assert code == 0, said
    assert results(project) == undisturbed
    for way in ENDS:
        for latest in (0.9, 0.7, 0.5, 0.3, 0.1):
            clear()
            process = begin(warm, stage, targets)
            assert at_work(process)
            time.sleep(lasts * moments.uniform(0, latest))
            struck = bool(forks())
            strike(process, way)
            code, said = ended(process)
            if struck and code != 0:
                break
        assert struck and code != 0, "it always ended before"
        assert "Traceback" not in said or way == "SIGINT"  # which may meet Python's own imports
        code, said = ended(begin(warm, stage, targets))
        assert code == 0, said
        assert results(project) == undisturbed
        assert not [path for path in Path(".work").iterdir() if path.name != "pipeline.lock"]
    print(f"{stage}: killed {len(ENDS)} times within {lasts:.2f} s")
