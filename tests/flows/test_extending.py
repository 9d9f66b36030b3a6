"""docs/extending.md, followed block by block in a copy of the tiny project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from repository import lay_code
from ruamel.yaml import YAML
from workspace import DOMAIN, MODEL, ROOT, change

pytestmark = [
    pytest.mark.contract,
    # mlflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

PAGE = (ROOT / "docs/extending.md").read_text("utf-8")
BLOCK = re.compile(r"^```(?:python|yaml)\n# ([^\n]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NEW, BELOW = re.compile(r"new file (\S+)"), re.compile(r'(\S+), after "(.+)"')
HERE = f"--model {MODEL} --domain {DOMAIN}"
STAGES = ("sample", "denoise", "select", "evaluate", "palette")
COMMANDS = ["deps", "check", "fetch --domain stripes", "plan",
            *(f"{stage} {HERE}" for stage in STAGES), "compare", "findings"]
DRIVER = """
import sys
from flows.__main__ import app
for line in sys.argv[1:]:
    app(line.split(), standalone_mode=False)
"""
KEYS = ["L0100-halfway", "L0200-halfway"]


def follow(page: str, folder: Path) -> list[str]:
    """Apply every block of the page to a project, and return the Python files that it touches."""
    touched = []
    for place, text in BLOCK.findall(page):
        if new := NEW.fullmatch(place):
            file = folder / new[1]
            assert not file.exists()
            file.write_text(text, "utf-8")
        else:
            named, start = BELOW.fullmatch(place).groups()
            file = folder / named
            lines = file.read_text("utf-8").splitlines(keepends=True)
            row = next(i for i, line in enumerate(lines) if line.startswith(start))
            file.write_text("".join([*lines[: row + 1], text, *lines[row + 1 :]]), "utf-8")
        if file.suffix == ".py":
            touched.append(str(file))
    return touched


@pytest.fixture(scope="module")
def extended(finished, migrated, tmp_path_factory):
    """A project to which the page was applied, and in which the commands ran."""
    folder = tmp_path_factory.mktemp("extended") / "project"
    shutil.copytree(finished, folder)
    lay_code(folder, "pyproject.toml")
    shutil.copy(migrated, folder / "mlflow.db")
    change(folder, "pipeline", "domains", to=[DOMAIN])
    touched = follow(PAGE, folder)
    linted = subprocess.run([sys.executable, "-m", "ruff", "check", *touched], cwd=folder,
                            capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith(("DVC_", "PREFECT_", "MLFLOW_", "UNSEEN_"))}
    done = subprocess.run([sys.executable, "-c", DRIVER, *COMMANDS], cwd=folder, check=False,
                          env=environment | {"PYTHONPATH": str(folder)}, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_example_is_short_and_complete():
    sections = PAGE.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [
        "A sampler", "A metric", "An extractor", "A source", "A stage"]
    for section in sections:
        code = "".join(text for _, text in BLOCK.findall(section))
        assert 0 < sum(bool(line.strip()) for line in code.splitlines()) <= 30
        assert section.count("```") == 2 * len(BLOCK.findall(section))
        registered = [place for place, _ in BLOCK.findall(section) if ".py, after" in place]
        assert len(registered) == 1


def test_every_place_is_one_of_the_real_project_too():
    for place, _ in BLOCK.findall(PAGE):
        if not NEW.fullmatch(place):
            named, start = BELOW.fullmatch(place).groups()
            lines = (ROOT / named).read_text("utf-8").splitlines()
            assert any(line.startswith(start) for line in lines), place


def test_the_sampler_is_in_the_table_a_candidate_and_in_the_findings(extended):
    table = pd.read_csv(extended / "data/report/compare.csv")
    rows = table[table["sampler"] == "halfway"]
    assert rows["level"].tolist() == [100, 200] and (rows["n"] == 4).all()
    chosen = json.loads((extended / f"data/selection/{MODEL}/{DOMAIN}.json").read_text())
    assert set(KEYS) <= set(chosen["cells"])
    lines = (extended / "data/report/samplers.md").read_text().splitlines()
    assert sum(line.startswith("| halfway |") for line in lines) == 2
    findings = "".join(page.read_text() for page in (extended / "docs/findings").glob("*.md"))
    assert "| halfway | straight line |" in findings
    assert "| halfway@200 |" in findings


def test_the_metric_and_the_extractor_are_columns_for_every_cell(extended):
    table = pd.read_csv(extended / "data/report/compare.csv")
    for name in ("contrast", "kd_thumbnails", "fd_thumbnails"):
        assert table[name].notna().all()
    real = table[table["sampler"] == "real"]["contrast"].item()
    assert 0.5 < real < 2
    assert list(table)[5] == "kd_projections"  # the first extractor is still the first


def test_mlflow_has_the_sampler_and_the_metric(extended):
    from flows.mlflow.store import connect

    client = connect(extended).client
    experiment = client.get_experiment_by_name("unseen").experiment_id
    runs = {run.info.run_name: run.data for run in client.search_runs([experiment])}
    found = runs[f"{MODEL}/{DOMAIN}/L0200/halfway"]
    assert (found.params["sampler"], found.params["weight"]) == ("midpoint", "0.5")
    assert found.metrics["contrast"] > 0


def test_the_source_is_fetched(extended):
    report = json.loads((extended / "data/source/domains/stripes/report.json").read_text())
    assert report["counts"] == {"fit": 60, "held_out": 60, "rest": 80}


def test_the_stage_runs_and_is_in_dvc_yaml(extended):
    found = json.loads((extended / f"data/palette/{MODEL}/{DOMAIN}.json").read_text())
    assert set(KEYS) < set(found)
    assert all(len(colour) == 3 and 0 < min(colour) <= max(colour) < 255
               for colour in found.values())
    stages = YAML(typ="safe").load((extended / "dvc.yaml").read_text("utf-8"))["stages"]
    assert "flows/stages/palette.py" in stages["palette"]["deps"]
    assert "unseen_core/store" in stages["palette"]["deps"]
