"""``python -m flows sync``: record in MLflow the runs that it missed while unreachable."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

from flows.loading.metrics import invocation_cells
from flows.mlflow.provenance import digest, provenance, store_label
from flows.mlflow.runs import write_runs
from flows.mlflow.store import connect, store_errors
from flows.mlflow.tracking import close_parent, new_parent
from flows.settings.params import load_params
from flows.settings.paths import Paths
from unseen_core.errors import UnseenError

__all__ = ["sync"]


def sync(*, root: Path | None = None, say: Callable[[str], None] = print) -> int:
    """Mirror the metrics files of the working directory to MLflow, unless they are there.

    An invocation whose parent run holds these very cells is completed where it lacks any;
    otherwise a new parent is made, with the present commit and ``dvc.lock``. A second call adds
    nothing.

    Args:
        root: The repository's root; the working directory by default.
        say: Receives one line: what was added, and where.

    Returns:
        How many runs were added, the parent not counted.

    Raises:
        UnseenError: If there are no metrics, or the store cannot be reached.
    """
    root = (root or Path.cwd()).resolve()
    params = load_params(root / "params.yaml")
    pipeline = params.pipeline
    cells = invocation_cells(root, [*product(pipeline.models, pipeline.domains)])
    if not cells:
        raise UnseenError(f"{Paths(root).metrics_folder} holds no metrics of the pipeline's "
                          "domains; run `python -m flows run` first")
    content = digest(cells)
    try:
        with store_errors(root):
            store = connect(root)
            parent = next(store.find(f"tags.`unseen.content` = '{content}'"), None)
            if parent is None:
                marks = {"unseen.content": content, "unseen.recorded_by": "sync"}
                run = new_parent(store, params.model_dump(), root=root, tags=marks)
                status = "RUNNING"
            else:
                run, status = parent.id, parent.status
            added = write_runs(store, run, cells, root)
    except ConnectionError as error:
        raise UnseenError(f"the MLflow store is not usable ({error}); fix it and sync "
                          "again") from error
    if status == "RUNNING":
        report = Paths(root).report
        close_parent(run, root=root,
                     artifacts=sorted(report.glob("*.csv")) + sorted(report.glob("*.png")))
    lock = provenance(root).get("dvc_lock", "none")[:8]
    place = f"run {run} of {store_label(root)} (dvc.lock {lock})"
    say(f"recorded {added} runs below {place}" if added else
        f"nothing to add: all {len(cells)} cells are below {place}")
    return added
