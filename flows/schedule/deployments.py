"""The pipeline and the sweep as Prefect flows, for the deployments of prefect.yaml or served here.

DVC owns what is stale, so a flow has one task for the whole of ``dvc repro``. Overrides never
change the workspace's params.yaml: such a run is a DVC experiment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import EntrypointType

from flows.dvc.experiments import (
    check_sweep,
    export_report,
    name_experiment,
    run_sweep,
    sweep_points,
)
from flows.dvc.overrides import combine, read_parameters
from flows.dvc.process import pull_or_push
from flows.pipeline import Invocation, only_run, run_pipeline
from flows.prefect.record import one_line_mistakes, require_server
from flows.schedule.artifacts import show_run, show_sweep
from unseen_core.errors import UnseenError

__all__ = ["serve", "unseen_pipeline", "unseen_sweep"]

Overrides = dict[str, object]


@task(name="dvc-repro", cache_policy=NO_CACHE, persist_result=False)
def repro(
    params: str | None, overrides: Overrides, domains: list[str], targets: list[str]
) -> Invocation:
    """Run the whole pipeline once."""
    changes = combine(read_parameters(Path(params)) if params else {}, overrides)
    return run_pipeline(overrides=changes, domains=domains, targets=targets,
                        say=get_run_logger().info)


@task(name="dvc-sweep", cache_policy=NO_CACHE, persist_result=False)
def sweep(
    domains: list[str], levels: list[int], samplers: list[str], overrides: Overrides, jobs: int
) -> dict[str, bool]:
    """Queue the experiments and run them."""
    root = Path.cwd()
    points = sweep_points(read_parameters(root / "params.yaml"), domains=domains, levels=levels,
                          samplers=samplers)
    with only_run(root):
        return run_sweep(points, overrides, kind=name_experiment("sweep"), jobs=jobs, root=root,
                         say=get_run_logger().info)


@task(name="dvc-transfer", task_run_name="dvc-{direction}", cache_policy=NO_CACHE,
      persist_result=False)
def move(direction: str) -> None:
    """Pull from or push to the DVC remote."""
    pull_or_push(direction, Path.cwd(), get_run_logger().info)


@flow(name="unseen-pipeline", persist_result=False)
def unseen_pipeline(
    params: str | None = None,
    overrides: Overrides | None = None,
    domains: list[str] | None = None,
    targets: list[str] | None = None,
    pull: bool = False,
    push: bool = False,
) -> None:
    """Bring the pipeline up to date; with overrides, run it as a DVC experiment beside it.

    Args:
        params: A YAML file laid over params.yaml for this run, such as presets/ablation.yaml.
        overrides: Keys laid over both, nested as in params.yaml; a null takes a key away.
        domains: Only these domains of params.yaml; all of pipeline.domains by default.
        targets: Only these stages, such as evaluate@shapes32-digits.
        pull: First fetch from the DVC remote what others have computed.
        push: At the end send there what this run has computed.

    Raises:
        UnseenError: As `flows.pipeline.run_pipeline` and `flows.dvc.process.pull_or_push`.
    """
    root = Path.cwd()
    with one_line_mistakes():
        if pull:
            move("pull")
        done = repro(params, overrides or {}, domains or [], targets or [])
        with _report(root, done) as report:
            show_run(done, report, root)
        if push:
            move("push")


@flow(name="unseen-sweep", persist_result=False)
def unseen_sweep(
    domains: list[str],
    levels: list[int],
    samplers: list[str] | None = None,
    overrides: Overrides | None = None,
    jobs: int = 1,
    push: bool = False,
) -> None:
    """Run one DVC experiment for every domain x mixing level x sampler.

    Args:
        domains: Domains of params.yaml.
        levels: Mixing levels, each the only one of its experiments.
        samplers: Samplers of params.yaml, each in experiments of its own; by default every
            experiment has them all.
        overrides: Keys laid over params.yaml in every experiment.
        jobs: Experiments that run at once.
        push: At the end send to the DVC remote what the sweep has computed.

    Raises:
        UnseenError: If a name is not in params.yaml, or an experiment failed; the others are kept.
    """
    with one_line_mistakes():
        results = sweep(domains, levels, samplers or [], overrides or {}, jobs)
        show_sweep(results)
        if push:
            move("push")
        check_sweep(results)


def serve(*, cron: str, name: str = "nightly") -> None:
    """Serve the deployment ``unseen-pipeline/<name>``, one run at a time, until interrupted.

    A run that comes due while another is under way is cancelled: the one under way does its work.

    Args:
        cron: When to run, such as ``0 3 * * *``.
        name: What the deployment is called.

    Raises:
        UnseenError: If no server answers at ``PREFECT_API_URL``, or ``cron`` is not a cron line.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise UnseenError("set PREFECT_API_URL to the Prefect server's address (`make serve`)")
    require_server()
    try:
        CronSchedule(cron=cron)
    except ValueError:
        raise UnseenError(f"params.yaml: schedule.cron: {cron!r} is not a cron line; write one "
                          "such as 0 3 * * *") from None
    once = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    # Runs are started by module name, so that they find the flow from any working directory.
    unseen_pipeline.serve(name=name, cron=cron, global_limit=once,
                          entrypoint_type=EntrypointType.MODULE_PATH)


@contextmanager
def _report(root: Path, done: Invocation) -> Iterator[Path]:
    """Give the folder with the report of a run, for an experiment a copy."""
    if done.experiment is None:
        yield root / "data/report"
        return
    with TemporaryDirectory() as folder:
        yield export_report(root, done.experiment, Path(folder))
