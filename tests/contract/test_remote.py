"""A second machine: a clone of the Git repository and a DVC remote, without the network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hubserver import serve
from repository import PATIENCE, ran
from workspace import DOMAIN, change, contents, isolate

from unseen_core.store import file_hash

pytestmark = pytest.mark.contract
MADE = ("source", "downloads", "latents", "seen", "priors", "starts", "generated", "analysis",
        "selection", "metrics")


def run(*words):
    """Run a command in the working directory and return what it printed."""
    tools = str(Path(sys.executable).parent)
    path = os.pathsep.join([tools, os.environ.get("PATH", os.defpath)])
    done = subprocess.run(words, env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def git(*words):
    """Run git."""
    return run("git", "-c", "user.name=test", "-c", "user.email=test@example.org", *words)


def dvc(*words):
    """Run dvc with this interpreter."""
    return run(sys.executable, "-m", "dvc", *words)


def know_remote(folder):
    """Write what `dvc remote add --local --default store FOLDER` writes."""
    Path(".dvc/config.local").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {folder}\n")


@pytest.fixture(scope="module")
def machine(repository):
    """A finished project whose pictures came by a download, pushed to a remote; then offline."""
    folder = repository
    archive = shutil.make_archive(str(folder.parent / "pictures"), "zip", folder / "pictures")
    shutil.rmtree(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch, serve() as site:
        isolate(patch, folder)
        site.files["/pictures.zip"] = Path(archive).read_bytes()
        change(folder, "domains", DOMAIN, "source", to="zip")
        change(folder, "domains", DOMAIN, "path", to="data/downloads/pictures/pictures.zip")
        change(folder, "downloads", to={"pictures": {
            "url": f"{site.address}/pictures.zip", "sha256": file_hash(Path(archive))}})
        first = ran(dvc("repro", f"fetch@{DOMAIN}"))
        assert first == ["download@pictures", f"fetch@{DOMAIN}"]
        dvc("commit", "--force", "--quiet")
        git("add", "--all")
        git("commit", "-q", "-m", "all stages have run")
        know_remote(folder.parent / "remote")
        dvc("push", "--quiet")
        assert len(site.asked("/pictures.zip")) == 1
    return folder


@pytest.fixture
def clone(machine, tmp_path, monkeypatch):
    """A clone that knows the remote, with nothing of what stages made but what Git keeps."""
    isolate(monkeypatch, tmp_path)
    git("clone", "-q", str(machine), "second")
    folder = tmp_path / "second"
    monkeypatch.chdir(folder)
    know_remote(machine.parent / "remote")
    assert not Path("data/downloads").exists() and not Path("data/latents").exists()
    return folder


def outputs(folder):
    """Return every file that stages made."""
    return {f"{name}/{file}": data for name in MADE
            for file, data in contents(folder / "data" / name).items()
            if not file.endswith(".gitignore")}


def test_pull_brings_everything_and_nothing_runs(clone, machine):
    dvc("pull", "--quiet")
    assert outputs(clone) == outputs(machine)
    assert ran(dvc("repro")) == []
    assert not git("status", "--porcelain", "dvc.lock")


def test_repro_pull_restores_instead_of_computing(clone, machine):
    assert ran(dvc("repro", "--pull")) == []
    assert outputs(clone) == outputs(machine)
    assert contents(clone / "data/report") == contents(machine / "data/report")
