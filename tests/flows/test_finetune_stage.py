"""Fine-tuned networks in the pipeline: trained, started, measured, and never called the best."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from workspace import (
    DOMAIN,
    MODEL,
    ROOT,
    change,
    copied_project,
    distances,
    enter_copy,
    fetch_all,
    run_stages,
)

from flows.loading.frozen import load_tuned
from flows.loading.seconds import read_seconds
from flows.report.plots.training import training
from flows.running.registry import STAGES, find_stage
from flows.running.run import DirectRun
from flows.settings.cells import Cell
from flows.settings.params import load_params
from flows.settings.plan import Plan
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.denoiser import load_model
from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import reported
from unseen_core.laws.gaussian import Gaussian
from unseen_core.store import file_hash, read_pictures, write_json
from unseen_core.training import tuned

PLACE = Path(MODEL, DOMAIN)
OUT = Path("data/finetuned", PLACE)
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
ENTRY = {"noise": "style", "images": 5, "steps": [1, 3], "batch": 2, "learning_rate": 0.002,
         "seed": 0}
ENTRIES = {"style": ENTRY, "white": {**ENTRY, "noise": "white", "images": 99, "steps": [2]}}
SAMPLERS = {
    "slerp": {"sampler": "slerp"},
    "style-noise": {"sampler": "style-noise"},
    "tuned-style": {"sampler": "style-noise", "network": "style/3", "levels": [1000]},
    "tuned-white": {"sampler": "noise", "network": "white/2", "levels": [1000, 150]},
}


@pytest.fixture(scope="module")
def trained(blank, tmp_path_factory):
    """A project with fine-tuned networks, evaluated; read only."""
    folder = tmp_path_factory.mktemp("trained") / "project"
    with copied_project(blank, folder):
        change(folder, "finetune", to=ENTRIES)
        change(folder, "samplers", to=SAMPLERS)
        change(folder, "levels", to=[200])
        fetch_all()
        run_stages(["invert", "fit", "finetune", "sample", "denoise", "evaluate"])
    return folder


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A copy of it as the working directory."""
    return enter_copy(trained, tmp_path, monkeypatch)


def fit_images():
    """Return the fit images as states, and their ids."""
    images, frame = read_pictures(Path("data/source/domains", DOMAIN, "fit.parquet"))
    return to_float(images), frame["id"].tolist()


def test_a_network_is_kept_at_every_number_of_steps_with_all_that_made_it(project):
    report = json.loads((OUT / "report.json").read_text())
    assert [row["network"] for row in report["networks"]] == ["style/1", "style/3", "white/2"]
    frozen = file_hash(Path("data/source/models", MODEL, WEIGHTS))
    assert report["frozen_before"] == report["frozen_after"] == frozen
    hashes = {row["sha256"] for row in report["networks"]}
    assert len(hashes | {frozen}) == 4
    images, ids = fit_images()
    for row in report["networks"]:
        own = json.loads((OUT / row["network"] / "report.json").read_text())
        count = 5 if row["noise"] == "style" else 8  # more than there are means all
        assert row["images"] == count and own["ids"] == ids[:count]
        assert own["steps"] == len(own["losses"]) == row["steps"]
        assert np.isfinite(row["loss"]) and "seconds" not in row
        assert row["forgetting_low"] <= row["forgetting"] <= row["forgetting_high"]
        law = Gaussian.from_state(load_file(OUT / row["network"] / "noise.safetensors"))
        flat = images[:count].flatten(1).double().numpy()
        style = row["noise"] == "style"
        assert np.allclose(law.mean, flat.mean(0) if style else 0, atol=1e-7)
        assert np.allclose(law.diagonal, flat.var(0, ddof=1) if style else 1, atol=1e-7)
    first, third = (json.loads((OUT / f"style/{n}/report.json").read_text())["losses"]
                    for n in (1, 3))
    assert third[:1] == first


def test_the_folder_is_a_pipeline_of_diffusers(project):
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline.from_pretrained(OUT / "style/3", local_files_only=True)
    saved = load_file(OUT / "style/3" / WEIGHTS)
    assert all(torch.equal(x, saved[name]) for name, x in pipeline.unet.state_dict().items())


