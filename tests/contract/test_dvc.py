"""A real DVC repository: what a change reruns, what it leaves, and a kill in between."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from workspace import DOMAIN, MODEL, OTHER, PAIRED, ROOT, change, contents, isolate, run_stages

pytestmark = pytest.mark.contract

LATENTS = Path("data/latents", MODEL, OTHER)
CHANGED = {f"fetch@{OTHER}", *(f"{stage}@{MODEL}-{OTHER}" for stage in PAIRED), "compare"}


def git(*words):
    """Run git in the working directory."""
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *author, *words], check=True, capture_output=True)


def start(*words):
    """Start dvc in a process group of its own, with this interpreter first on the path."""
    tools = str(Path(sys.executable).parent)
    path = os.pathsep.join([tools, os.environ.get("PATH", os.defpath)])
    return subprocess.Popen([sys.executable, "-m", "dvc", *words], start_new_session=True,
                            env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ran(output):
    """Return the stages that dvc says it ran."""
    return re.findall(r"Running stage '([^']+)'", output)


def dvc(*words):
    """Run dvc to its end and return what it printed."""
    process = start(*words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def locked():
    """Return the stages of dvc.lock."""
    return YAML(typ="safe").load(Path("dvc.lock").read_text("utf-8"))["stages"]


@pytest.fixture(scope="module")
def repository(finished, tmp_path_factory):
    """The finished project with the real code and dvc.yaml, recorded in git and DVC."""
    folder = tmp_path_factory.mktemp("repository") / "project"
    shutil.copytree(finished, folder)
    for package in ("flows", "unseen_core"):
        shutil.copytree(ROOT / package, folder / package,
                        ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".dvc").mkdir()
    for name in ("dvc.yaml", "constraints.txt", ".gitignore", ".dvcignore", ".dvc/config",
                 ".dvc/.gitignore"):
        shutil.copyfile(ROOT / name, folder / name)
    for name in ("shapes32", "features32"):  # what the frozen stage has made
        (folder / "data/embedded" / name).mkdir(parents=True)
        (folder / "data/embedded" / name / "config.json").write_text("{}\n")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        git("init", "-q")
        dvc("commit", "--force", "--quiet")
        git("add", "--all")
        git("commit", "-q", "-m", "all stages have run")
    return folder


@pytest.fixture
def inside(repository, monkeypatch):
    """The repository as the working directory."""
    isolate(monkeypatch, repository)
    return repository


def test_a_killed_repro_goes_on_and_reruns_only_the_domain_that_changed(inside, tmp_path):
    before = locked()
    untouched = {path: contents(path) for path in (
        Path("data/generated", MODEL, DOMAIN), Path("data/latents", MODEL, DOMAIN))}
    change(inside, "domains", OTHER, "fit", to=20)

    process = start("repro")
    try:
        until = time.monotonic() + 200
        while not list(Path(".work").glob("invert-*/L0200/*.sha256")):
            assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        first = ran(process.communicate()[0])
    assert first == [f"fetch@{OTHER}", f"invert@{MODEL}-{OTHER}"]
    assert not LATENTS.exists()
    second = ran(dvc("repro"))
    assert set(first) | set(second) == CHANGED
    assert second[0] == first[-1]
    assert len(second) == len(CHANGED) - 1

    after = locked()
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == CHANGED
    assert untouched == {path: contents(path) for path in untouched}
    table = Path("data/report/compare.csv").read_text()
    assert f"{MODEL},{OTHER},0,real,20," in table and f"{MODEL},{DOMAIN},0,real,8," in table
    assert contents(LATENTS) == undisturbed(inside, tmp_path / "copy")
    assert ran(dvc("repro")) == []


def undisturbed(folder, copy):
    """Return the latents of a run that nobody stopped."""
    shutil.copytree(folder / "data/source", copy / "data/source")
    shutil.copy(folder / "params.yaml", copy)
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, copy)
        run_stages(["invert"], OTHER)
    return contents(copy / LATENTS)
