"""A real DVC repository: what a change reruns, what it leaves, and a kill in between."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from repository import PATIENCE, dvc, ran, start
from ruamel.yaml import YAML
from workspace import DOMAIN, MODEL, OTHER, PAIRED, change, contents, isolate, run_stages

from flows.running.warm import warm_stages

pytestmark = pytest.mark.contract

LATENTS = Path("data/latents", MODEL, OTHER)
JUDGES = ("trajectory", "applications", "steer")  # of a model, on the images of all domains
CHANGED = {f"fetch@{OTHER}", *(f"{stage}@{MODEL}-{OTHER}" for stage in PAIRED),
           *(f"{stage}@{MODEL}" for stage in JUDGES), "compare"}


def locked():
    """Return the stages of dvc.lock."""
    return YAML(typ="safe").load(Path("dvc.lock").read_text("utf-8"))["stages"]


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
        until = time.monotonic() + PATIENCE
        while not list(Path(".work").glob("invert-*/L0200/*.sha256")):
            assert process.poll() is None and time.monotonic() < until, process.communicate()[0]
            time.sleep(0.002)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        first = ran(process.communicate()[0])
    assert first == [f"fetch@{OTHER}", f"invert@{MODEL}-{OTHER}"]
    assert not LATENTS.exists()
    with warm_stages() as warm:
        output = dvc("repro", **warm)
    second = ran(output)
    # What a library says to nobody in particular: a user could do nothing about it.
    assert not [line for line in output.splitlines() if "accelerate" in line or line == "```"]
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
