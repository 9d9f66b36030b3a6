"""`generate` and `finetune-pipeline`: images after a folder of examples, or one line of refusal."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from workspace import MODEL, contents

from flows.folders.open import open_network
from flows.folders.request import read_settings
from flows.running.registry import STAGES
from flows.running.run import DirectRun
from flows.settings.params import load_params
from unseen_core.basics.images import decode_png
from unseen_core.checkpoints.pipeline import load_parts
from unseen_core.errors import UnseenError
from unseen_core.types import Pixels


@pytest.fixture
def project(with_network, pipelines):
    """A project with a fetched model and a pipeline in it; no stage has run."""
    shutil.copytree(pipelines["epsilon"], "pipeline")
    return with_network


LEAK = ("--level", 300, "--set", "kind=dct", "--set", "rank=1", "--count", 4, "--steps", 3)


def test_a_pipeline_makes_images_after_examples(project, command):
    words = ("generate", "pictures", "out", "--pipeline", "pipeline", "--prompt", "red",
             "--guidance", 2)
    assert command(*words, *LEAK)[0] == 0
    assert {file.name for file in Path("out").iterdir()} == {
        *(f"{i:05d}.png" for i in range(4)), "manifest.csv", "manifest.json", "sheet.png"}
    table = pd.read_csv("out/manifest.csv", keep_default_na=False)
    assert table["file"].tolist() == [f"{i:05d}.png" for i in range(4)]
    row = table.iloc[0]
    assert (row["sampler"], row["settings"], row["level"], row["prompt"], row["guidance"]) == (
        "signal-leak", "color=[] kind=dct rank=1", 300, "red", 2)
    assert (row["network"], row["seed"], row["method"]) == ("pipeline", 0, "ddim")
    images = [decode_png(Path("out", name).read_bytes()) for name in table["file"]]
    assert images[0].shape == (3, 16, 16) and (images[0] != images[1]).any()
    settings = json.loads(Path("out/manifest.json").read_text())
    assert settings["grid"][-1] == 300 and settings["weights"] == row["weights"]
    assert settings["settings"] == {"kind": "dct", "rank": 1, "color": []}
    assert len(settings["examples"]) == 14 and settings["skipped"] == []
    # Again with the same seed, with another one, and without overwriting.
    first = contents(Path("out"))
    code, _, printed = command(*words, *LEAK)
    assert code == 2 and "out is there already" in printed
    shutil.move("out", "before")
    assert command(*words, *LEAK)[0] == 0 and contents(Path("out")) == first
    assert command(*words[:2], "other", *words[3:], *LEAK, "--seed", 1)[0] == 0
    assert contents(Path("other"), "0*.png") != contents(Path("out"), "0*.png")


def test_a_model_of_the_project_makes_them_too_and_names_parents(project, command):
    assert command("generate", "pictures", "out", "--model", MODEL, "--sampler", "boomerang",
                   "--level", 200, "--count", 16, "--steps", 3)[0] == 0
    parents = pd.read_csv("out/manifest.csv")["parents"]
    assert parents.str.startswith("images-").all()
    assert parents[14] == parents[0] and parents[:14].is_unique  # 14 pictures, again in order
    opened = open_network(load_params(), model=MODEL, pipeline=None, device="cpu")
    assert isinstance(opened.codec, Pixels) and (opened.size, opened.name) == (16, MODEL)


def test_the_first_model_and_the_defaults_of_a_sampler_are_recorded(project, command):
    Path("pictures/text.png").write_text("no image")
    words = ("--sampler", "signal-leak", "--level", 200, "--count", 1, "--steps", 3)
    assert command("generate", "pictures", "out", *words)[0] == 0
    row = pd.read_csv("out/manifest.csv").iloc[0]
    assert (row["network"], row["settings"]) == (MODEL, "color=[] kind=dct rank=6")
    skipped, = json.loads(Path("out/manifest.json").read_text())["skipped"]
    assert skipped["file"] == "text.png"


def test_it_goes_on_where_it_stopped(project):
    class Interrupted(DirectRun):
        def map(self, fn, items, *, name, workers=1):
            super().map(fn, items[:1], name=name, workers=workers)
            raise KeyboardInterrupt

    request = json.dumps({"images": "pictures", "out": "out", "sampler": "noise", "count": 6,
                          "steps": 3, "model": MODEL})
    with pytest.raises(KeyboardInterrupt):
        STAGES["generate"](Interrupted(), request=request)
    assert not Path("out").exists()
    scratch, = Path(".work").glob("generate-*")
    part = scratch / "part-00000.safetensors"
    stamp = part.stat().st_mtime_ns
    kept = []

    class Watched(DirectRun):
        def map(self, fn, items, *, name, workers=1):
            made = super().map(fn, items, name=name, workers=workers)
            kept.append(part.stat().st_mtime_ns == stamp)
            return made

    assert STAGES["generate"](Watched(), request=request)["images"] == 6
    assert kept == [True] and not scratch.exists()


def test_a_manifest_names_the_solver_that_was_used(project, command):
    words = ("generate", "pictures", "out", "--model", MODEL, "--sampler", "crdi", "--level", 300,
             "--count", 2, "--steps", 4)
    code, _, printed = command(*words, "--method", "ab2")
    assert code == 2 and "--sampler crdi is denoised by ddim; leave --method out" in printed
    assert command(*words)[0] == 0
    assert pd.read_csv("out/manifest.csv")["method"].tolist() == ["ddim", "ddim"]


def test_a_tuned_pipeline_starts_from_its_own_noise(project, command):
    index = Path("pipeline/model_index.json")
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | checker))
    before = contents(Path("pipeline"))
    assert command("finetune-pipeline", "pictures", "tuned", "--pipeline", "pipeline", "--prompt",
                   "red", "--steps", 3, "--batch", 2)[0] == 0
    assert contents(Path("pipeline")) == before
    after = contents(Path("tuned"))
    assert {name for name in before if after[name] != before[name]} - {"unet/config.json"} == {
        "unet/diffusion_pytorch_model.safetensors", "model_index.json"}
    report = json.loads(Path("tuned/report.json").read_text())
    assert len(report["losses"]) == 3 and len(report["ids"]) == 14
    words = ("generate", "pictures", "out", "--pipeline", "tuned", "--sampler", "style-noise",
             "--count", 2, "--steps", 3)
    assert command(*words)[0] == 0
    assert pd.read_csv("out/manifest.csv")["level"].tolist() == [1000, 1000]
    code, _, printed = command(*words[:2], "other", *words[3:], "--level", 500)
    assert code == 2 and "leave --level out" in printed
    assert json.loads(after["model_index.json"])["safety_checker"] == [None, None]
    load_parts(Path("tuned"))


@pytest.mark.parametrize(("words", "said"), [
    (("--model", MODEL, "--sampler", "teleport"), "--sampler teleport is not known"),
    (("--model", MODEL), "needs --level"),
    (("--model", MODEL, "--level", 2000), "use 0 to 1000"),
    (("--level", -1), "use 0 to 1000"),
    (("--model", MODEL, "--level", 9, "--set", "rank"), "write it as kind=dct"),
    (("--model", MODEL, "--level", 9, "--set", "rang=1"), "no setting 'rang'"),
    (("--level", 9, "--set", "sampler=noise"), "use --sampler"),
    (("--model", MODEL, "--level", 9, "--count", 0), "--count 0"),
    (("--model", MODEL, "--level", 9, "--steps", 1), "steps 1 is too few"),
    (("--model", MODEL, "--level", 9, "--method", "euler"), "--method euler"),
    (("--model", MODEL, "--level", 9, "--prompt", "red"), "belong to --pipeline"),
    (("--model", "small", "--level", 9), "models.small is not defined"),
    (("--model", MODEL, "--pipeline", "pipeline", "--level", 9), "one of the two"),
    (("--pipeline", "pictures", "--level", 9), "pictures has no model_index.json"),
    (("--pipeline", "nowhere", "--level", 9), "nowhere is not a folder"),
    (("--pipeline", "pipeline", "--level", 9, "--guidance", -1), "guidance -1"),
])
def test_a_wrong_request_is_one_line(project, command, words, said):
    if "--sampler" not in words:
        words = (*words, "--sampler", "signal-leak")
    code, _, printed = command("generate", "pictures", "out", *words)
    lines = printed.splitlines()
    assert code == 2 and len(lines) == 1 and said in lines[0], printed
    assert not Path("out").exists()


@pytest.mark.parametrize(("images", "out", "said"), [
    ("pictures", "pictures/out", "pictures/out lies in pictures"),
    ("pictures", "params.yaml/out", "params.yaml/out cannot be written"),
    ("absent", "out", "error: absent does not exist"),
    ("params.yaml", "out", "params.yaml is neither a folder nor a zip"),
    ("one", "out", "one has one image; --sampler signal-leak needs 2"),
])
def test_wrong_folders_are_one_line(project, command, images, out, said):
    Path("one").mkdir()
    shutil.copy("pictures/00.png", "one")
    code, _, printed = command("generate", images, out, "--sampler", "signal-leak", "--level", 300,
                               "--steps", 3)
    assert code == 2 and len(printed.splitlines()) == 1 and said in printed, printed
    assert not Path(out).exists()


@pytest.mark.parametrize(("images", "words", "said"), [
    ("pictures", ("--learning-rate", "nan"), "--learning-rate nan"),
    ("pictures", ("--pipeline", "nowhere"), "nowhere is not a folder"),
    ("pictures", ("--noise", "pink"), "use style or white"),
    ("pictures", ("--steps", 0), "steps 0"),
    ("absent", (), "absent does not exist"),
])
def test_a_wrong_training_is_one_line(project, command, images, words, said):
    code, _, printed = command("finetune-pipeline", images, "tuned", "--pipeline", "pipeline",
                               *words)
    assert code == 2 and len(printed.splitlines()) == 1 and said in printed, printed
    assert not Path("tuned").exists()


def test_settings_are_read_as_params_yaml_reads_them():
    assert read_settings(["kind=dct", "rank=3", "color=[0.5, 0, -1]", "eta=0.5"]) == {
        "kind": "dct", "rank": 3, "color": [0.5, 0, -1], "eta": 0.5}
    for wrong in ("kind", "=3", "kind=[1"):
        with pytest.raises(UnseenError, match="write it as"):
            read_settings([wrong])
