"""The code that each stage of dvc.yaml depends on, so that DVC reruns what a change touches."""

import textwrap
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ruamel.yaml import YAML

from flows.running.registry import MODULES
from unseen_core.store import import_closure, syntax_tree

__all__ = ["ROOT", "code_of", "is_code", "modules_of", "stage_of", "write_code_deps"]

ROOT = Path(__file__).resolve().parent.parent.parent
# They decide how a stage is configured, run and recorded, never a byte of what it writes:
# parameters, names of extractors among them, have their own place in dvc.yaml.
_ORCHESTRATION = ("flows/__init__.py", "flows/mlflow/", "flows/prefect/", "flows/running/",
                  "flows/settings/", "unseen_core/__init__.py", "unseen_core/errors.py",
                  "unseen_core/judging/__init__.py", "unseen_core/types.py")
# What it writes is fixed by a hash or a commit in params.yaml: no change of code fetches it again.
_FIXED = "download"
_WIDTH = 120  # columns of dvc.yaml


def modules_of(stage: str) -> list[str]:
    """Return the project files that decide a stage's output, relative to the root, sorted."""
    if stage == _FIXED:
        return []
    closure = import_closure(ROOT / f"{MODULES[stage].replace('.', '/')}.py", ROOT)
    names = sorted(path.relative_to(ROOT).as_posix() for path in closure if not _is_bare(path))
    return [name for name in names if not name.startswith(_ORCHESTRATION)]


def code_of(stage: str) -> list[str]:
    """Return what a stage depends on in dvc.yaml, sorted: its own file, and folders of code.

    A folder stands for its files, which keeps dvc.yaml and dvc.lock short: DVC rewrites the lock
    after every stage, in a time that grows with its lines.
    """
    deps = {_dependency(PurePosixPath(name)) for name in modules_of(stage)}
    return sorted(str(dep) for dep in deps if not deps & {*dep.parents})


def _is_bare(file: Path) -> bool:
    """Return whether a file is a package's ``__init__`` that holds nothing but its docstring."""
    return file.name == "__init__.py" and len(syntax_tree(file).body) == 1


def _dependency(file: PurePosixPath) -> PurePosixPath:
    """Return the folder that stands for a file, or the file where a folder says too much."""
    alone = len(file.parts) == 2 or file.parts[:2] == ("flows", "stages")
    return file if alone else file.parent


def is_code(dep: str) -> bool:
    """Return whether a dependency is code: a file or a folder of the two packages."""
    return dep.startswith(("flows/", "unseen_core/"))


def stage_of(entry: Mapping[str, object]) -> str:
    """Return the stage that an entry of dvc.yaml runs, from ``python -m flows <stage> ...``."""
    body = entry.get("do", entry)
    return str(body["cmd"]).split()[3].replace("-", "_")


def write_code_deps(file: Path) -> None:
    """Rewrite the code among the ``deps`` of every stage in dvc.yaml; other lines stay as they are.

    Args:
        file: A dvc.yaml in which every stage has ``deps``, be it an empty list.
    """
    lines = file.read_text("utf-8").splitlines()
    content = YAML().load("\n".join(lines))
    for entry in reversed([*content["stages"].values()]):  # line numbers further up stay true
        body = entry.get("do", entry)
        data = [f'"{dep}"' for dep in body["deps"] if not is_code(dep)]
        start, indent = body.lc.key("deps")
        end = start + 1
        while end < len(lines) and lines[end].startswith(
                (" " * (indent + 1), " " * indent + "- ")):
            end += 1
        lines[start:end] = textwrap.wrap(
            f"deps: [{', '.join([*code_of(stage_of(entry)), *data])}]", _WIDTH,
            initial_indent=" " * indent, subsequent_indent=" " * (indent + 2),
            break_long_words=False, break_on_hyphens=False)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
