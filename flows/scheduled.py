"""The scheduled pipeline as a Prefect deployment, served from this process."""

from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.flows import EntrypointType

from flows.pipeline import run_pipeline
from flows.recorded import one_line_mistakes, require_server

__all__ = ["serve", "unseen_pipeline"]


@task(name="dvc-repro", cache_policy=NO_CACHE, persist_result=False)
def repro(params: str | None, targets: list[str]) -> None:
    """Run the whole pipeline once; DVC owns what is stale, so this is one task."""
    overrides = Path(params) if params else None
    run_pipeline(params=overrides, targets=targets, say=get_run_logger().info)


@flow(name="unseen-pipeline", persist_result=False)
def unseen_pipeline(params: str | None = None, targets: list[str] | None = None) -> None:
    """Bring the pipeline up to date.

    Args:
        params: A YAML file laid over ``params.yaml``.
        targets: Stages to bring up to date; all by default.

    Raises:
        UnseenError: As `flows.pipeline.run_pipeline`.
    """
    with one_line_mistakes():
        repro(params, targets or [])


def serve(*, cron: str, name: str) -> None:
    """Serve the deployment ``unseen-pipeline/<name>``, one run at a time, until interrupted."""
    require_server()
    # Runs are started by module name, so that they find the flow from any working directory.
    unseen_pipeline.serve(name=name, cron=cron, limit=1, entrypoint_type=EntrypointType.MODULE_PATH)
