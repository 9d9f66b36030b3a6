"""The MLflow mirror of the metrics files: the only module that imports mlflow.

Metrics files are the truth; MLflow shows them. Nothing here fails a stage: whatever goes wrong
becomes one warning that names the store.
"""

import logging
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from flows.provenance import Cell, digest, flatten, provenance, store_label, store_uri
from flows.run import LOG

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["close_parent", "mirror", "open_parent", "record_invocation"]

EXPERIMENT = "unseen"
BATCH = 100  # MLflow's limit on params and tags in one call


def open_parent(parameters: Mapping[str, object], *, root: Path) -> str | None:
    """Start the parent run of one invocation.

    Args:
        parameters: The content of ``params.yaml``, nested.
        root: The workspace.

    Returns:
        The run's id, or None when the store cannot be reached.
    """
    with _only_warn(root):
        client, experiment = _connect(root)
        tags = provenance(root) | {"unseen.kind": "invocation"}
        name = os.environ.get("DVC_EXP_NAME") or f"run {tags.get('git_commit', 'unknown')[:8]}"
        parent = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        _log(client, parent, parameters=flatten(parameters))
        return parent
    return None


def close_parent(
    parent: str | None,
    *,
    root: Path,
    status: str = "FINISHED",
    metrics: Mapping[str, float] | None = None,
    artifacts: Sequence[Path] = (),
) -> None:
    """End the parent run with its timings, its report files and the final ``dvc.lock`` hash."""
    if parent is None:
        return
    with _only_warn(root):
        client, _ = _connect(root)
        _log(client, parent, metrics=metrics, tags=provenance(root))
        for path in artifacts:
            if path.is_file():
                client.log_artifact(parent, str(path), "report")
        client.set_terminated(parent, status)


def mirror(
    parent: str | None,
    cells: Sequence[Cell],
    *,
    root: Path,
    fresh: Collection[tuple[str, str]] | None = None,
) -> None:
    """Write one child run per cell and one per model x domain with metrics over level.

    Writing the same cells twice under one parent adds nothing, so an interrupted mirror can be
    repeated and an empty database be filled again from the metrics files.

    Args:
        parent: The parent run, or None to open and close one for this call.
        cells: Cells as in the metrics files; a null or non-finite metric is left out.
        root: The workspace; ``sheet`` paths are relative to it.
        fresh: The (model, domain) pairs that were computed in this invocation; the others are
            tagged ``cached=true``. None means all.
    """
    if parent is None:
        parent = open_parent({}, root=root)
        if parent is not None:
            mirror(parent, cells, root=root, fresh=fresh)
            close_parent(parent, root=root)
        return
    with _only_warn(root):
        client, experiment = _connect(root)
        known = _children(client, experiment, parent)
        groups: dict[tuple[str, str], list[Cell]] = {}
        for cell in cells:
            groups.setdefault((str(cell["model"]), str(cell["domain"])), []).append(cell)
        for pair, members in groups.items():
            cached = str(fresh is not None and pair not in fresh).lower()
            marks = {"mlflow.parentRunId": parent, "cached": cached}
            for cell in members:
                if (mark := digest(cell)) not in known:
                    tags = marks | {"unseen.cell": mark, "unseen.kind": "cell"}
                    _write_cell(client, experiment, cell, tags, root)
            if (mark := digest(members)) not in known:
                tags = marks | {"unseen.cell": mark, "unseen.kind": "series"}
                _write_series(client, experiment, members, tags)


def record_invocation(
    parameters: Mapping[str, object], cells: Sequence[Cell], *, root: Path
) -> None:
    """Mirror everything under a parent of its own, unless ``python -m flows run`` will do it.

    The last stage calls this, so that a bare ``dvc repro`` is recorded too.
    """
    if "UNSEEN_PARENT_RUN" in os.environ:
        return
    parent = open_parent(parameters, root=root)
    if parent is not None:
        mirror(parent, cells, root=root)
        close_parent(parent, root=root)


def _write_cell(
    client: "MlflowClient", experiment: str, cell: Cell, tags: Mapping[str, str], root: Path
) -> None:
    """Write the child run of one cell, with its contact sheet."""
    axes = {key: cell[key] for key in ("model", "domain", "level", "sampler")}
    level = int(str(cell["level"]))
    name = f"{cell['model']}/{cell['domain']}/L{level:04d}/{cell['sampler']}"
    run = client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id
    settings, metrics = dict(cell.get("settings") or {}), dict(cell.get("metrics") or {})
    _log(client, run, metrics=metrics | {"n": cell.get("n")}, parameters=flatten(axes | settings))
    sheet = root / str(cell.get("sheet") or "")
    if sheet.is_file():
        with Image.open(sheet) as image:
            client.log_image(run, image.convert("RGB"), key="sheet", step=level)
    client.set_terminated(run)


def _write_series(
    client: "MlflowClient", experiment: str, cells: Sequence[Cell], tags: Mapping[str, str]
) -> None:
    """Write the child run of one domain: ``<metric>/<sampler>`` with the level as step."""
    model, domain = cells[0]["model"], cells[0]["domain"]
    run = client.create_run(experiment, run_name=f"{model}/{domain}", tags=dict(tags)).info.run_id
    _log(client, run, parameters={"model": str(model), "domain": str(domain)})
    for cell in cells:
        named = {f"{key}/{cell['sampler']}": value for key, value in dict(cell["metrics"]).items()}
        _log(client, run, metrics=named, step=int(str(cell["level"])))
    client.set_terminated(run)


def _log(
    client: "MlflowClient",
    run: str,
    *,
    metrics: Mapping[str, object] | None = None,
    parameters: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
) -> None:
    """Log in batches: one call costs a fraction of a call per value."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    numbers = [
        Metric(key, float(value), now, step)
        for key, value in (metrics or {}).items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    texts = [Param(key, value) for key, value in (parameters or {}).items()]
    marks = [RunTag(key, value) for key, value in (tags or {}).items()]
    for at in range(0, max(len(numbers), len(texts), len(marks)), BATCH):
        part = slice(at, at + BATCH)
        client.log_batch(run, metrics=numbers[part], params=texts[part], tags=marks[part])


def _connect(root: Path) -> tuple["MlflowClient", str]:
    """Return a client of the store and the experiment's id, made on first use."""
    # An absent server should cost seconds; MLflow's own defaults wait for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from mlflow import MlflowClient

    uri = store_uri(root)
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return client, found.experiment_id
    # A server keeps artifacts where it chooses; our own store keeps them beside itself.
    local = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    place = local.as_uri() if uri.startswith("sqlite:////") else None
    return client, client.create_experiment(EXPERIMENT, artifact_location=place)


def _children(client: "MlflowClient", experiment: str, parent: str) -> set[str]:
    """Return the content hashes of the runs below ``parent``, removing unfinished ones."""
    query = f"tags.`mlflow.parentRunId` = '{parent}'"
    found: set[str] = set()
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment], query, page_token=token or None)
        for run in page:
            if run.info.status == "FINISHED":
                found.add(run.data.tags.get("unseen.cell", ""))
            else:
                client.delete_run(run.info.run_id)
        token = page.token or None
    return found


@contextmanager
def _only_warn(root: Path) -> Iterator[None]:
    """Turn any failure of the store into one warning line that names it."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    # They announce every table they create and every connection they try again.
    for noisy in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        yield
    except (MlflowException, OSError, RequestException, SQLAlchemyError) as error:
        reason = str(error).replace(store_uri(root), store_label(root)).partition("\n")[0]
        LOG.warning("not recorded in the MLflow store %s: %.200s", store_label(root), reason)