def test_a_tuned_network_starts_from_the_law_of_its_own_images_on_its_own_grid(project):
    starts = torch.cat([part["x"] for part in (
        load_file(file) for file in sorted(
            Path("data/starts", PLACE, "L1000-tuned-style").glob("*.safetensors")))])
    law = Gaussian.from_state(load_file(OUT / "style/3/noise.safetensors"))
    streams = Streams(load_params().seed, f"{DOMAIN}/L1000", [f"{i:05d}" for i in range(4)])
    assert torch.allclose(starts.flatten(1), law.sample(streams).float(), atol=1e-6)
    frozen = load_model(Path("data/source/models", MODEL))
    tuned = load_tuned(MODEL, DOMAIN, "style/3", device="cpu", precision="float32")
    grid = frozen.schedule.grid(6, 1000)
    made, _ = read_pictures(Path("data/generated", PLACE, "L1000-tuned-style.parquet"))
    assert torch.equal(made[:3], to_uint8(denoise(tuned, starts[:3], grid)))
    assert not torch.equal(made[:3], to_uint8(denoise(frozen, starts[:3], grid)))


def test_the_cost_of_training_stands_beside_the_measurements(project):
    cells = json.loads(Path("data/metrics", MODEL, f"{DOMAIN}.json").read_text())["cells"]
    found = {(cell["sampler"], cell["level"]): cell["metrics"] for cell in cells}
    settings = {cell["sampler"]: cell["settings"] for cell in cells}
    assert settings["tuned-white"] == {"sampler": "noise", "network": "white/2"}
    assert settings["style-noise"] == {"sampler": "style-noise"}
    tuned = found["tuned-white", 150]
    assert (tuned["training_steps"], tuned["training_images"], tuned["calls"]) == (2, 8, 6)
    took = read_seconds(project, MODEL, DOMAIN, "finetune")
    assert set(took) == {"style/1", "style/3", "white/2"} and min(took.values()) > 0
    assert took["style/3"] > took["style/1"]
    assert found["tuned-style", 1000]["training_images"] == 5
    for sampler in ("slerp", "style-noise"):
        assert found[sampler, 200]["training_steps"] is None
    frame = pd.read_csv(Path("data/metrics", MODEL, f"{DOMAIN}.csv"))
    assert frame["training_steps"].notna().sum() == 3


def test_what_is_called_the_best_or_chosen_is_of_the_frozen_network(project):
    from flows.report.choice import best_cells

    params = load_params()
    cells = list(Plan.of(params).cells)
    assert cells[-2:] == [Cell(1000, "tuned-white"), Cell(150, "tuned-white")]
    assert Plan.of(params).candidates == [Cell(200, "slerp")]
    table = pd.DataFrame([
        {"model": MODEL, "domain": DOMAIN, "level": cell.level, "sampler": cell.sampler, "n": 4,
         **distances("kd", 0.1 if "tuned" in cell.sampler else 0.5, 0.0, 1.0),
         "in_target": 1.0, "novelty": 1.0, "copies": 0.0, "copies_held_out": 0.1}
        for cell in cells])
    best = best_cells(params, Plan.of(params), table, "kd")
    assert best[f"{MODEL}/{DOMAIN}"]["sampler"] == "slerp"


def test_the_training_table_has_a_row_and_the_plot_a_curve_for_every_tuned_cell(project):
    cells = json.loads(Path("data/metrics", MODEL, f"{DOMAIN}.json").read_text())["cells"]
    table = pd.DataFrame([{**cell, **cell["metrics"]} for cell in cells])
    kernel, out = "kd_projections", Path("report")
    best = {"sampler": "slerp", "level": 200, f"{kernel}_second": 0.3}
    write_json(out / "best.json", {f"{MODEL}/{DOMAIN}": best})
    training(table, kernel, load_params(), out)
    found = pd.read_csv(out / "training/training.csv").set_index(["network", "level"])
    assert set(found.index) == {("style/3", 1000), ("white/2", 1000), ("white/2", 150)}
    measured = table.set_index(["sampler", "level"])
    for name in (f"{kernel}_first", *reported(kernel)):  # which the findings read
        assert found.loc[("white/2", 150), name] == pytest.approx(
            measured.loc[("tuned-white", 150), name], rel=1e-5)
    assert found["forgetting"].notna().all()
    assert found["forgetting_untuned"].nunique() == 1
    row = found.loc[("style/3", 1000)]
    assert (row["noise"], row["images"], row["steps"], row["batch"]) == ("style", 5, 3, 2)
    assert (out / "training/training.png").stat().st_size > 5000
    training(table[table["sampler"] == "slerp"], kernel, load_params(), out)
    assert [file.name for file in (out / "training").iterdir()] == ["training.csv"]
    assert pd.read_csv(out / "training/training.csv").empty


