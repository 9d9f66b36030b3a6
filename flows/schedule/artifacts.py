"""What a scheduled run shows in Prefect's UI: the table, what ran, links and pictures."""

import base64
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Event

from PIL import Image
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from flows.mlflow.provenance import store_label
from flows.pipeline import Invocation
from flows.prefect.record import artifact_key, optional_record

__all__ = ["data_url", "show_run", "show_sweep"]

WIDTH = 900
"""Pixels; a wider picture is reduced, as the artifact holds the picture itself."""


def show_run(invocation: Invocation, report: Path, root: Path) -> None:
    """Record a run as the artifact ``unseen-pipeline`` and its pictures as image artifacts.

    Args:
        invocation: What ran.
        report: The folder with summary.md, best.json and the pictures.
        root: The repository's root, below which contact sheets are.
    """
    summary = report / "summary.md"
    table = summary.read_text("utf-8") if summary.is_file() else "No table was written.\n"
    if invocation.experiment is None and _is_older(summary, root.glob("data/metrics/*/*.json")):
        table = ("**Table and pictures are from before this run; `dvc repro compare` renews "
                 f"them.**\n\n{table}")
    ran = [f"| {name} | {seconds:.0f} |" for name, seconds in invocation.seconds.items()]
    stages = ["| stage that ran | s |", "|---|---|", *ran] if ran else ["Nothing was stale."]
    unreachable = Event()
    with optional_record(unreachable):
        create_markdown_artifact("\n".join(["\n".join(_links(invocation, root)), "", *stages, "",
                                            table]),
                                 key="unseen-pipeline", description="What this run gave")
    for key, picture in _pictures(invocation, report, root).items():
        if picture.is_file() and not unreachable.is_set():
            with optional_record(unreachable):
                create_image_artifact(data_url(picture), key=artifact_key(key),
                                      description=picture.stem)


def show_sweep(results: Mapping[str, bool]) -> None:
    """Record a sweep's experiments as the artifact ``unseen-sweep``."""
    rows = [f"| {name} | {'finished' if done else 'failed'} |" for name, done in results.items()]
    lines = ["| experiment | |", "|---|---|", *rows, "",
             "`dvc exp show` compares them, `dvc exp apply NAME` takes one over."]
    with optional_record(Event()):
        create_markdown_artifact("\n".join(lines), key="unseen-sweep",
                                 description="The experiments of this sweep")


def data_url(picture: Path) -> str:
    """Return a picture, reduced to `WIDTH`, as a ``data:`` URL (RFC 2397) with a JPEG.

    The UI puts the artifact's URL into an ``img`` element; a file on the server's or the worker's
    disk is out of a browser's reach, and the picture itself is not.
    """
    with Image.open(picture) as image:
        small = image.convert("RGB")
    small.thumbnail((WIDTH, WIDTH * 4))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _is_older(file: Path, others: Iterable[Path]) -> bool:
    """Say whether a file was written before one of others."""
    newest = max((other.stat().st_mtime_ns for other in others), default=0)
    return file.is_file() and file.stat().st_mtime_ns < newest


def _links(invocation: Invocation, root: Path) -> Iterator[str]:
    """Yield where the results are."""
    if invocation.experiment:
        name = invocation.experiment
        yield f"* DVC experiment `{name}`: `dvc exp show`, `dvc exp apply {name}`"
    else:
        yield f"* workspace `{root}`: `data/report`, `data/generated`"
    store = store_label(root)
    if not store.startswith("http"):
        port = os.environ.get("UNSEEN_MLFLOW_PORT") or "5000"
        store = f"http://127.0.0.1:{port}"  # where `make serve` serves the store
    named = f", run `{invocation.parent}`" if invocation.parent else ""
    yield f"* MLflow: [{store}]({store}){named}"


def _pictures(invocation: Invocation, report: Path, root: Path) -> Mapping[str, Path]:
    """Return the overview, the front and, from the workspace, the sheets of the best cells."""
    pictures = {f"unseen-{name}": report / f"{name}.png" for name in ("overview", "front")}
    if invocation.experiment is None and (best := report / "best.json").is_file():
        for pair, cell in json.loads(best.read_text("utf-8")).items():
            name = f"L{int(cell['level']):04d}-{cell['sampler']}.png"
            pictures[f"sheet-{pair}"] = root / "data/generated" / pair / name
    return pictures
