"""What the stages may read, and what their results may not depend on."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from workspace import (
    CHAIN,
    DOMAIN,
    MODEL,
    OTHER,
    ROOT,
    change,
    contents,
    fetch_all,
    run_everything,
    run_stages,
)

from flows.dispatch import run_stage
from flows.running.code import is_code
from flows.running.registry import MODULES, STAGES
from flows.running.run import DirectRun
from unseen_core.errors import UnseenError
from unseen_core.store import read_frame, read_pictures

PLACE = Path(MODEL, DOMAIN)


class Interrupted(DirectRun):
    """A run that is stopped after two parts of a stage."""

    def map(self, fn, items, *, name, workers):
        super().map(fn, items[:2], name=name, workers=workers)
        raise KeyboardInterrupt


def test_only_evaluate_reads_held_out_images(workspace, finished):
    fetch_all()
    for file in Path("data/source").rglob("*.parquet"):
        if file.stem in ("held_out", "rest"):
            file.unlink()
    run_stages(CHAIN[:-1])
    for stage, pattern in (("latents", "*"), ("starts", "*"), ("priors", "*"),
                           ("generated", "*.parquet"), ("generated", "*.png")):
        assert contents(Path("data", stage, PLACE), pattern) == contents(
            finished / "data" / stage / PLACE, pattern)
    chosen = contents(Path("data/selection", MODEL))
    assert len(chosen) == 3
    assert chosen.items() <= contents(finished / "data/selection" / MODEL).items()
    with pytest.raises(UnseenError, match=r"held_out\.parquet") as caught:
        run_stages(["evaluate"])
    assert len(str(caught.value).splitlines()) == 1
    shutil.rmtree("data")
    shutil.copytree(finished / "data", "data",
                    ignore=shutil.ignore_patterns("held_out.parquet", "rest.parquet", "report"))
    run_stage("compare")
    assert contents(Path("data/report")) == contents(finished / "data/report")


def test_a_second_run_writes_the_same_bytes(workspace, finished):
    run_everything()
    first, second = contents(finished / "data"), contents(Path("data"))
    # How long work took is no result: it is kept apart, and nothing else holds a time.
    assert {name for name in first if name.startswith("seconds/")} == {
        f"seconds/{MODEL}/{domain}.json" for domain in (DOMAIN, OTHER)}
    for found in (first, second):
        for name in [name for name in found if name.startswith("seconds/")]:
            del found[name]
    assert [name for name in first if first[name] != second.get(name)] == []
    assert first.keys() == second.keys()


@pytest.mark.parametrize(("stage", "folder", "patterns"), [
    ("invert", "latents", ["*"]), ("denoise", "generated", ["*.parquet", "*.png"]),
])
def test_results_do_not_depend_on_an_interruption(done, stage, folder, patterns, monkeypatch):
    out = Path("data", folder, PLACE)
    before = [contents(out, pattern) for pattern in patterns]
    shutil.rmtree(out)
    with pytest.raises(KeyboardInterrupt):
        STAGES[stage](Interrupted(), model=MODEL, domain=DOMAIN)
    scratch, = (folder for folder in Path(".work").iterdir() if folder.is_dir())
    parts = {file: file.stat().st_mtime_ns for file in scratch.rglob("*.sha256")}
    assert parts and not out.exists()
    seen = []
    monkeypatch.setattr(f"{MODULES[stage]}.{'carry_up' if stage == 'invert' else 'denoise_starts'}",
                        _counting(stage, seen))
    run_stages([stage])
    assert [contents(out, pattern) for pattern in patterns] == before
    assert not scratch.exists()
    # Two parts of three images, or both parts of a cell: the network did not see them again.
    assert sum(seen) == (8 - 2 * 3 if stage == "invert" else _latent_states(out) - (3 + 1))


def test_parents_guide_the_network_in_the_pipeline(workspace):
    """With guide: 1 every pixel lies between those of the image's own parents."""
    change(workspace, "samplers", "geometric", "guide", to=1.0)
    fetch_all()
    run_stages(["invert", "fit", "sample", "denoise"])
    given, frame = read_pictures(Path("data/source/domains", DOMAIN, "fit.parquet"))
    place = {name: i for i, name in enumerate(frame["id"])}
    for level in (100, 200):
        images, made = read_pictures(Path("data/generated", PLACE, f"L0{level}-geometric.parquet"))
        parents = torch.stack([given[[place[name] for name in row.split(",")]]
                               for row in made["parents"]])
        assert ((images >= parents.amin(1)) & (images <= parents.amax(1))).all()