class Interrupted(DirectRun):
    """A run that is stopped after the first training."""

    def map(self, fn, items, *, name, workers=1):
        super().map(fn, items[:1], name=name)
        raise KeyboardInterrupt


def test_a_finished_training_survives_a_kill(project, monkeypatch):
    before = {row["network"]: row["sha256"]
              for row in json.loads((OUT / "report.json").read_text())["networks"]}
    find_stage("finetune")
    with pytest.raises(KeyboardInterrupt):
        STAGES["finetune"](Interrupted(), model=MODEL, domain=DOMAIN)
    begun, real = [], tuned.finetune

    def counted(*parts, **options):
        begun.append(parts[5].steps)
        return real(*parts, **options)

    monkeypatch.setattr(tuned, "finetune", counted)
    run_stages(["finetune"])
    assert begun == [2]  # only the second one
    after = json.loads((OUT / "report.json").read_text())["networks"]
    assert {row["network"]: row["sha256"] for row in after} == before
    assert not [folder for folder in Path(".work").iterdir() if folder.is_dir()]


def test_without_entries_the_stage_leaves_an_empty_report_and_never_imports_torch(workspace):
    command = ("import sys; from flows.dispatch import run_stage; "
               f"run_stage('finetune', {{'model': {MODEL!r}, 'domain': {DOMAIN!r}}}); "
               "sys.exit('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False,
                          env={"PYTHONPATH": str(ROOT), "PATH": ""}, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((OUT / "report.json").read_text()) == {
        "model": MODEL, "domain": DOMAIN, "networks": []}


@pytest.mark.parametrize(("change_to", "said"), [
    ({"sampler": "slerp", "network": "style/3", "levels": [1000]},
     "samplers.x.network: a fine-tuned network starts from noise"),
    ({"sampler": "noise", "network": "style/3", "space": "pixels", "levels": [1000]},
     "in latents"),
    ({"sampler": "noise", "network": "style/2", "levels": [1000]},
     "'style/2' is not among the networks of finetune (style/1, style/3, white/2)"),
    ({"sampler": "noise", "network": "style/3"}, "samplers.x.levels: name the levels"),
    ({"sampler": "noise", "network": "style"}, "samplers.x.network: String should match"),
], ids=["sampler", "pixels", "unknown", "levels", "form"])
def test_a_wrong_network_is_one_line(project, change_to, said):
    change(project, "samplers", "x", to=change_to)
    with pytest.raises(UnseenError) as caught:
        Plan.of(load_params())
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("stage", "break_it", "said"), [
    ("sample", lambda: change(Path(), "samplers", "tuned-style", "levels", to=[1001]),
     "samplers.tuned-style.levels: 1001 is out of range; use 1 to 1000"),
    ("sample", lambda: shutil.rmtree(OUT), f"{OUT}/white/2/report.json"),
    ("denoise", lambda: shutil.rmtree(OUT / "white"), f"{OUT}/white/2: no such folder"),
    ("denoise", lambda: shutil.copyfile(OUT / "style/1" / WEIGHTS, OUT / "style/3" / WEIGHTS),
     f"run `python -m flows finetune --model {MODEL} --domain {DOMAIN}` again"),
    ("finetune", lambda: Path("data/source/models", MODEL, "seen.parquet").unlink(),
     "seen.parquet"),
    ("finetune", lambda: Path("data/source/domains", DOMAIN, "fit.parquet").unlink(),
     "fit.parquet"),
    ("finetune", lambda: change(Path(), "finetune", "style", "learning_rate", to=1e30),
     "lower learning_rate"),
], ids=["level", "no-network", "no-folder", "altered", "no-seen", "no-fit", "diverges"])
def test_what_is_missing_or_wrong_is_one_line(project, stage, break_it, said):
    break_it()
    with pytest.raises(UnseenError) as caught:
        run_stages([stage])
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1
