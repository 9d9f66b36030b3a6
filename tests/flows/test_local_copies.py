"""`anonymise`, `augment`, `enhance`: files with their provenance, resumed, or a line of refusal."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from workspace import MODEL, contents, draw_pictures

from flows.running.registry import STAGES
from flows.running.run import DirectRun
from unseen_core.applications import Classifier
from unseen_core.basics.images import decode_png

QUICK = ("--steps", 3)


def test_anonymise_tells_every_source_and_that_it_proves_nothing(with_network, command):
    code, said, _ = command("anonymise", "pictures", "out", "--fraction", 0.3, "--copies", 2,
                            "--eta", 0.5, "--seed", 3, *QUICK)
    assert code == 0 and "no privacy guarantee" in said and "guessing: 7%" in said
    table = pd.read_csv("out/manifest.csv")
    assert len(table) == 28 and table["source"].nunique() == 14
    row = table.iloc[5]
    assert (row["file"], row["source"], row["copy"]) == ("00002-1.png", "02.png", 1)
    assert (row["fraction"], row["level"], row["eta"], row["seed"]) == (0.3, 300, 0.5, 3)
    assert row["network"] == MODEL and not table["originals_included"].any()
    for name, digest in zip(table["file"], table["sha256"], strict=True):
        data = Path("out", name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest and decode_png(data).shape == (3, 16, 16)
    report = json.loads(Path("out/report.json").read_text())
    assert "no privacy guarantee" in report["notice"] and report["originals_included"] is False
    larger = max(report["top1"], report["top1_pixels"])
    assert f"{larger:.0%} traced" in said  # by the better of the two matchers
    assert 0 <= report["top1"] <= 1 and report["top1_chance"] == pytest.approx(1 / 14)
    assert report["utility_by"].startswith("kernel distance") and report["kernel"] is not None


def test_fraction_zero_returns_the_images(with_network, command):
    assert command("anonymise", "pictures", "out", "--fraction", 0, *QUICK)[0] == 0
    assert json.loads(Path("out/report.json").read_text())["top1"] == 1


def test_augment_keeps_classes_and_originals_and_measures(with_network, command, monkeypatch):
    monkeypatch.setattr("flows.folders.augment.Classifier", partial(Classifier, steps=3))
    draw_pictures(Path("labelled/first class"), 5, seed=1)
    draw_pictures(Path("labelled/second"), 5, seed=2)
    code, said, errors = command("augment", "labelled", "out", "--copies", 2, *QUICK)
    assert code == 0, errors
    assert "none 0." in said or "none 1." in said
    table = pd.read_csv("out/manifest.csv")
    assert table["kind"].value_counts().to_dict() == {"copy": 20, "original": 10}
    assert table["file"].str.startswith("first class/").sum() == 15
    assert table["originals_included"].all()
    originals = table[table["kind"] == "original"]
    assert originals["fraction"].isna().all() and originals["seed"].isna().all()
    assert {len([*Path("out", name).iterdir()]) for name in ("first class", "second")} == {15}
    arms = json.loads(Path("out/report.json").read_text())["arms"]
    assert [row["arm"] for row in arms] == ["none", "classical", "boomerang 0.1", "both 0.1"]
    assert {row["seeds"] for row in arms} == {3}


def test_enhance_says_whether_it_beats_bicubic(with_network, command):
    draw_pictures(Path("small"), 6)
    words = ("enhance", "small", "out", "--factor", 2, "--passes", 2, "--fraction", 0.05)
    code, said, _ = command(*words, "--originals", "pictures", *QUICK)
    assert code == 0 and "better than bicubic" in said
    report = json.loads(Path("out/report.json").read_text())
    assert report["beats_bicubic"] == (report["perceptual_gain_high"] < 0)
    assert report["consistency_bicubic"] > 0 and report["psnr"] > 0
    assert decode_png(Path("out/00000-0.png").read_bytes()).shape == (3, 16, 16)
    assert "no --originals" in command(*words[:2], "other", *words[3:], *QUICK)[1]
    (with_network / "pictures/03.png").unlink()
    line = command(*words[:2], "third", *words[3:], "--originals", "pictures", *QUICK)[2]
    assert "error: pictures: no original of 03.png" in line and not Path("third").exists()


class Killed(DirectRun):
    """A run that is killed after the first part."""

    def map(self, fn, items, *, name, workers=1):
        super().map(fn, items[:1], name=name, workers=workers)
        raise KeyboardInterrupt


def test_what_was_interrupted_goes_on_and_what_is_done_stays(with_network, command):
    request = json.dumps({"images": "pictures", "out": "out", "fraction": 0.2, "steps": 3,
                          "model": MODEL})
    with pytest.raises(KeyboardInterrupt):
        STAGES["anonymise"](Killed(), request=request)
    part, = Path(".work").rglob("*.safetensors")
    stamp = part.stat().st_mtime_ns
    assert [*Path("out").iterdir()] == [Path("out/settings.json")]
    words = ("anonymise", "pictures", "out", "--fraction", 0.2, *QUICK)

    class Watched(DirectRun):
        def map(self, fn, items, *, name, workers=1):
            found = super().map(fn, items, name=name, workers=workers)
            assert part.stat().st_mtime_ns == stamp
            return found

    STAGES["anonymise"](Watched(), request=request)
    assert not [*Path(".work").rglob("*.safetensors")]
    before, stamp = contents(Path("out")), Path("out/report.json").stat().st_mtime_ns
    assert command(*words)[0] == 0 and contents(Path("out")) == before
    assert Path("out/report.json").stat().st_mtime_ns == stamp
    code, _, errors = command(*words, "--seed", 1)
    assert code == 2 and "made with other settings" in errors
    assert contents(Path("out")) == before


@pytest.mark.parametrize(("words", "mistake"), [
    (("anonymise", "nowhere", "out"), "nowhere does not exist"),
    (("anonymise", "pictures", "pictures/out"), "lies in pictures"),
    (("anonymise", "pictures", "params.yaml"), "params.yaml is not a folder"),
    (("anonymise", "pictures", "out", "--fraction", 1.5), "--fraction 1.5"),
    (("anonymise", "pictures", "out", "--fraction", "nan"), "--fraction nan"),
    (("anonymise", "pictures", "params.yaml/out"), "cannot be written"),
    (("enhance", "pictures", "out", "--factor", 2, "--originals", "no"), "no does not exist"),
    (("anonymise", "pictures", "out", "--model", "big"), "models.big is not defined"),
    (("anonymise", "pictures", "out", "--prompt", "red"), "belong to --pipeline"),
    (("augment", "pictures", "out"), "00.png is in no subfolder"),
    (("augment", ".", "out"), "out lies in ."),
    (("enhance", "pictures", "out", "--factor", 4), "--factor 4"),
    (("enhance", "pictures", "out", "--factor", 3), "--factor 3"),
])
def test_mistakes_are_one_line_and_write_nothing(with_network, command, words, mistake):
    before = contents(with_network)
    code, _, errors = command(*words)
    lines = [line for line in errors.splitlines() if line.startswith("error:")]
    assert code == 2 and len(lines) == 1 and mistake in lines[0]
    assert "Traceback" not in errors and contents(with_network) == before


def test_a_class_of_one_image_cannot_be_tested(with_network, command):
    draw_pictures(Path("labelled/many"), 3, seed=1)
    draw_pictures(Path("labelled/lonely"), 1, seed=2)
    assert "class lonely has one image" in command("augment", "labelled", "out", *QUICK)[2]
    assert not Path("out").exists()
    shutil.rmtree("labelled/lonely")
    assert "one class only, many" in command("augment", "labelled", "other", *QUICK)[2]


def test_a_latent_diffusion_model_makes_copies_too(with_network, pipelines, command):
    shutil.copytree(pipelines["epsilon"], "pipeline")
    draw_pictures(Path("few"), 3)
    code, _, errors = command("anonymise", "few", "out", "--pipeline", "pipeline", "--prompt",
                              "red", "--guidance", 2, "--fraction", 0.5, *QUICK)
    assert code == 0, errors
    table = pd.read_csv("out/manifest.csv")
    assert table["prompt"].tolist() == ["red"] * 3 and table["guidance"].tolist() == [2.0] * 3
    assert table["network"].tolist() == ["pipeline"] * 3
