"""Bad input through the command line: exit code 2, one line, never a traceback."""

import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from repository import PATIENCE
from safetensors.torch import load_file, save_file
from workspace import DOMAIN, MODEL, ROOT, SEEN, change, draw_pictures, fetch_all, save_checkpoint

HERE = ["--model", MODEL, "--domain", DOMAIN]


@pytest.fixture
def refused(command):
    """Run the command line, expect one line that names the mistake, and return it."""

    def run(*words):
        code, _, printed = command(*words)
        lines = [line for line in printed.splitlines() if line.startswith("error:")]
        assert code == 2
        assert "Traceback" not in printed
        assert printed.splitlines() == lines and len(lines) == 1, printed
        return lines[0]

    return run


@pytest.fixture
def mixed(workspace):
    """The folder domain with good pictures, three odd ones and three that are none."""
    folder = workspace / "pictures"
    random = np.random.default_rng(1)
    smooth = np.linspace(0, 255, 40 * 30 * 3).reshape(40, 30, 3).astype(np.uint8)
    Image.fromarray(smooth).save(folder / "a_truncated.jpg")
    whole = (folder / "a_truncated.jpg").read_bytes()
    (folder / "a_truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "b_notes.txt").write_text("not a picture\n")
    Image.fromarray(smooth[:1, :1]).save(folder / "c_one_pixel.png")
    Image.fromarray(random.integers(0, 65536, (20, 20), dtype=np.uint16)).save(
        folder / "d_sixteen_bit.png")
    Image.fromarray(smooth).convert("CMYK").save(folder / "e_cmyk.jpg")
    Image.fromarray(smooth[::-1]).quantize(16).save(folder / "f_frames.gif")
    return workspace


BAD = ["a_truncated.jpg", "b_notes.txt", "c_one_pixel.png"]


def test_a_folder_with_bad_files_is_a_usable_domain_and_names_them(mixed, command, caplog):
    # 14 good ones and three odd ones: 16-bit, CMYK and GIF are pictures all the same.
    change(mixed, "domains", DOMAIN, "fit", to=10)
    change(mixed, "domains", DOMAIN, "held_out", to=7)
    code, _, printed = command("fetch", "--domain", DOMAIN)
    assert (code, "Traceback" in printed) == (0, False)
    report = json.loads(Path("data/source/domains", DOMAIN, "report.json").read_text())
    assert [entry["file"] for entry in report["skipped"]] == BAD
    assert report["counts"] == {"fit": 10, "held_out": 7, "rest": 0}
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    for name in BAD:
        assert [line for line in warnings if f"skipped {name}: " in line and DOMAIN in line]
    assert len(warnings) == len(BAD)


def test_the_first_bad_file_stops_where_none_may_be_skipped(mixed, refused):
    change(mixed, "images", "skip_bad", to=False)
    assert "a_truncated.jpg" in refused("fetch", "--domain", DOMAIN)


def test_a_folder_of_bad_files_alone_is_one_line(workspace, refused):
    for file in (workspace / "pictures").iterdir():
        file.write_text("nothing")
    line = refused("fetch", "--domain", DOMAIN)
    assert "no usable image in pictures (14 unusable" in line


@pytest.mark.parametrize(("keys", "value", "said"), [
    (("domains", DOMAIN, "fit"), 9, "14 images are too few for fit 9 and held_out 6"),
    (("domains", DOMAIN, "held_out"), 40, "too few"),
    (("domains", DOMAIN, "limit"), 12, "12 images are too few"),
    (("domains", DOMAIN, "path"), "picturs", "picturs does not exist"),
    (("domains", DOMAIN, "path"), "params.yaml", "params.yaml is not a folder"),
    (("domains", DOMAIN, "source"), "foldr", "did you mean 'folder'?"),
    (("domains", DOMAIN, "source"), "zip", "pictures is not a readable zip archive"),
    (("domains", DOMAIN, "source"), "npz", "pictures is not a readable .npz archive"),
    (("images", "max_pixels"), 100, "24x20 pixels is more than max_pixels 100"),
    (("images", "sise"), 16, "images.sise is not a parameter; did you mean size?"),
])
def test_a_wrong_domain_is_one_line(workspace, refused, keys, value, said):
    change(workspace, *keys, to=value)
    assert said in refused("fetch", "--domain", DOMAIN)
    assert not Path("data/source/domains", DOMAIN).exists()


def test_a_zip_that_leaves_its_folder_is_one_line(workspace, refused):
    with zipfile.ZipFile("pictures.zip", "w") as archive:
        archive.write(draw_pictures(Path("more"), 1)[0], "../../out.png")
    change(workspace, "domains", DOMAIN, "source", to="zip")
    change(workspace, "domains", DOMAIN, "path", to="pictures.zip")
    assert "'../../out.png'" in refused("fetch", "--domain", DOMAIN)


@pytest.mark.parametrize(("keys", "value", "said"), [
    (("models", MODEL, "path"), "chekpoint", "checkpoint chekpoint has no unet/config.json"),
    (("models", MODEL, "sha256"), 64 * "0", f"models.{MODEL}: "),
    (("images", "size"), 32, "set images.size to 16"),
    (("levels",), [100, 1001], "1001 is out of range; use 1 to 1000"),
    (("levels",), [-100], "levels.0"),
    (("models", MODEL, "seen"), "shape", "did you mean shapes?"),
])
def test_a_wrong_model_is_one_line(workspace, refused, command, keys, value, said):
    assert command("fetch", "--domain", SEEN)[0] == 0
    change(workspace, *keys, to=value)
    assert said in refused("fetch-model", "--model", MODEL)


@pytest.mark.parametrize("part", ["unet/config.json", "unet/diffusion_pytorch_model.safetensors",
                                  "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("damage", ["absent", "cut", "foreign"])
def test_a_damaged_checkpoint_is_one_line(workspace, refused, command, part, damage):
    assert command("fetch", "--domain", SEEN)[0] == 0
    file = workspace / "checkpoint" / part
    data = file.read_bytes()
    file.unlink()
    if damage != "absent":
        file.write_bytes(data[: len(data) // 2] if damage == "cut" else b"[1, 2, 3]")
    assert "checkpoint" in refused("fetch-model", "--model", MODEL)


def test_a_checkpoint_of_another_kind_is_one_line(workspace, refused, command):
    assert command("fetch", "--domain", SEEN)[0] == 0
    file = workspace / "checkpoint/scheduler/scheduler_config.json"
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before) | {"prediction_type": "flow_prediction"}))
    assert "epsilon or v_prediction or sample" in refused("fetch-model", "--model", MODEL)
    file.write_text(before)
    network = workspace / "checkpoint/unet/config.json"
    known = network.read_text()
    network.write_text(json.dumps(json.loads(known) | {"freq_shift": "x"}))
    assert f"models.{MODEL} does not run: " in refused("fetch-model", "--model", MODEL)
    network.write_text(known)
    weights = workspace / "checkpoint/unet/diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state["conv_in.bias"][0] = math.nan
    save_file(state, weights)
    assert "tensor 'conv_in.bias' is not finite" in refused("fetch-model", "--model", MODEL)
    save_checkpoint(workspace / "checkpoint", size=24)
    assert "24" in refused("fetch-model", "--model", MODEL)


@pytest.mark.parametrize(("keys", "value", "said"), [
    (("samplers", "noise"), {"sampler": "nois"}, "sampler 'nois' is not known"),
    (("samplers", "slerp"), {"sampler": "slerp", "point": 3}, "slerp has no setting 'point'"),
    (("samplers", "slerp"), {"sampler": "slerp", "points": "3"}, "samplers.slerp.points"),
    (("samplers", "slerp"), {"sampler": "slerp", "levels": [300]}, "300 is not in levels"),
    (("samplers", "slerp"), {"sampler": "geometric", "shell": "no"}, "samplers.slerp.shell"),
    (("samplers", "prior-empirical", "kind"), "shrunk", "not in fit.kinds"),
    (("sampels",), {}, "sampels is not a parameter; did you mean"),
    (("evaluate", "extractors"), {"fetures32": {}}, "fetures32"),
])
def test_check_finds_a_mistake_before_anything_runs(workspace, refused, keys, value, said):
    change(workspace, *keys, to=value)
    assert said in refused("check")


def test_check_says_that_all_is_well(workspace, command):
    assert command("check")[::2] == (0, "")


@pytest.mark.parametrize("stage", ["invert", "fit", "sample", "denoise", "evaluate", "compare"])
def test_a_stage_before_its_time_is_one_line_that_names_a_file(workspace, refused, stage):
    assert "data/" in refused(stage, *([] if stage == "compare" else HERE))


@pytest.mark.parametrize("stage", ["invert", "fit", "sample", "denoise", "evaluate"])
@pytest.mark.parametrize("words", [["--model", MODEL, "--domain", "mark"],
                                   ["--model", "tinny", "--domain", DOMAIN],
                                   ["--model", MODEL, "--domain", "../marks"]])
def test_a_name_that_is_not_defined_is_one_line(workspace, refused, stage, words):
    assert "is not defined; " in refused(stage, *words)


@pytest.mark.parametrize(("keys", "value", "said"), [
    (("compute", "device"), "cuba", "device 'cuba' is not on this machine"),
    (("levels",), [100, 2000], "2000 is out of range"),
])
def test_invert_checks_what_it_is_given(workspace, refused, monkeypatch, keys, value, said):
    fetch_all()
    change(workspace, *keys, to=value)
    assert said in refused("invert", *HERE)


def test_a_real_process_says_the_same(workspace):
    change(workspace, "domains", DOMAIN, "fit", to=2)
    asked = [sys.executable, "-m", "flows", "fetch", "--domain", DOMAIN]
    result = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=workspace,
                            env={"PYTHONPATH": str(ROOT), "PATH": ""}, timeout=PATIENCE)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: params.yaml: domains.{DOMAIN}.fit")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("words", "said"), [
    (["generate"], "Missing argument 'images'; see `python -m flows generate --help`"),
    (["anonymise", "a", "b", "--copies", "0"], "'--copies': Input should be greater than or equal"),
    (["generat"], "No such command 'generat'. Did you mean 'generate'"),
    (["fit", "--model", MODEL], "Missing option '--domain'"),
    (["sample", "--colour", "red"], "No such option: --colour"),
])
def test_a_wrong_command_line_is_one_line(words, said, refused):
    assert said in refused(*words)


