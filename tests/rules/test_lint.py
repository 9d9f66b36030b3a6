"""Ruff's rules of pyproject.toml over the whole tree, and the few that ruff does not have."""

import ast
import shutil
import subprocess
import sys

import pytest
from workspace import ROOT

FILES = sorted([*(ROOT / "flows").rglob("*.py"), *(ROOT / "unseen_core").rglob("*.py")])
# Ruff's TID251 is lifted as a whole in the files that own an outside package.
RUN_WHAT_THEY_READ = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "yaml"}


def ruff(folder):
    """Return ruff's exit status and a line for everything it finds: ``x.py:3:1: T201 ...``."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--quiet", "--output-format=concise",
         "."], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def dotted(node):
    """Return ``a.b.c`` for an attribute of a name, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (above := dotted(node.value)):
        return f"{above}.{node.attr}"
    return ""


def unsafe(tree):
    """Return the ways a module has of running what it reads that no rule of ruff covers."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [
                str(node.module)]
            found += [name for name in names if name.partition(".")[0] in RUN_WHAT_THEY_READ]
        name = dotted(node)
        if name in ("compile", "__import__") or name.endswith(
                (".to_pickle", "yaml.load", "yaml.unsafe_load")):
            found.append(name)
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if called == "torch.load" and given.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            found.append("np.load without allow_pickle=False")
        if given.get("allow_pickle") == "True" or given.get("trust_remote_code") == "True":
            found.append(called)
        if called.endswith("YAML") and given.get("typ") == "'unsafe'":
            found.append("YAML unsafe")
    return found


def test_ruff_finds_nothing():
    assert ruff(ROOT) == (0, "")


@pytest.mark.parametrize(("file", "line", "code"), [
    ("unseen_core/laws/x.py", "import pickle", "TID251"),
    ("flows/loading/x.py", "from joblib import load", "TID251"),
    ("flows/loading/x.py", "import yaml", "TID251"),
    ("flows/stages/x.py", "from prefect import flow", "TID251"),
    ("flows/mlflow/runs.py", "import mlflow", "TID251"),
    ("unseen_core/judging/x.py", "import torchvision", "TID251"),
    ("flows/stages/x.py", "from huggingface_hub import hf_hub_download", "TID251"),
    ("flows/stages/x.py", "from . import fit", "TID252"),
    ("unseen_core/laws/x.py", "print(1)", "T201"),
    ("flows/x.py", "eval('1')", "S307"),
    ("flows/x.py", "exec('1')", "S102"),
    ("flows/x.py", "import pandas\npandas.read_pickle('x')", "S301"),
    ("flows/x.py", "import subprocess\nsubprocess.run('x', shell=True)", "S602"),
    ("flows/x.py", "import os\nos.system('x')", "S605"),
    ("unseen_core/laws/x.py", "def f() -> int:\n    return 1", "D103"),
    ("unseen_core/laws/x.py", "__all__ = ['f']", "F822"),
])
def test_ruff_finds_what_it_is_there_for(tmp_path, file, line, code):
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f'"""Test."""\n\n{line}\n')
    status, found = ruff(tmp_path)
    assert status == 1 and f" {code} " in found


def test_nothing_runs_what_it_reads():
    found = {str(file): unsafe(ast.parse(file.read_text("utf-8"))) for file in FILES}
    assert len(found) > 200
    assert {file: ways for file, ways in found.items() if ways} == {}


@pytest.mark.parametrize("text", [
    "import pickle", "from joblib import load", "import yaml", "compile(text)", "torch.load(path)",
    "torch.load(path, weights_only=False)", "np.load(path)", "np.load(path, allow_pickle=True)",
    "load_dataset(name, trust_remote_code=True)", "frame.to_pickle(path)", "ruamel.yaml.load(text)",
    "YAML(typ='unsafe')",
])
def test_the_search_finds_what_it_looks_for(text):
    assert unsafe(ast.parse(text))
    assert not unsafe(ast.parse("model.eval()\nre.compile(text)\nYAML(typ='safe').load(text)\n"
                                "torch.load(path, weights_only=True)"))


def unlisted(tree):
    """Return the public functions and classes of a module that its ``__all__`` does not name."""
    names = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
             and dotted(node.targets[0]) == "__all__"]
    defined = [node.name for node in tree.body
               if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    return sorted(set(defined) - set(*names)) if names else ["__all__"]


def test_every_module_of_the_core_lists_its_names():
    found = {}
    for file in (file for file in FILES if file.is_relative_to(ROOT / "unseen_core")):
        tree = ast.parse(file.read_text("utf-8"))
        if len(tree.body) > 1:  # a package may hold nothing but its docstring
            found[str(file)] = unlisted(tree)
    assert len(found) > 100
    assert {file: names for file, names in found.items() if names} == {}
    assert unlisted(ast.parse("__all__ = ['f']\ndef f(): ...\nclass G: ...")) == ["G"]
    assert unlisted(ast.parse("def f(): ...")) == ["__all__"]
