"""Store addresses, flat parameters, cells: what needs no MLflow."""

import json
import subprocess
from pathlib import Path

import pytest

from flows.loading.metrics import LATENTS, invocation_cells, read_cells
from flows.loading.reports import read_stages
from flows.mlflow.provenance import datasets, digest, flatten, provenance, store_label, store_uri
from unseen_core.errors import UnseenError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_store_is_at_the_root_of_the_main_repository(tmp_path, monkeypatch):
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    assert store_uri(tmp_path / "copy") == f"sqlite:///{tmp_path}/main/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri(tmp_path) == "http://127.0.0.1:5000"


def test_label_hides_the_password(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:se@cret@host.example:5000/x")
    assert store_label(tmp_path) == "https://host.example:5000/x"


def test_flatten_dots_nested_names():
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None, "f": "x", "g": True}
    flat = {"a.b": "1", "a.c.d": "[1, 2]", "e": "null", "f": "x", "g": "true"}
    assert flatten(nested) == flat
    assert len(flatten({"long": "x" * 9999})["long"]) == 500


def test_digest_depends_on_content_not_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_cells_are_read_in_order_of_path(tmp_path):
    for model, domain in [("m", "b"), ("m", "a"), ("l", "z")]:
        path = tmp_path / model / f"{domain}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"cells": [{"model": model, "domain": domain}]}))
    assert [cell["domain"] for cell in read_cells(tmp_path)] == ["z", "a", "b"]
    assert read_cells(tmp_path / "none") == []


def test_an_invocation_is_about_its_pipeline_wherever_it_is_read_from(tmp_path, monkeypatch):
    for domain in ("a", "left-over"):
        metrics = tmp_path / f"data/metrics/m/{domain}.json"
        metrics.parent.mkdir(parents=True, exist_ok=True)
        metrics.write_text(json.dumps({"cells": [{"model": "m", "domain": domain}]}))
        analysis = tmp_path / f"data/analysis/m/{domain}/analysis.json"
        analysis.parent.mkdir(parents=True)
        analysis.write_text(json.dumps({"model": "m", "domain": domain, "images": 20,
                                        "levels": {"300": {"figures": {"norm": 1.0}}}}))
    cells = invocation_cells(tmp_path, {("m", "a")})
    assert [cell["domain"] for cell in cells] == ["a", "a"]
    assert (cells[1]["sampler"], cells[1]["level"]) == (LATENTS, 300)
    assert cells[1]["sheet"] == "data/analysis/m/a/analysis.png"
    monkeypatch.chdir(tmp_path)
    assert digest(invocation_cells(Path(), {("m", "a")})) == digest(cells)


def test_a_stage_per_model_is_read_as_figures_and_curves(tmp_path):
    assert read_stages(tmp_path, {"m"}) == []
    folder = tmp_path / "data/trajectory/m"
    folder.mkdir(parents=True)
    (folder / "trajectory.json").write_text(json.dumps({
        "model": "m", "seed": 0, "settings": {"seeds": 2}, "law": {"modes": 9, "name": "x"},
        "grid": [0, 1], "figures": {"rotation": {"max": 0.25}}}))
    (folder / "gains.csv").write_text("level,direction,predicted,measured,measured_low\n"
                                      "100,off span,1,0.5,0\n300,off span,2,nan,0\n")
    record, = read_stages(tmp_path, {"m", "other"})
    assert (record["model"], record["stage"]) == ("m", "trajectory")
    assert record["settings"] == {"seed": 0, "settings": {"seeds": 2}}
    assert record["metrics"] == {"law/modes": 9.0, "figures/rotation/max": 0.25}
    assert record["curves"] == {"gains/predicted/off span": [(100, 1.0), (300, 2.0)],
                                "gains/measured/off span": [(100, 0.5)]}
    assert record["files"] == ["data/trajectory/m/trajectory.json", "data/trajectory/m/gains.csv"]
    (folder / "gains.csv").write_text("direction\nx\n")
    with pytest.raises(UnseenError, match=r"damaged, or a table .*run trajectory again"):
        read_stages(tmp_path, {"m"})


def test_a_dataset_is_told_by_the_bytes_that_were_fetched(tmp_path):
    folder = tmp_path / "data/source/domains/a"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({
        "source": "folder", "origin": "somewhere", "licence": "CC0", "counts": {"fit": 7}}))
    assert datasets(tmp_path, "a") == []
    (folder / "fit.parquet").write_bytes(b"one")
    first, = datasets(tmp_path, "a")
    assert (first.name, first.side, first.source_type, first.images) == ("a", "fit", "folder", 7)
    assert first.source == {"origin": "somewhere", "licence": "CC0"}
    assert len(first.digest) == 36  # what MLflow allows
    (folder / "fit.parquet").write_bytes(b"two")
    assert datasets(tmp_path, "a")[0].digest != first.digest


def test_provenance_names_commit_lock_and_experiment(tmp_path, monkeypatch):
    assert "git_commit" not in provenance(tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    monkeypatch.setenv("DVC_EXP_NAME", "tepid-owl")
    tags = provenance(tmp_path)
    assert len(tags["git_commit"]) == 40
    assert len(tags["dvc_lock"]) == 64
    assert tags["dvc_experiment"] == "tepid-owl"
