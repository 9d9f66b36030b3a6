"""Runs with other parameters as DVC experiments: the workspace and params.yaml stay as they are."""

import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from flows.dvc.overrides import as_words, combine, read_parameters
from flows.dvc.process import Outcome, Say, environment, run_dvc
from flows.running.git import ask_git
from unseen_core.errors import UnseenError

__all__ = ["check_sweep", "export_report", "finished", "name_experiment", "run_experiment",
           "run_sweep", "sweep_points"]

REPORT = ("summary.md", "best.json", "compare.csv")
PICTURES = ("overview.png", "front.png")

Point = Mapping[str, object]


def name_experiment(kind: str) -> str:
    """Return a name that says when the experiment began: ``run-20250131-030000``."""
    return f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"


def run_experiment(
    name: str, overrides: Mapping[str, object], targets: Sequence[str], *, root: Path,
    variables: Mapping[str, str], say: Say,
) -> Outcome:
    """Run the pipeline once in a copy of the workspace, and keep the result as an experiment.

    Args:
        name: What `dvc exp show` and `dvc exp apply` call it.
        overrides: Laid over params.yaml in the copy.
        targets: Stages; all when empty.
        root: The repository's root.
        variables: The environment.
        say: Receives each line of output.

    Raises:
        UnseenError: If the repository has no commit or lacks a path of the parameters, or an
            override cannot be given to DVC.
    """
    _need_commit(root)
    base = read_parameters(root / "params.yaml")
    _need_paths(root, combine(base, overrides))
    words = as_words(base, overrides)
    # Nobody names a parent run, so the experiment's last stage records it in MLflow by itself.
    command = ["exp", "run", "--temp", "--name", name, *words, *targets]
    return run_dvc(command, root, variables, say)


def export_report(root: Path, name: str, folder: Path) -> Path:
    """Write what an experiment reports into ``folder`` and return the folder.

    What the experiment does not have is left out.
    """
    commit = finished(root).get(name)
    for file in REPORT if commit else ():
        if text := ask_git(root, "show", f"{commit}:data/report/{file}"):
            (folder / file).write_text(text, "utf-8")
    for file in PICTURES if commit else ():
        run_dvc(["get", ".", f"data/report/{file}", "--rev", str(commit), "-o",
                 str(folder / file)], root, environment(), lambda _line: None)
    return folder


def finished(root: Path) -> dict[str, str]:
    """Return every experiment that has a result, by name, and its commit."""
    lines = ask_git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    found = (re.fullmatch(r"(\w+) refs/exps/\w\w/\w{38}/(.+)", line) for line in lines.splitlines())
    return {match[2]: match[1] for match in found if match}


def sweep_points(
    parameters: Mapping[str, object], *, domains: Sequence[str], levels: Sequence[int],
    samplers: Sequence[str] = (),
) -> dict[str, Point]:
    """Return overrides for every domain x level x sampler, by the name of the point.

    A point runs its one domain at its one level, with every sampler of params.yaml or with the
    one named, which then works at that level.

    Args:
        parameters: The content of params.yaml.
        domains: Domains of params.yaml.
        levels: Mixing levels.
        samplers: Samplers of params.yaml; none: all of them in every point.

    Raises:
        UnseenError: If a domain or sampler is not in params.yaml, or a list is empty.
    """
    known = {key: _section(parameters, key) for key in ("domains", "samplers")}
    for key, names in (("domains", domains), ("samplers", samplers)):
        if wrong := [name for name in names if name not in known[key]]:
            raise UnseenError(f"sweep: {key}: {', '.join(wrong)} is not in params.yaml, which has "
                              f"{', '.join(known[key])}")
    if not domains or not levels:
        raise UnseenError("sweep: give at least one domain and one level")
    points: dict[str, Point] = {}
    for domain, level, sampler in itertools.product(domains, levels, samplers or [""]):
        kept = [sampler] if sampler else list(known["samplers"])
        settings: dict[str, object] = {other: None for other in known["samplers"]}
        for one in kept:
            limited = "levels" in _section(known["samplers"], one)
            settings[one] = {"levels": [level]} if limited else {}
        name = "-".join(filter(None, [domain, f"L{level:04d}", sampler]))
        points[name] = {"pipeline": {"domains": [domain]}, "levels": [level],
                        "samplers": settings}
    return points


def run_sweep(
    points: Mapping[str, Point], overrides: Mapping[str, object], *, kind: str, jobs: int,
    root: Path, say: Say,
) -> dict[str, bool]:
    """Queue an experiment for every point and run the whole queue.

    Args:
        points: As `sweep_points` returns them.
        overrides: Laid over params.yaml in every point, below the point's own.
        kind: Begins every experiment's name.
        jobs: Experiments that run at once.
        root: The repository's root.
        say: Receives each line of output.

    Returns:
        The experiments' names, and whether each has a result.

    Raises:
        UnseenError: If an experiment cannot be queued, or git lacks a path of the parameters.
    """
    _need_commit(root)
    variables = environment()
    base = read_parameters(root / "params.yaml")
    _need_paths(root, combine(base, overrides))
    names, queued = [f"{kind}-{point}" for point in points], list[str]()
    try:
        for name, point in zip(names, points.values(), strict=True):
            words = as_words(base, combine(overrides, point))
            command = ["exp", "run", "--queue", "--name", name, *words]
            run_dvc(command, root, variables, say).check()
            queued.append(name)
        run_dvc(["exp", "run", "--run-all", "--jobs", str(jobs)], root, variables, say).check()
    except BaseException:
        with suppress(UnseenError):  # the queue's workers are not our children
            run_dvc(["queue", "stop", "--kill"], root, variables, say)
            if left := [name for name in queued if name not in finished(root)]:
                run_dvc(["queue", "remove", *left], root, variables, say)
        raise
    done = finished(root)
    return {name: name in done for name in names}


def check_sweep(results: Mapping[str, bool]) -> None:
    """Raise unless every experiment of a sweep has a result.

    Raises:
        UnseenError: Naming those that have none.
    """
    if lost := [name for name, done in results.items() if not done]:
        raise UnseenError(f"{len(lost)} of {len(results)} experiments failed: {', '.join(lost)}; "
                          f"`dvc queue logs {lost[0]}` says why")


def _section(parameters: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return a mapping inside the parameters, empty where it is none."""
    section = parameters.get(key)
    return section if isinstance(section, Mapping) else {}


def _need_commit(root: Path) -> None:
    """Raise unless the repository has a commit, which an experiment starts from."""
    if not ask_git(root, "rev-parse", "--verify", "HEAD"):
        raise UnseenError("overrides run as a DVC experiment, which starts from a git commit; "
                          "make one with `git commit`")


def _need_paths(root: Path, parameters: Mapping[str, object]) -> None:
    """Raise where a path is in the workspace alone: an experiment runs in a copy of git's files."""
    for section in ("models", "domains"):
        for name, entry in _section(parameters, section).items():
            place = str(entry.get("path") or "") if isinstance(entry, Mapping) else ""
            brought = not place or Path(place).is_absolute() or place.startswith("data/downloads/")
            if not brought and not ask_git(root, "ls-files", "--", place):
                raise UnseenError(f"params.yaml: {section}.{name}.path: {place} is not in git, and "
                                  "an experiment runs in a copy of what is; give an absolute path")
