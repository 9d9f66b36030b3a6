"""Stage ``applications``: complete tables, the same after an interruption; one-line refusals."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from workspace import MODEL, OTHER, SEEN, change, contents, fetch_all

from flows.dispatch import run_stage
from flows.running.registry import STAGES
from flows.running.run import DirectRun
from unseen_core.errors import UnseenError

OUT = Path("data/applications", MODEL)


class Interrupted(DirectRun):
    """A run that is stopped after the first two parts of a stage."""

    def map(self, fn, items, *, name, workers):
        super().map(fn, items[:2], name=name, workers=workers)
        raise KeyboardInterrupt


@pytest.fixture
def project(workspace):
    fetch_all((OTHER, SEEN))
    return workspace


def test_tables_are_complete_and_survive_an_interruption(project):
    outcome = run_stage("applications", {"model": MODEL})
    assert "no privacy guarantee" in outcome["notice"]
    before = contents(OUT)
    shutil.rmtree(OUT)
    with pytest.raises(KeyboardInterrupt):
        STAGES["applications"](Interrupted(), model=MODEL)
    assert len([*Path(".work").rglob("*.safetensors")]) == 2 and not OUT.exists()
    run_stage("applications", {"model": MODEL})
    assert contents(OUT) == before and not [*Path(".work").rglob("*.safetensors")]

    hiding = pd.read_csv(OUT / "anonymise.csv")
    assert hiding["fraction"].tolist() == [0.0, 0.2] and hiding["level"].tolist() == [0, 200]
    assert hiding.loc[0, ["top1", "top1_pixels", "verified"]].tolist() == [1, 1, 1]
    assert hiding.loc[0, "moved_rms"] == hiding.loc[0, "moved_rms_predicted"] == 0
    assert hiding.loc[1, "moved_rms"] > 0 and hiding["utility"].between(0, 1).all()
    arms = pd.read_csv(OUT / "augment.csv")
    assert arms["arm"].tolist() == ["none", "classical", "boomerang 0.2", "both 0.2"]
    assert (arms["seeds"] == 2).all() and arms.loc[0, "gain"] == 0
    assert len(pd.read_csv(OUT / "augment_seeds.csv")) == 2 * 4
    sharper = pd.read_csv(OUT / "enhance.csv")
    assert sharper["passes"].tolist() == [1, 2]
    assert (sharper["perceptual_bicubic"] == sharper["perceptual_bicubic"][0]).all()
    gain = sharper["perceptual"] - sharper["perceptual_bicubic"]
    assert gain.tolist() == pytest.approx(sharper["perceptual_gain"].tolist(), rel=1e-3)
    report = json.loads((OUT / "applications.json").read_text())
    verdict, = report["verdicts"]["enhance"]
    assert verdict["beats_bicubic"] == (verdict["perceptual_gain_high"] < 0)
    assert 200 in report["grid"] and 100 in report["grid"]
    # Six originals: two tiles a row in one sheet, six rows in the other.
    for name, least in (("anonymise", (2 * 64, 6 * 64)), ("enhance", (5 * 64, 6 * 64))):
        with Image.open(OUT / f"{name}.png") as sheet:
            assert sheet.width > least[0] and sheet.height > least[1]


def test_missing_labels_are_one_line(project):
    change(project, "applications", "augment", "labelled", to=SEEN)
    with pytest.raises(UnseenError, match=r"applications\.augment: labelled shapes") as caught:
        run_stage("applications", {"model": MODEL})
    assert len(str(caught.value).splitlines()) == 1


def test_domains_that_a_preset_does_not_have_are_left_out(project, caplog):
    for keys in (("anonymise", "domains"), ("enhance", "domains")):
        change(project, "applications", *keys, to=["nothing"])
    change(project, "applications", "augment", "labelled", to="nobody")
    outcome = run_stage("applications", {"model": MODEL})
    assert outcome["beats_bicubic"] == outcome["arms_that_help"] == 0
    assert "left out: params.yaml: domains.nothing is not defined" in caplog.text
    assert json.loads((OUT / "applications.json").read_text())["augment"] == []
    assert not [*OUT.glob("*.csv")]