def _latent_states(folder):
    """Return how many generated images started from latents."""
    return sum(len(read_frame(file)) for file in folder.glob("*.parquet")
               if not file.name.startswith("L0000"))


def _counting(stage, seen):
    """Return the stage's transport, noting how many states pass through it."""
    import flows.stages.denoise
    import flows.stages.invert

    up, down = flows.stages.invert.carry_up, flows.stages.denoise.denoise_starts

    def carry_up(network, x, grid, **settings):
        seen.append(len(x))
        return up(network, x, grid, **settings)

    def denoise_starts(sampler, network, starts, levels, **settings):
        seen.append(len(starts.x) if starts.level > 0 else 0)
        return down(sampler, network, starts, levels, **settings)

    return carry_up if stage == "invert" else denoise_starts


def wants(stage):
    """Return what a stage of dvc.yaml depends on besides code, for this model and domain."""
    body = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"][stage]
    named = [str(dep).replace("${item.model}", MODEL).replace("${item.domain}", DOMAIN)
             for dep in body["deps"]]
    # Where nothing is fine-tuned, as here, nothing reads what finetune reads and writes.
    return [dep for dep in named if not is_code(dep) and "embedded" not in dep
            and "finetuned" not in dep]


NEEDED = [(stage, dep) for stage in (*CHAIN, "compare") if stage != "finetune"
          for dep in wants(stage)]


@pytest.mark.parametrize(("stage", "dep"), NEEDED, ids=[f"{s}-{d}" for s, d in NEEDED])
def test_a_missing_input_is_one_line_that_names_it(done, stage, dep):
    path = Path(dep)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    targets = {} if stage == "compare" else {"model": MODEL, "domain": DOMAIN}
    with pytest.raises(UnseenError) as caught:
        run_stage(stage, targets)
    text = str(caught.value)
    assert dep in text or str(path.parent) in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(("stage", "file"), [
    ("invert", f"source/domains/{DOMAIN}/fit.parquet"),
    ("fit", f"latents/{PLACE}/L0100/part-00001.safetensors"),
    ("fit", f"latents/{PLACE}/manifest.json"),
    ("fit", f"latents/{PLACE}/index.parquet"),
    ("sample", f"priors/{PLACE}/L0200.safetensors"),
    ("sample", f"priors/{PLACE}/L0200.json"),
    ("denoise", f"starts/{PLACE}/L0200-noise/part-00001.safetensors"),
    ("denoise", f"starts/{PLACE}/report.json"),
    ("select", f"generated/{PLACE}/L0200-slerp.parquet"),
    ("select", f"generated/{PLACE}/L0200-slerp.json"),
    ("evaluate", f"generated/{PLACE}/L0200-noise.parquet"),
    ("evaluate", f"generated/{PLACE}/L0200-noise.json"),
    ("evaluate", f"starts/{PLACE}/report.json"),
])
@pytest.mark.parametrize("damage", ["absent", "cut"])
def test_a_damaged_input_is_one_line_that_names_its_folder(done, stage, file, damage):
    path = Path("data", file)
    whole = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnseenError) as caught:
        run_stages([stage])
    text = str(caught.value)
    assert str(path.parent) in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("figure", [None, math.inf])
@pytest.mark.parametrize("names", ["novelty", "all"])
def test_a_domain_without_figures_stops_no_other(done, names, figure):
    before = json.loads(Path("data/report/best.json").read_text())
    path = Path("data/metrics", MODEL, f"{DOMAIN}.json")
    content = json.loads(path.read_text())
    for cell in content["cells"]:
        for name, value in cell["metrics"].items():
            if name == "novelty" or (names == "all" and isinstance(value, float)):
                cell["metrics"][name] = figure
    path.write_text(json.dumps(content))
    run_stage("compare")
    best = json.loads(Path("data/report/best.json").read_text())
    assert best[f"{MODEL}/{OTHER}"] == before[f"{MODEL}/{OTHER}"]
    odd = best.get(f"{MODEL}/{DOMAIN}")
    assert odd is None if names == "all" else not odd["qualifies"]


def test_damaged_metrics_are_named_before_a_table_is_written(done):
    path, table = Path("data/metrics", MODEL, f"{DOMAIN}.json"), Path("data/report/compare.csv")
    path.write_text(path.read_text()[:500])
    table.unlink()
    with pytest.raises(UnseenError, match=f"{path}: damaged"):
        run_stage("compare")
    assert not table.exists()
