"""A killed ``invert``: what it finished is kept, checked and not done again."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import PATIENCE
from workspace import (
    DOMAIN,
    MODEL,
    ROOT,
    SEEN,
    change,
    contents,
    copied_project,
    fetch_all,
    isolate,
    run_stages,
)

from flows.running import code, resume
from unseen_core.errors import UnseenError

OUT = Path("data/latents", MODEL, DOMAIN)
SLOW = {"solver": {"method": "dpm2m", "spacing": "karras", "steps": 12},
        "invert": {"precision": "float32", "batch": 1, "part_size": 1, "store": "float32"}}


def digests(folder):
    """Return the SHA-256 of every file below a folder."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents(folder).items()}


def scratch_of(folder):
    """Return the one scratch folder."""
    found, = (path for path in (folder / ".work").iterdir() if path.is_dir())
    return found


def wait_for(condition, process):
    """Poll until a condition holds; the process must not end before."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def killed(blank, tmp_path_factory):
    """A project whose ``invert`` was killed after its first part, and the undisturbed result."""
    folder = tmp_path_factory.mktemp("killed") / "project"
    with copied_project(blank, folder):
        for section, values in SLOW.items():
            change(folder, section, to=values)
        fetch_all((DOMAIN, SEEN))
        run_stages(["invert"])
        undisturbed = digests(OUT)
        shutil.rmtree(OUT)
        assert not list(Path(".work").iterdir())
        command = [sys.executable, "-m", "flows", "invert", "--model", MODEL, "--domain", DOMAIN]
        process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: list(Path(".work").glob("*/L0200/*.sha256")), process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert process.returncode == -signal.SIGKILL
    return folder, undisturbed


@pytest.fixture
def stopped(killed, tmp_path, monkeypatch):
    """A copy of the killed project as the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(killed[0], folder)
    isolate(monkeypatch, folder)
    return folder


@pytest.fixture
def carried(monkeypatch):
    """How many states the network was asked to carry."""
    import flows.stages.invert

    seen, real = [], flows.stages.invert.carry_up

    def carry(network, x, grid, **settings):
        seen.append(len(x))
        return real(network, x, grid, **settings)

    monkeypatch.setattr(flows.stages.invert, "carry_up", carry)
    return seen


def test_nothing_is_published_by_a_killed_run(stopped):
    assert not OUT.exists()
    whole = [file for file in scratch_of(stopped).rglob("*.sha256")]
    assert 2 <= len(whole) < 16
    with pytest.raises(UnseenError, match="unfinished"):
        run_stages(["fit"])


def test_the_rest_is_done_and_the_bytes_are_those_of_an_undisturbed_run(
    stopped, killed, carried
):
    parts = len(list((scratch_of(stopped) / "L0200").glob("*.sha256")))
    run_stages(["invert"])
    assert digests(OUT) == killed[1]
    assert sum(carried) == 8 - parts
    assert not [path for path in (stopped / ".work").iterdir() if path.is_dir()]


@pytest.mark.parametrize("damage", ["altered", "cut", "unsealed", "foreign"])
def test_a_part_that_is_not_what_was_written_is_done_again(stopped, killed, carried, damage):
    folder = scratch_of(stopped) / "L0100"
    parts = len(list((scratch_of(stopped) / "L0200").glob("*.sha256")))
    part = folder / "part-00000.safetensors"
    data = part.read_bytes()
    if damage == "altered":
        part.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        part.write_bytes(data[:-1])
    elif damage == "unsealed":
        part.with_name(f"{part.name}.sha256").unlink()
    else:
        (folder / "part-00099.safetensors").write_bytes(data)
        (folder / f".part-00007.safetensors.{2**22 + 1}.tmp").write_bytes(data)
    run_stages(["invert"])
    assert digests(OUT) == killed[1]
    assert sum(carried) == 8 - parts + (damage != "foreign")


@pytest.mark.parametrize(("keys", "value"), [
    (("solver", "steps"), 7), (("solver", "spacing"), "quadratic"), (("levels",), [150, 200]),
    (("invert", "part_size"), 4), (("invert", "store"), "float16"),
], ids=str)
def test_a_changed_parameter_begins_anew_and_the_old_parts_stay(
    stopped, killed, carried, keys, value
):
    old = scratch_of(stopped)
    before = contents(old)
    original = Path("params.yaml").read_bytes()
    change(stopped, *keys, to=value)
    run_stages(["invert"])
    assert sum(carried) == 8
    assert digests(OUT) != killed[1]
    assert contents(old) == before
    if keys == ("invert", "store"):  # changed back: the old parts serve
        shutil.rmtree(OUT)
        Path("params.yaml").write_bytes(original)
        run_stages(["invert"])
        assert digests(OUT) == killed[1]
        assert sum(carried) < 2 * 8


def test_what_does_not_change_the_bytes_does_not_begin_anew(stopped, carried):
    parts = len(list((scratch_of(stopped) / "L0200").glob("*.sha256")))
    change(stopped, "sample", "count", to=7)
    run_stages(["invert"])
    assert sum(carried) == 8 - parts


def test_another_image_begins_anew(stopped, carried):
    change(stopped, "seed", to=1)
    fetch_all((DOMAIN, SEEN))
    run_stages(["invert"])
    assert sum(carried) == 8


def test_unfinished_work_is_of_the_code_that_dvc_watches(tmp_path, monkeypatch):
    for package in ("flows", "unseen_core"):
        shutil.copytree(ROOT / package, tmp_path / package,
                        ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    for module in (code, resume):
        monkeypatch.setattr(module, "ROOT", tmp_path)

    def mark():
        return resume.scratch("finetune", [], {}, "cpu")[1]

    before = mark()
    # A new extractor is imported by its name alone, which no search of imports finds.
    (tmp_path / "unseen_core/judging/mine.py").write_text('"""Mine."""\n')
    assert mark() != before
    after = mark()
    (tmp_path / "unseen_core/analysis/mine.py").write_text('"""No part of the stage."""\n')
    assert mark() == after
