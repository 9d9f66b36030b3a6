"""A full disk, or one that may not be written: one line in every stage, and nothing is lost."""

import shutil

import pytest
from workspace import DOMAIN, MODEL, OUTPUTS, full_disk, results

from flows.dispatch import run_stage
from flows.running.registry import DATA_FLOW


@pytest.mark.parametrize(("stage", "targets", "out"), OUTPUTS)
def test_a_stage_on_a_full_disk_says_so_and_goes_on_later(command, done, stage, targets, out):
    before = results(done)
    if (done / out).is_dir():
        shutil.rmtree(done / out)
    else:
        (done / out).unlink()
    words = [word for key, value in targets.items() for word in (f"--{key}", value)]
    with full_disk(300):
        code, _, said = command(stage.replace("_", "-"), *words)
    assert code == 2
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ") and "File too large; its file system, or" in last
    assert "Traceback" not in said and said.count("File too large") == 1
    assert last.startswith(("error: data/", "error: .work/", f"error: {done}/"))
    run_stage(stage, targets)
    assert results(done) == before


def test_every_stage_is_tried():
    # Two write a report of less than 300 bytes here; two have tests of their own.
    apart = {"analyze", "finetune", "download", "pretrain"}
    assert {stage for stage, _, _ in OUTPUTS} == {*DATA_FLOW} - apart


def test_a_folder_that_may_not_be_written_is_one_line(command, done):
    shutil.rmtree(done / "data/latents")
    (done / "data/latents").symlink_to("/sys/kernel")  # closed to root, too
    code, _, said = command("invert", "--model", MODEL, "--domain", DOMAIN)
    assert code == 2 and "Traceback" not in said
    assert "data/latents" in said
    assert "you need permission" in said or "that can be written" in said
