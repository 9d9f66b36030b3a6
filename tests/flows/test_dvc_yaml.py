"""dvc.yaml against the code: what its stages depend on, run and write."""

import shutil

import pytest
import typer
from ruamel.yaml import YAML
from workspace import ROOT

from flows.__main__ import app
from flows.running.code import code_of, is_code, stage_of, write_code_deps
from flows.running.registry import MODULES, find_stage
from unseen_core.store import import_closure

STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
BODIES = {name: entry.get("do", entry) for name, entry in STAGES.items()}
ORDER = ["download", "pretrain", "fetch_model", "fetch", "plan", "invert", "fit",
         "finetune", "sample", "denoise", "evaluate", "select", "analyze", "trajectory",
         "applications", "steer", "compare"]
JUDGES = ["applications", "trajectory", "steer"]  # of a whole model, on the images of many domains


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports(name):
    deps = [dep for dep in BODIES[name]["deps"] if is_code(dep)]
    assert deps == code_of(stage_of(STAGES[name])), "run `python -m flows deps`"
    assert len(set(BODIES[name]["deps"])) == len(BODIES[name]["deps"])


@pytest.mark.parametrize("stage", [name for name in ORDER if name != "download"])
def test_a_stage_depends_on_its_own_file_and_on_the_folders_that_it_imports(stage):
    own = MODULES[stage].replace(".", "/") + ".py"
    files = {path.relative_to(ROOT).as_posix() for path in import_closure(ROOT / own, ROOT)}
    deps = code_of(stage)
    assert [dep for dep in deps if dep.startswith("flows/stages")] == [own]
    folders = [dep for dep in deps if (ROOT / dep).is_dir()]
    assert all((ROOT / dep).is_file() for dep in set(deps) - set(folders))
    for folder in folders:
        assert [file for file in files if file.startswith(f"{folder}/")]
        assert not [dep for dep in deps if dep.startswith(f"{folder}/")]
    covered = {file for file in files if file in deps or file.startswith(
        tuple(f"{folder}/" for folder in folders))}
    # Neither the way of running a stage, nor names that params.yaml may hold, nor a package that
    # holds a docstring decides its output.
    names = "unseen_core/judging/__init__.py"
    assert {file.rpartition("/")[0] for file in files - covered - {names}} <= {
        "flows", "flows/mlflow", "flows/report", "flows/running", "flows/settings", "flows/stages",
        "unseen_core", "unseen_core/analysis"}


def test_what_the_command_writes_is_what_is_there(tmp_path):
    copy = tmp_path / "dvc.yaml"
    shutil.copyfile(ROOT / "dvc.yaml", copy)
    write_code_deps(copy)
    text = copy.read_text("utf-8")
    assert text == (ROOT / "dvc.yaml").read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) < 350
    assert not [line for line in lines if len(line) > 120 or line != line.rstrip()]


@pytest.mark.parametrize("deps", ["[flows/old.py, \"${item.path}\"]", "[flows/old.py,\n        "
                                  "'${item.path}']", "\n    - flows/old.py\n    - ${item.path}"])
def test_the_command_leaves_everything_but_deps_as_it_was(tmp_path, deps):
    file = tmp_path / "dvc.yaml"
    before, after = "# First.\nstages:\n  fit:  # odd   spaces\n    cmd: python -m flows fit\n", (
        "    params: [ fit,seed ]  # kept\n    # Second.\n    outs:\n      - data/priors\n")
    file.write_text(f"{before}    deps: {deps}\n{after}")
    write_code_deps(file)
    text = file.read_text()
    assert text.startswith(before) and text.endswith(after)
    assert YAML(typ="safe").load(text)["stages"]["fit"]["deps"] == [
        *code_of("fit"), "${item.path}"]


@pytest.mark.parametrize("name", STAGES)
def test_a_command_names_a_stage_and_its_options(name):
    words = BODIES[name]["cmd"].split()
    assert words[:3] == ["python", "-m", "flows"]
    command = typer.main.get_command(app).commands[words[3]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[4:] if word.startswith("--")} <= known
    assert callable(find_stage(stage_of(STAGES[name])))
    values = [word for word in words[4:] if not word.startswith("--")]
    assert all(value in ("${key}", "${item.model}", "${item.domain}") for value in values)


def test_the_stages_are_the_pipeline_and_every_stage_is_reachable():
    assert list(dict.fromkeys(stage_of(entry) for entry in STAGES.values())) == ORDER
    assert {name.replace("_", "-") for name in ORDER} <= set(typer.main.get_command(app).commands)
    assert STAGES["pretrain"]["frozen"] is True


@pytest.mark.parametrize("name", STAGES)
def test_no_output_persists_and_no_two_overlap(name):
    outs = [out for kind in ("outs", "metrics", "plots") for out in BODIES[name].get(kind, [])]
    assert outs
    for out in outs:
        settings = next(iter(out.values())) if isinstance(out, dict) else {}
        assert "persist" not in settings
    mine = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
    others = [next(iter(out)) if isinstance(out, dict) else out for other in STAGES
              for kind in ("outs", "metrics", "plots") for out in BODIES[other].get(kind, [])]
    for path in mine:
        inside = [other for other in others if other != path and other.startswith(f"{path}/")]
        assert not inside


def test_nothing_that_makes_images_of_a_domain_depends_on_held_out_ones():
    for name, body in BODIES.items():
        read = [dep for dep in body["deps"] if dep.startswith("data/source/domains")]
        if name == "evaluate":
            assert read == ["data/source/domains/${item.domain}"]
        elif name in (*JUDGES, "compare"):
            assert read == ["data/source/domains"]
        elif name == "fetch-model":  # the seen domain; its law is of the other sides, see its test
            assert read == ["data/source/domains/${item.seen}"]
        else:
            assert all(dep.endswith("/fit.parquet") for dep in read)


@pytest.mark.parametrize("name", JUDGES)
def test_what_judges_a_model_is_recorded_and_feeds_no_other_stage(name):
    out = BODIES[name]["outs"][0].partition("$")[0].rstrip("/")
    assert [stage for stage, body in BODIES.items() if stage != name
            for dep in body["deps"] if dep.startswith(out)] == ["compare"]
