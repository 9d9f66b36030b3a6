"""MLflow's store, read and written: the only module that imports mlflow.

Everything that the project asks of an MLflow store is here, in few calls and bounded in time. What
is written there, and when, is decided in ``flows.mlflow.tracking`` and ``flows.mlflow.runs``.
"""

import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from flows.mlflow.provenance import Dataset, store_label, store_uri
from unseen_core.errors import UnseenError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

__all__ = ["FoundRun", "Store", "connect", "store_errors"]

EXPERIMENT = "unseen"
BATCH = 100  # MLflow's limit on params and tags in one call
# Seconds for one answer, for one file, and attempts after the first: MLflow's own wait for minutes.
# And it prints bars of files, and two lines for every run that ends on a server.
_SETTINGS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
             "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
             "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
             "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
             # It announces every table that it creates; errors are raised all the same.
             "MLFLOW_LOGGING_LEVEL": "ERROR"}


@dataclass(frozen=True)
class FoundRun:
    """A run of the store: its id, name, status such as ``FINISHED``, tags and parameters."""

    id: str
    name: str
    status: str
    tags: Mapping[str, str]
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Store:
    """An experiment of an MLflow store.

    Every method raises what the store raises, see `store_errors`, and a TimeoutError once the
    time is over that `connect` was given.
    """

    client: "MlflowClient"
    experiment: str
    deadline: float = math.inf

    def begin(self, name: str, tags: Mapping[str, str]) -> str:
        """Start a run and return its id."""
        self._in_time()
        return self.client.create_run(self.experiment, run_name=name, tags=dict(tags)).info.run_id

    def end(self, run: str, status: str = "FINISHED") -> None:
        """End a run."""
        self._in_time()
        self.client.set_terminated(run, status)

    def log(
        self,
        run: str,
        *,
        metrics: Mapping[str, object] | None = None,
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Log in batches: one call costs a fraction of a call per value.

        Args:
            run: The run's id.
            metrics: Numbers; values that are not finite are left out.
            parameters: Texts.
            tags: Texts.
            step: Of the metrics.
        """
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
            self._in_time()
            self.client.log_batch(run, metrics=numbers[part], params=texts[part], tags=marks[part])

    def picture(self, run: str, file: Path, key: str, step: int) -> None:
        """Log a picture under a key that the UI shows as one panel over steps."""
        self._in_time()
        with Image.open(file) as image:
            self.client.log_image(run, image.convert("RGB"), key=key, step=step)

    def artifact(self, run: str, file: Path, folder: str) -> None:
        """Store a file with a run."""
        self._in_time()
        self.client.log_artifact(run, str(file), folder)

    def inputs(self, run: str, datasets: Sequence[Dataset]) -> None:
        """Log what a run was made of, for the UI's column of datasets."""
        self._in_time()
        if datasets:
            self.client.log_inputs(run, datasets=[_entity(dataset) for dataset in datasets])

    def find(self, query: str) -> Iterator[FoundRun]:
        """Yield the runs that a search finds, newest first; runs deleted in the UI are not there.

        Args:
            query: A filter in MLflow's language.
        """
        token: str | None = ""
        while token is not None:
            self._in_time()
            page = self.client.search_runs([self.experiment], query, page_token=token or None)
            yield from map(_found, page)
            token = page.token or None

    def download(self, run: str, folder: str, to: Path) -> Path:
        """Copy a run's artifacts below ``folder`` to a folder of this machine; return it there."""
        return Path(self.client.download_artifacts(run, folder, str(to)))

    def get(self, run: str) -> FoundRun:
        """Return the run of an id."""
        return _found(self.client.get_run(run))

    def drop(self, run: str) -> None:
        """Delete a run."""
        self._in_time()
        self.client.delete_run(run)

    def _in_time(self) -> None:
        """Raise once the time is over."""
        if time.monotonic() > self.deadline:
            raise TimeoutError("it answers too slowly")


def connect(root: Path, *, seconds: float = math.inf) -> Store:
    """Return the experiment ``unseen`` of the workspace's store, made on first use.

    Args:
        root: The workspace; see ``store_uri`` for the store's address.
        seconds: How long the store may be in use, all calls together.
    """
    began = time.monotonic()
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # They announce every table they change and every connection they try again.
    for noisy in ("alembic", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    uri = store_uri(root)
    place = uri.removeprefix("sqlite:///").partition("?")[0]
    # MLflow tries for minutes to open what is no database.
    if place != uri and Path(place).exists():
        with closing(sqlite3.connect(place)) as file:
            file.execute("PRAGMA schema_version")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return Store(client, found.experiment_id, began + seconds)
    # A server keeps artifacts where it chooses; our own store keeps them beside itself.
    local = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    place = local.as_uri() if uri.startswith("sqlite:////") else None
    made = client.create_experiment(EXPERIMENT, artifact_location=place)
    return Store(client, made, began + seconds)


@contextmanager
def store_errors(root: Path) -> Iterator[None]:
    """Turn any failure of the store, or of the disk under it, into a `ConnectionError`.

    Its message is one line that names the store, without a password.
    """
    try:
        yield
    except UnseenError:
        raise
    except Exception as error:  # drivers and artifact stores raise classes of their own
        reason = str(error).replace(store_uri(root), store_label(root)).partition("\n")[0]
        raise ConnectionError(f"{store_label(root)}: {reason:.200}") from error


def _found(run: "Run") -> FoundRun:
    """Return a run without MLflow's classes."""
    return FoundRun(run.info.run_id, run.info.run_name, run.info.status, run.data.tags,
                    run.data.params)


def _entity(dataset: Dataset) -> "DatasetInput":
    """Return a dataset as MLflow has it."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    return DatasetInput(
        Entity(dataset.name, dataset.digest, dataset.source_type, json.dumps(dataset.source),
               profile=json.dumps({"images": dataset.images})),
        [InputTag("mlflow.data.context", dataset.side)])
