"""Sixty kills over all stages: each rerun ends with the bytes of a run that nobody disturbed.

Not part of `make test`; `make test-faults` runs it. Stages run as in a pipeline: a command hands
over to the warm process, which forks for it. Four things end one, at a moment drawn for each kill:
the stage itself is killed, the command that waits for it is, or that is sent SIGTERM or Ctrl-C.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from repository import PATIENCE
from workspace import DOMAIN, MODEL, OUTPUTS, ROOT, copied_project, results

from flows.running.warm import warm_stages

pytestmark = pytest.mark.faults

STAGES = [*OUTPUTS, ("analyze", {"model": MODEL, "domain": DOMAIN},
                     f"data/analysis/{MODEL}/{DOMAIN}")]
ENDS = ("stage", "command", "SIGTERM", "SIGINT")
SCRIPT = Path(sys.executable).with_name("unseen")


@pytest.fixture(scope="module")
def warm():
    """The warm process's variables, and its process."""
    with warm_stages() as variables:
        if not variables:
            pytest.skip("no warm process on this machine")
        yield dict(variables)


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
    mine = psutil.Process().children(recursive=True)
    return [one for one in mine if one.status() != psutil.STATUS_ZOMBIE and any(
        "wait_for_commands" in word for word in one.parent().cmdline())]


def strike(process, way):
    """End a running stage in one of the ways."""
    if way == "stage":
        for one in forks():
            one.kill()
    else:
        process.send_signal(signal.SIGKILL if way == "command" else getattr(signal, way))


@pytest.mark.parametrize(("stage", "targets", "out"), STAGES)
def test_a_killed_stage_ends_as_if_nobody_had_killed_it(warm, project, stage, targets, out):
    undisturbed = results(project)
    moments = random.Random(f"{stage} {targets}")

    def clear():
        shutil.rmtree(out) if Path(out).is_dir() else Path(out).unlink(missing_ok=True)

    for _ in range(2):  # the first stage of all waits until the libraries are there
        clear()
        began = time.monotonic()
        code, said = ended(begin(warm, stage, targets))
        lasts = time.monotonic() - began
        assert code == 0, said
        assert results(project) == undisturbed
    for way in ENDS:
        code, latest = 0, 0.9
        while code == 0:  # it had ended before
            clear()
            process = begin(warm, stage, targets)
            time.sleep(lasts * moments.uniform(0.3, latest))
            strike(process, way)
            code, said = ended(process)
            latest *= 0.9
        assert "Traceback" not in said or way == "SIGINT"  # which may meet Python's own imports
        code, said = ended(begin(warm, stage, targets))
        assert code == 0, said
        assert results(project) == undisturbed
        assert not [path for path in Path(".work").iterdir() if path.name != "pipeline.lock"]
    print(f"{stage}: killed {len(ENDS)} times within {lasts:.2f} s")