def test_a_line_names_the_command_as_it_was_called(workspace, monkeypatch, capsys):
    from flows.__main__ import run_command

    monkeypatch.setattr(sys, "argv", ["/usr/bin/unseen", "fetch-model", "--model", MODEL])
    assert run_command() == 2
    assert f"run `unseen fetch --domain {SEEN}` first" in capsys.readouterr().err


LEAVING = """
import atexit, os
from flows.__main__ import app, main

leave = os._exit
os._exit = lambda code: print("left", flush=True) or leave(code)

@app.command()
def probe(ending: str) -> None:
    atexit.register(print, "handler")
    print("x" * 100_000)
    if ending == "fault":
        raise RuntimeError("a fault of the program")

main()
"""


@pytest.mark.parametrize(("ending", "code", "said"), [
    ("well", 0, ""), ("fault", 1, "RuntimeError: a fault of the program"),
    ("well more", 2, "error: Got unexpected extra argument"),
])
def test_a_command_leaves_at_once_with_its_code_and_nothing_is_lost(ending, code, said):
    done = subprocess.run([sys.executable, "-c", LEAVING, "probe", *ending.split()], cwd=ROOT,
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == code and said in done.stderr
    # All that was printed came through a pipe; handlers ran, and it left before the interpreter
    # took anything apart.
    assert done.stdout == ("" if code == 2 else f"{100_000 * 'x'}\nhandler\n") + "left\n"
