"""The MLflow mirror of the metrics files.

Metrics files are the truth; MLflow shows them. Nothing here fails a stage: whatever goes wrong
becomes one warning that names the store, and ``python -m flows sync`` records it later.
"""

import hashlib
import os
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.loading.metrics import CellReport
from flows.loading.reports import read_stages
from flows.mlflow.provenance import digest, flatten, provenance
from flows.mlflow.runs import write_runs
from flows.mlflow.store import Store, connect, store_errors
from flows.running.run import LOG

__all__ = ["close_parent", "mirror", "new_parent", "open_parent", "record_invocation"]

PATIENCE = 300.0
"""Seconds that a pipeline waits for a slow store; `sync` waits as long as it takes."""

_WORKSPACE = "unseen.workspace"
_TOLD: set[str] = set()
"""Parents of which it was said that they are incomplete."""


def open_parent(parameters: Mapping[str, object], *, root: Path) -> str | None:
    """Start the parent run of one invocation.

    What a killed invocation of this workspace left running is ended, as killed: one workspace has
    one invocation at a time.

    Args:
        parameters: The content of ``params.yaml``, nested.
        root: The workspace.

    Returns:
        The run's id, or None when the store cannot be reached.
    """
    with _only_warn(root):
        store = connect(root, seconds=PATIENCE)
        for run in store.find(f"attributes.status = 'RUNNING' and tags.`{_WORKSPACE}` = "
                              f"'{_workspace(root)}'"):
            for child in store.find("attributes.status = 'RUNNING' and tags.`mlflow.parentRunId` "
                                    f"= '{run.id}'"):
                store.end(child.id, "KILLED")
            store.end(run.id, "KILLED")
        return new_parent(store, parameters, root=root)
    return None


def _workspace(root: Path) -> str:
    """Return a mark of a folder of this machine, which tells neither."""
    return hashlib.sha256(f"{platform.node()}:{root.resolve()}".encode()).hexdigest()[:16]


def new_parent(
    store: Store,
    parameters: Mapping[str, object],
    *,
    root: Path,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Start a parent run, tagged with the present commit and ``dvc.lock``; return its id."""
    marks = provenance(root) | {"unseen.kind": "invocation", _WORKSPACE: _workspace(root),
                                **(tags or {})}
    name = os.environ.get("DVC_EXP_NAME") or f"run {marks.get('git_commit', 'unknown')[:8]}"
    parent = store.begin(name, marks)
    store.log(parent, parameters=flatten(parameters))
    return parent


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
    with _only_warn(root, parent):
        store = connect(root, seconds=PATIENCE)
        store.log(parent, metrics=metrics, tags=provenance(root))
        for path in artifacts:
            if path.is_file():
                store.artifact(parent, path, "report")
        store.end(parent, status)


def mirror(
    parent: str | None,
    cells: Sequence[CellReport],
    *,
    root: Path,
    fresh: Collection[tuple[str, str]] | None = None,
) -> None:
    """Write one child run per cell, one per model x domain over level, one per model x stage.

    Writing the same cells twice under one parent adds nothing, so an interrupted mirror can be
    repeated and an empty database be filled again from the metrics files. Cells that the store
    has under another parent are tagged ``cached=true``, with the first run that had them in
    ``unseen.computed_in``.

    Args:
        parent: The parent run, or None to open and close one for this call.
        cells: Cells as in the metrics files, and what stages per model found; a null or
            non-finite metric is left out.
        root: The workspace; ``sheet`` paths are relative to it.
        fresh: The (model, domain) and (model, stage) pairs that were computed in this invocation;
            the others are tagged ``cached=true``. None means all.
    """
    if parent is None:
        parent = open_parent({}, root=root)
        if parent is not None:
            mirror(parent, cells, root=root, fresh=fresh)
            close_parent(parent, root=root)
        return
    with _only_warn(root, parent):
        store = connect(root, seconds=PATIENCE)
        # First, so that `sync` completes this parent if the store fails in between.
        store.log(parent, tags={"unseen.content": digest(cells)})
        write_runs(store, parent, cells, root, fresh)


def record_invocation(
    parameters: Mapping[str, object], cells: Sequence[CellReport], *, root: Path
) -> None:
    """Mirror everything under a parent of its own, unless ``python -m flows run`` will do it.

    The last stage calls this, so that a bare ``dvc repro`` is recorded too. What the stages of the
    cells' models found is added.
    """
    if "UNSEEN_PARENT_RUN" in os.environ:
        return
    cells = [*cells, *read_stages(root, {str(cell["model"]) for cell in cells})]
    parent = open_parent(parameters, root=root)
    if parent is not None:
        mirror(parent, cells, root=root)
        close_parent(parent, root=root)


@contextmanager
def _only_warn(root: Path, parent: str = "") -> Iterator[None]:
    """Turn any failure of the store into a warning, one for all that a parent lacks."""
    try:
        with store_errors(root):
            yield
    except ConnectionError as error:
        if parent in _TOLD:
            return
        _TOLD.update({parent} - {""})
        LOG.warning("not recorded in the MLflow store %s; `python -m flows sync` does it later",
                    error)
