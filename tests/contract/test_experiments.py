"""`dvc exp run --queue` over levels, for one domain alone, and what DVC shows of it."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from repository import dvc, git, ran
from workspace import DOMAIN, MODEL, OTHER, SAMPLERS, change, isolate

from flows.mlflow.store import connect
from flows.running.warm import warm_stages

pytestmark = [
    pytest.mark.contract,
    # mlflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
]

LEVELS = (100, 200)
RERUN = ["sample", "denoise", "evaluate", "select"]


@pytest.fixture(scope="module")
def swept(repository, migrated):
    """The repository after two queued experiments, and what running them printed."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, repository)
        patch.delenv("UNSEEN_PARENT_RUN")  # each is recorded as a bare `dvc repro` is
        change(repository, "samplers", to={
            "slerp": SAMPLERS["slerp"], "geometric": SAMPLERS["geometric"] | {"levels": [100]}})
        git("add", "--all")
        git("commit", "-q", "-m", "two samplers, one with a level to sweep over")
        git("tag", "-a", "priors@v1.0.0", "-m", "first")
        shutil.copy(migrated, "mlflow.db")
        dvc("exp", "run", "--queue", "-S", f"pipeline.domains=[{OTHER}]",
            "-S", "samplers.geometric.levels=[100],[200]")
        with warm_stages() as warm:
            output = dvc("exp", "run", "--run-all", **warm)
    return repository, output


@pytest.fixture
def inside(swept, monkeypatch):
    """The repository as the working directory."""
    isolate(monkeypatch, swept[0])
    return swept[0]


def table():
    """Return the experiments as `dvc exp show` lists them, without columns about files."""
    text = dvc("exp", "show", "--csv", "--only-changed", "--hide-workspace", "--drop",
               ".*/.*|Created|State|Executor")
    return [row for row in csv.DictReader(io.StringIO(text)) if row["typ"] != "baseline"]


def test_the_table_has_a_row_per_level(inside):
    rows = table()
    assert {(row["pipeline.domains"], row["samplers.geometric.levels"]) for row in rows} == {
        (f"['{OTHER}']", f"[{level}]") for level in LEVELS}
    assert len(rows) == len(LEVELS)
    assert all(float(row["distance"]) < 10 and float(row["novelty"]) >= 0 for row in rows)
    axes = {"Experiment", "rev", "typ", "parent", "pipeline.domains", "samplers.geometric.levels"}
    figures = set(rows[0]) - axes
    assert figures <= {"distance", "novelty", "in_target", "copies", "qualify"}


def test_only_what_a_sampler_decides_ran_again(swept):
    stages = ran(swept[1])
    assert sorted(stages) == sorted([
        *[f"{name}@{MODEL}-{OTHER}" for name in RERUN] * 2, *["compare", "plan"] * 2,
        # Once: the second level finds them in DVC's run cache.
        f"steer@{MODEL}", f"trajectory@{MODEL}"])


def test_experiments_are_recorded_in_the_store_of_the_main_repository(inside):
    runs = list(connect(inside).find(""))
    parents = {run.name: run for run in runs if "mlflow.parentRunId" not in run.tags}
    names = {row["Experiment"] for row in table()}
    assert set(parents) == names
    for name, parent in parents.items():
        assert parent.status == "FINISHED"
        assert parent.tags["dvc_experiment"] == name
        below = [run for run in runs if run.tags.get("mlflow.parentRunId") == parent.id]
        series, = [run for run in below if run.tags["unseen.kind"] == "series"]
        client = connect(inside).client
        data = client.get_run(parent.id).data.params
        assert data["pipeline.domains"] == json.dumps([OTHER])
        level, = json.loads(data["samplers.geometric.levels"])
        assert f"{series.name}/L{level:04d}/geometric" in {run.name for run in below}


@pytest.mark.parametrize("words", [["show"], ["diff", "HEAD", "EXPERIMENT"]], ids=["show", "diff"])
def test_plots_are_drawn_over_levels_by_sampler(inside, words):
    experiment = table()[0]["Experiment"]
    dvc("plots", *[word.replace("EXPERIMENT", experiment) for word in words], "--out", "drawn")
    page = Path("drawn/index.html").read_text("utf-8")
    assert page.count("vegaEmbed(") >= 3
    specs = [json.loads(line.partition("var spec = ")[2].rstrip(";"))
             for line in page.splitlines() if "var spec = " in line]
    # Without latents to analyse, as here, their plot is empty.
    drawn = {spec["spec"]["encoding"]["y"]["field"]: spec for spec in specs if spec}
    assert {"distance", "novelty", "in_target"} <= set(drawn)
    points = drawn["distance"]["data"]["values"]
    assert {"slerp", "geometric"} <= {point["sampler"] for point in points}
    assert drawn["distance"]["spec"]["encoding"]["color"]["field"] == "line"
    assert drawn["distance"]["facet"]["field"] == "panel"
    assert len({point["rev"] for point in points}) == (1 if words == ["show"] else 2)
    assert "DVC_METRIC" not in page
    pictures = {file.name.partition("_data_")[2] for file in Path("drawn/static").iterdir()}
    assert pictures == {"report_front.png", "report_overview.png"}


def test_priors_are_an_artifact_that_dvc_brings(inside):
    dvc("artifacts", "get", ".", "priors", "--out", "brought")
    brought = {file.relative_to("brought").as_posix() for file in Path("brought").rglob("L*")}
    assert brought == {f"{MODEL}/{domain}/L{level:04d}.{ending}" for domain in (DOMAIN, OTHER)
                       for level in (0, *LEVELS) for ending in ("json", "safetensors")}
