"""The code that each stage of dvc.yaml depends on, so that DVC reruns what a change touches."""

from collections.abc import Collection, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from unseen_core.store import import_closure

__all__ = ["ROOT", "code_of", "is_code", "modules_of", "stage_of", "write_code_deps"]

ROOT = Path(__file__).resolve().parent.parent
# They decide where and how a stage runs and is recorded, never a byte of what it writes.
_ORCHESTRATION = {f"flows/{name}.py" for name in (
    "__init__", "cell_runs", "graph", "mlflow_store", "recorded", "resume", "run", "spread",
    "stage", "tracking")}
# What it writes is fixed by a hash or a commit in params.yaml: no change of code fetches it again.
_FIXED = "download"


def modules_of(stage: str) -> list[str]:
    """Return the project files that decide a stage's output, relative to the root, sorted."""
    if stage == _FIXED:
        return []
    closure = import_closure(ROOT / "flows" / f"{stage}.py", ROOT)
    return sorted({path.relative_to(ROOT).as_posix() for path in closure} - _ORCHESTRATION)


def code_of(stage: str) -> list[str]:
    """Return `modules_of` a stage as its dependencies in dvc.yaml, sorted.

    A folder stands for its files where all of them do: DVC rewrites its lock file after every
    stage, in a time that grows with the lines in it.
    """
    names = set(modules_of(stage))
    return sorted({_whole_folder(name, names) for name in names})


def is_code(dep: str) -> bool:
    """Tell whether a dependency is code: a file or a folder of the two packages."""
    return dep.startswith(("flows/", "unseen_core/"))


def stage_of(entry: Mapping[str, object]) -> str:
    """Return the stage that an entry of dvc.yaml runs, from ``python -m flows <stage> ...``."""
    body = entry.get("do", entry)
    return str(body["cmd"]).split()[3]


def write_code_deps(file: Path) -> None:
    """Rewrite the code among the ``deps`` of every stage in dvc.yaml."""
    parser = YAML()
    parser.width = 120
    content = parser.load(file.read_text("utf-8"))
    for entry in content["stages"].values():
        body = entry.get("do", entry)
        data = [dep for dep in body.get("deps", []) if not is_code(str(dep))]
        body["deps"] = [*code_of(stage_of(entry)), *data]
    with file.open("w", encoding="utf-8") as stream:
        parser.dump(content, stream)


def _whole_folder(name: str, names: Collection[str]) -> str:
    """Return the folder of a file if all code in it is among ``names``, else the file."""
    folder = (ROOT / name).parent
    if folder.parent == ROOT:  # a package of many stages
        return name
    inside = {path.relative_to(ROOT).as_posix() for path in folder.rglob("*.py")}
    return folder.relative_to(ROOT).as_posix() if inside <= {*names} else name
