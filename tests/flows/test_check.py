"""`check` lists every mistake that shows before anything runs, each with its key."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from workspace import DOMAIN, MODEL, OTHER, change


@pytest.fixture
def complaints(workspace, command):
    """Change parameters, keys and value each; return the lines that `check` complains in."""

    def run(*changes):
        for *keys, value in changes:
            change(workspace, *keys, to=value)
        code, said, printed = command("check")
        lines = [line.removeprefix("error: ") for line in printed.splitlines()]
        assert code == (2 if lines else 0)
        assert lines or "sound" in said
        return lines

    return run


@pytest.mark.parametrize(("change_", "said"), [
    (("samplers", "geometric", "near", 8), "samplers.geometric needs 9 fit images, and"),
    (("samplers", "geometric", {"sampler": "geometric", "proposal": "blend", "parents": 9}),
     f"samplers.geometric needs 9 fit images, and domains.{DOMAIN}.fit is 8"),
    (("samplers", "split", {"sampler": "bands", "coarse": 5, "fine": 4, "near": 0}),
     "samplers.split needs 9 fit images"),
    (("steer", "levels", [200, 1001]), "steer.levels: 1001 is out of range; use 1 to 1000"),
    (("samplers", "slerp", {"sampler": "slerp", "levels": [150]}), "150 is not in levels"),
    (("samplers", "slerp", {"sampler": "slarp"}), "sampler 'slarp' is not known"),
    (("levels", [100, 200, 1001]), "levels: 1001 is out of range; use 1 to 1000"),
    (("trajectory", "levels", [100, 2000]), "trajectory.levels: 2000 is out of range"),
    (("solver", "steps", 2), "solver.steps 2 is too few; use at least 3"),
    (("solver", "steps", 300), "300 calls are more than there are levels up to 200"),
    (("images", "size", 24), "works on 3 x 16 x 16 images; set images.size to 16"),
    (("models", MODEL, "path", "nowhere"), f"models.{MODEL}: checkpoint nowhere has no"),
    (("models", MODEL, "sha256", 64 * "0"), f"models.{MODEL}: "),
    (("compute", "device", "cuda:9"), "compute.device: device 'cuda:9' is not on this machine"),
    (("domains", DOMAIN, "path", "absent"), f"domains.{DOMAIN}.path: absent does not exist"),
    (("domains", DOMAIN, "path", "/dev/zero"), "is neither a file nor a folder"),
    (("domains", DOMAIN, "path", "params.yaml"), "params.yaml is a file; give a folder"),
    (("domains", DOMAIN, "source", "npz"), "pictures is a folder; give a npz file"),
    (("domains", DOMAIN, "held_out", 7), "pictures has 14 files, fewer than fit + held_out, 15"),
    (("domains", OTHER, "limit", 9), f"domains.{OTHER}.limit: 9 images are fewer than fit"),
    (("domains", OTHER, "source", "digit"), "unknown source 'digit'; did you mean 'digits'?"),
    (("domains", DOMAIN, "range", [1, 0]), "range [1.0, 0.0] is empty"),
    (("pipeline", "domains", [DOMAIN, "dogs"]), "domains.dogs is not defined"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_is_named_with_its_key(complaints, change_, said):
    line, = complaints(change_)
    assert said in line


def test_neighbours_count_where_they_are_drawn_from_alone(complaints):
    # A draw of a prior has no parents, and a single parent no neighbours.
    for settings in ({"proposal": "empirical"}, {"proposal": "blend", "parents": 1}):
        assert not complaints(("samplers", "geometric", {
            "sampler": "geometric", "near": 20, "levels": [100]} | settings))


def test_files_of_many_images_are_not_counted_by_their_names(complaints, workspace):
    assert not complaints(("domains", DOMAIN, "held_out", 7), ("domains", DOMAIN, "pages", "all"))
    (workspace / "pictures/volume.nii.gz").write_bytes(b"")
    assert not complaints(("domains", DOMAIN, "pages", "first"))
    (workspace / "empty").mkdir()
    line, = complaints(("domains", DOMAIN, "path", "empty"))
    assert "empty has 0 files" in line


def test_all_mistakes_are_listed_at_once(complaints):
    lines = complaints(
        ("samplers", "slerp", {"sampler": "slarp"}), ("samplers", "geometric", "near", 20),
        ("images", "size", 24), ("domains", DOMAIN, "path", "absent"),
        ("compute", "device", "tpu"), ("solver", "steps", 2))
    assert len(lines) == 6
    # Mistakes in the form of the file come first: the rest cannot be judged before.
    lines = complaints(("seed", "0"), ("sample", "cuont", 3), ("levels", []))
    assert len(lines) == 3
    assert [word in "".join(lines) for word in ("seed", "sample.cuont", "levels")] == 3 * [True]


def test_what_a_download_will_bring_is_not_missed(complaints):
    place = "data/downloads/net"
    fetched = {"hub": "a/b", "revision": "main", "files": ["*.json"]}
    assert not complaints(("downloads", {"net": fetched}), ("models", MODEL, "path", place),
                          ("domains", DOMAIN, "path", f"{place}/pictures"))


def test_a_sound_file_says_what_it_asks_for(workspace, command):
    code, said, _ = command("check")
    assert code == 0
    # 2 domains of 8 images at 2 levels in float16; 13 cells of 4 in float32.
    assert f"latents take {3 * 16 * 16 * 16 * 2 * 2 / 1000:.3g} kB" in said
    assert f"start states {3 * 16 * 16 * 2 * 13 * 4 * 4 / 1000:.3g} kB" in said


def test_more_than_the_disk_holds_is_a_mistake(complaints, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))
    assert not complaints(("sample", "count", 10**3))
    line, = complaints(("sample", "count", 10**6))
    assert "start states 79.9 GB on disk" in line and "the disk has 1 GB left; lower" in line


def test_nothing_is_written(workspace, command):
    def state():
        return {path: os.stat(path).st_mtime_ns for path in Path().rglob("*")}

    before = state()
    command("check")
    assert state() == before
    file = workspace / "checkpoint/scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"beta_emd": 0.01}))
    assert "did you mean beta_end" in command("check")[2]
