"""One invocation of the whole pipeline: parent run, ``dvc repro`` or an experiment, mirror."""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from pathlib import Path

from flows.dispatch import prefect_answers
from flows.dvc.experiments import name_experiment, run_experiment
from flows.dvc.overrides import combine, overlay, read_parameters
from flows.dvc.process import Outcome, Say, environment, run_dvc, stopped_by_sigterm
from flows.loading.metrics import invocation_cells
from flows.loading.reports import MODEL_STAGES
from flows.mlflow import tracking
from flows.mlflow.provenance import store_label
from flows.running.warm import warm_stages
from unseen_core.errors import UnseenError

__all__ = ["Invocation", "only_run", "run_pipeline"]

TARGET = re.compile(r"[a-z0-9][a-z0-9_-]*(@[a-z0-9][a-z0-9_-]*)?")
LAST = ("evaluate", "select", "analyze")
"""The stages of a model and domain that no other stage of theirs needs; those of a model alone,
`MODEL_STAGES`, do not belong to a domain's run."""


@dataclass(frozen=True)
class Invocation:
    """What one run of the pipeline did.

    Attributes:
        seconds: By stage that ran; a stage that was up to date is not there.
        parent: The parent run in MLflow, if there is one.
        experiment: The DVC experiment that holds the results; None: the workspace does.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    parent: str | None = None
    experiment: str | None = None


def run_pipeline(
    *,
    root: Path | None = None,
    params: Sequence[Path] = (),
    overrides: Mapping[str, object] | None = None,
    domains: Sequence[str] = (),
    targets: Sequence[str] = (),
    say: Say = print,
) -> Invocation:
    """Bring the pipeline up to date, mirror it to MLflow, and say where to look.

    Args:
        root: The repository's root; the working directory by default.
        params: YAML files laid over ``params.yaml``, which they change, in order; see `overlay`.
        overrides: Laid over the parameters as `overlay` does, but in a copy of the workspace: the
            run becomes a DVC experiment and ``params.yaml`` stays as it is.
        domains: Only these; one that ``pipeline.domains`` does not list makes an experiment.
        targets: Stages to bring up to date, such as ``evaluate@faces``; all by default.
        say: Receives each line of output.

    Returns:
        What ran, and where its results are.

    Raises:
        UnseenError: If a target is not a stage name, a file is unreadable, another run of the
            pipeline or another DVC process keeps the repository, or a stage failed (its own
            message stands above).
    """
    root = (root or Path.cwd()).resolve()
    for target in targets:
        if not TARGET.fullmatch(target):
            raise UnseenError(f"target {target!r} is not a stage; try one such as invert@faces")
    with only_run(root), stopped_by_sigterm(), warm_stages() as warm:
        for extra in params:
            overlay(root / "params.yaml", extra)
        changes, targets = _narrow(root, overrides or {}, domains, targets)
        variables = environment() | warm
        if not prefect_answers():
            variables.pop("PREFECT_API_URL", None)
        if not changes:
            return _in_workspace(root, targets, variables, say)
        name = name_experiment("run")
        outcome = run_experiment(name, changes, targets, root=root, variables=variables, say=say)
        outcome.check()
        say(f"\nexperiment  {name}  (`dvc exp show`; `dvc exp apply {name}` takes it over)")
        return Invocation(outcome.seconds, experiment=name)


@contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Keep other runs of the pipeline out of the repository for the duration.

    Raises:
        UnseenError: If one is under way, in this process or another.
    """
    file = root / ".work/pipeline.lock"
    file.parent.mkdir(exist_ok=True)
    with file.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            who = handle.read().strip()
            raise UnseenError(f"another run of the pipeline, or sync ({who}) works in {root}; wait "
                              "until it has ended, or stop it") from None
        # A lock goes with its process, however that ends, so the file may stay.
        handle.truncate(0)
        handle.write(f"process {os.getpid()}, since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        handle.flush()
        yield


def _narrow(
    root: Path, overrides: Mapping[str, object], domains: Sequence[str], targets: Sequence[str]
) -> tuple[Mapping[str, object], Sequence[str]]:
    """Return what the choice of domains makes of overrides and targets."""
    if not domains:
        return overrides, targets
    if targets:
        raise UnseenError("domains and targets were both given; name the stages of the domains")
    parameters = read_parameters(root / "params.yaml")
    known, pipeline = parameters.get("domains"), parameters.get("pipeline")
    for domain in domains:
        if not isinstance(known, Mapping) or domain not in known:
            raise UnseenError(f"params.yaml: domains.{domain} is not defined")
    chosen = dict(pipeline) if isinstance(pipeline, Mapping) else {}
    if overrides or not set(domains) <= set(chosen["domains"]):
        return combine(overrides, {"pipeline": {"domains": list(domains)}}), ()
    return {}, [f"{stage}@{model}-{domain}" for domain in domains for model in chosen["models"]
                for stage in LAST]


def _in_workspace(
    root: Path, targets: Sequence[str], variables: Mapping[str, str], say: Say
) -> Invocation:
    """Run ``dvc repro`` and mirror what it leaves."""
    parent = tracking.open_parent(read_parameters(root / "params.yaml"), root=root)
    before, start = _stamps(root), time.monotonic()
    status = "KILLED"
    outcome = Outcome()
    try:
        # Set, even empty, it tells stages that this process handles tracking.
        known = {**variables, "UNSEEN_PARENT_RUN": parent or ""}
        outcome = run_dvc(["repro", *targets], root, known, say)
        status = "FAILED" if outcome.code else "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        _record(root, parent, before, status, outcome, time.monotonic() - start)
    outcome.check()
    for line in _places(root):
        say(line)
    return Invocation(outcome.seconds, parent)


def _record(
    root: Path,
    parent: str | None,
    before: Mapping[tuple[str, str, str], int],
    status: str,
    outcome: Outcome,
    seconds: float,
) -> None:
    """Mirror the metrics files to MLflow, those left alone by this invocation as cached."""
    if parent is None:
        return
    fresh = {key[:2] for key, stamp in _stamps(root).items() if before.get(key) != stamp}
    found = read_parameters(root / "params.yaml").get("pipeline")
    pipeline = found if isinstance(found, Mapping) else {}  # DVC has reported a misspelt one
    cells = invocation_cells(root, [*product(pipeline.get("models") or (),
                                             pipeline.get("domains") or ())])
    tracking.mirror(parent, cells, root=root, fresh=fresh)
    timings = {f"seconds/{name.replace('@', '/')}": took for name, took in outcome.seconds.items()}
    report = root / "data/report"
    tracking.close_parent(
        parent,
        root=root,
        status=status,
        metrics=timings | {"seconds": seconds},
        artifacts=sorted(report.glob("*.csv")) + sorted(report.glob("*.png")),
    )


def _stamps(root: Path) -> dict[tuple[str, str, str], int]:
    """Return when metrics, analyses and the reports of stages per model were written, in ns."""
    data = root / "data"
    patterns = ("metrics/*/*.json", "analysis/*/*/analysis.json",
                *(f"{stage}/*/{stage}.json" for stage in MODEL_STAGES))
    return {(path.relative_to(data).parts[1], path.relative_to(data).parts[2].removesuffix(".json"),
             path.relative_to(data).parts[0]): path.stat().st_mtime_ns
            for pattern in patterns for path in data.glob(pattern)}


def _places(root: Path) -> Iterator[str]:
    """Yield the lines that say where the results are, as far as there are any."""
    yield ""
    if (pictures := root / "data/generated").is_dir():
        yield f"pictures  {pictures}  (contact sheets, *.png)"
    if (table := root / "data/report/compare.csv").is_file():
        yield f"table     {table}"
    yield f"MLflow    {store_label(root)}  (open it with `make serve`)"
