"""The import rules of pyproject.toml: they hold, and each of them fails when it is broken."""

import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter

import grimp
import pytest
from workspace import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))[
    "tool"]["importlinter"]["contracts"]
NAMES = {contract["id"]: contract["name"] for contract in CONTRACTS}
NUMERICS = {"PIL", "astropy", "cleanfid", "datasets", "diffusers", "lmdb", "nibabel", "numpy",
            "pandas", "pyarrow", "pydicom", "safetensors", "scipy", "skimage", "sklearn", "torch",
            "torchvision", "transformers"}
BROKEN = [  # rule, file, a line that breaks it
    ("layers", "unseen_core/laws/gaussian.py", "import unseen_core.judging.metrics"),
    ("layers", "unseen_core/basics/rng.py", "def late():\n    from flows.settings import params"),
    ("layers", "flows/running/run.py", "from flows.stages.fit import fit"),
    ("layers", "flows/pipeline.py", "import flows.schedule.deployments"),
    ("circles", "flows/downloads/retries.py", "import flows.downloads.transfer"),
    ("circles", "unseen_core/laws/fitting.py", "def late():\n    import unseen_core.laws.gaussian"),
    ("stages", "flows/stages/fit.py", "from flows.stages.invert import invert"),
    ("stages", "flows/folders/enhance.py", "import flows.folders.generate"),
    ("stages", "flows/folders/augment.py", "from flows.stages.fit import fit"),
    ("core", "unseen_core/basics/rng.py", "def late():\n    import mlflow"),
]


def broken(folder):
    """Return the import rules that the code in a folder breaks, and what import-linter says."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()",
         "--no-cache", "--no-logo"], cwd=folder, env={"PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True, text=True, check=False)
    found = [rule for rule, name in NAMES.items() if f"{name} BROKEN" in done.stdout]
    assert sum(f"{name} KEPT" in done.stdout for name in NAMES.values()) == len(NAMES) - len(found)
    assert done.returncode == bool(found)
    return found, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the code."""
    folder = tmp_path_factory.mktemp("code")
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    for package in ("flows", "unseen_core"):
        shutil.copytree(ROOT / package, folder / package,
                        ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def graph(copy):
    """Who imports whom, outside packages included."""
    return grimp.build_graph("flows", "unseen_core", include_external_packages=True,
                             cache_dir=None)


def test_the_rules_hold(copy):
    found, said = broken(copy)
    assert found == [], said


@pytest.mark.parametrize(("rule", "file", "line"), BROKEN)
def test_a_rule_fails_where_it_is_broken(copy, rule, file, line):
    path = copy / file
    before = path.read_text("utf-8")
    path.write_text(f"{before}\n{line}\n", "utf-8")
    try:
        found, said = broken(copy)
    finally:
        path.write_text(before, "utf-8")
    assert rule in found, said


def test_every_rule_is_broken_once():
    assert {rule for rule, *_ in BROKEN} == set(NAMES)


def test_every_folder_has_a_layer(graph):
    layers = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    named = [name.strip() for layer in layers for name in layer.split("|")]
    folders = graph.find_children("flows") | graph.find_children("unseen_core")
    assert sorted(named) == sorted(folders)


def test_no_module_is_in_a_circle(graph):
    # The rule of import-linter looks at siblings; this also sees a module and its own package.
    TopologicalSorter({module: graph.find_modules_directly_imported_by(module)
                       for module in graph.modules}).prepare()


def test_the_core_imports_only_numerics(graph):
    outside = {imported.partition(".")[0]
               for module in graph.find_descendants("unseen_core")
               for imported in graph.find_modules_directly_imported_by(module)}
    assert outside - set(sys.stdlib_module_names) - {"unseen_core"} <= NUMERICS


def draw(file, folder=ROOT):
    """Draw the imports of the code in a folder."""
    return subprocess.run([sys.executable, str(folder / "docs/imports.py"), str(file)],
                          env={"PYTHONPATH": str(folder)}, capture_output=True, text=True,
                          check=False)


def test_the_drawing_shows_the_imports_of_today(tmp_path):
    assert draw(tmp_path / "imports.svg").returncode == 0
    new, committed = ({*re.findall(r'id="((?:flows|unseen_core)\.[^"]+)"', file.read_text("utf-8"))}
                      for file in (tmp_path / "imports.svg", ROOT / "docs/imports.svg"))
    assert "flows.stages-5-flows.report" in new
    assert new == committed, "run `python docs/imports.py`"


def test_an_import_that_leads_up_is_not_drawn(copy, tmp_path):
    (copy / "docs").mkdir()
    shutil.copyfile(ROOT / "docs/imports.py", copy / "docs/imports.py")
    (copy / "unseen_core/laws/late.py").write_text("import unseen_core.judging.metrics\n")
    done = draw(tmp_path / "imports.svg", copy)
    (copy / "unseen_core/laws/late.py").unlink()
    assert done.returncode == 1 and "unseen_core.laws -> unseen_core.judging" in done.stderr
    assert not (tmp_path / "imports.svg").exists()
