"""A real Git and DVC repository of the finished tiny project, and the commands that work in it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from workspace import ROOT, isolate, made_once

COPIED = ("dvc.yaml", "constraints.txt", ".gitignore", ".dvcignore", ".dvc/config",
          ".dvc/.gitignore", ".dvc/plots/lines.json", "data/.gitignore")

PATIENCE = 600.0
"""Seconds to wait for what takes a few of them on an idle machine."""


def git(*words):
    """Run git in the working directory."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *author, *words], check=True, capture_output=True)


def start(*words, **variables):
    """Start dvc in a process group of its own, with this interpreter first on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return subprocess.Popen([sys.executable, "-m", "dvc", *words], start_new_session=True,
                            env=os.environ | {"PATH": path} | variables, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    """Wait for a process that must succeed, and return what it printed."""
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        end(process)
    assert process.returncode == 0, output
    return output


def end(process, patience=120):
    """Stop a process, with its group if it leads one, and leave nothing of it behind.

    It is asked first, and killed if it is still there after so many seconds.
    """
    leads = process.poll() is None and os.getpgid(process.pid) == process.pid
    send = partial(os.killpg, process.pid) if leads else process.send_signal
    try:
        send(signal.SIGTERM)
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if leads:
            with suppress(ProcessLookupError):  # the usual case: nobody is left
                send(signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def dvc(*words, **variables):
    """Run dvc to its end and return what it printed."""
    return finish(start(*words, **variables))


def ran(output):
    """Return the stages that dvc says it ran."""
    return re.findall(r"Running stage '([^']+)'", output)


def lay_code(folder, *more):
    """Lay the real code, dvc.yaml and DVC's settings into a finished project.

    ``more`` names further files of this repository.
    """
    for package in ("flows", "unseen_core"):
        shutil.copytree(ROOT / package, folder / package,
                        ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*COPIED, *more):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for name in ("shapes32", "natural32", "features_imagenet"):  # what comes with the code
        (folder / "data/embedded" / name).mkdir(parents=True)
        (folder / "data/embedded" / name / "config.json").write_text("{}\n")


@pytest.fixture(scope="session")
def committed(finished, tmp_path_factory):
    """The finished project with the real code and dvc.yaml, in git and DVC; read only."""

    def make(folder):
        shutil.copytree(finished, folder)
        lay_code(folder)
        with pytest.MonkeyPatch.context() as patch:
            isolate(patch, folder)
            git("init", "-q")
            dvc("commit", "--force", "--quiet")
            git("add", "--all")
            git("commit", "-q", "-m", "all stages have run")

    return made_once(tmp_path_factory, "repository", make)


@pytest.fixture(scope="module")
def repository(committed, tmp_path_factory):
    """A copy of that repository for the tests of one file."""
    folder = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(committed, folder, symlinks=True)
    return folder
