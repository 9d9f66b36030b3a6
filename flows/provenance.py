"""What a recorded invocation is made of: the store's address, tags, parameters, cells, inputs."""

import hashlib
import json
import os
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flows.paths import Paths
from flows.stage_reports import read_stages
from unseen_core.errors import UnseenError

__all__ = ["LATENTS", "Cell", "Dataset", "datasets", "digest", "flatten", "invocation_cells",
           "provenance", "read_cells", "read_latents", "store_label", "store_uri"]

Cell = Mapping[str, object]
"""One model x domain x level x sampler: those four, ``n``, ``settings``, ``metrics``, ``sheet``.

Or what a stage per model found: see ``flows.stage_reports.read_stages``.
"""

LATENTS = "latents"
"""The sampler of the cells that are analyses."""


@dataclass(frozen=True)
class Dataset:
    """One side of a domain's images, as MLflow has its datasets.

    Attributes:
        name: The domain.
        side: ``fit`` or ``held_out``.
        digest: The first 36 characters of the SHA-256 of the images as they were fetched.
        source_type: The source of params.yaml, such as ``folder``.
        source: Origin and licence.
        images: How many.
    """

    name: str
    side: str
    digest: str
    source_type: str
    source: Mapping[str, str]
    images: int


def store_uri(root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI``, or the SQLite store at the root of the main repository.

    Args:
        root: The workspace. Under `dvc exp run --temp` that is a copy; ``DVC_ROOT`` then names
            the main repository, whose store is used.
    """
    home = Path(os.environ.get("DVC_ROOT") or root).resolve()
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


def store_label(root: Path) -> str:
    """Return the store's address without a password, fit for logs."""
    parts = urlsplit(uri := store_uri(root))
    return uri.replace(f"{parts.netloc.rpartition('@')[0]}@", "") if "@" in parts.netloc else uri


def read_cells(folder: Path) -> list[Cell]:
    """Return every cell of ``<folder>/<model>/<domain>.json``, sorted by path.

    Raises:
        UnseenError: If a file is damaged.
    """
    cells: list[Cell] = []
    for file in sorted(folder.glob("*/*.json")):
        try:
            cells += json.loads(file.read_text("utf-8"))["cells"]
        except (ValueError, KeyError, TypeError) as error:
            raise UnseenError(f"{file}: damaged ({error}); run evaluate again") from error
    return cells


def read_latents(folder: Path) -> list[Cell]:
    """Return the analyses of ``<folder>/<model>/<domain>`` as cells of the sampler `LATENTS`.

    One per level, so that the same table and charts show them; their sheet is the analysis' plot.

    Raises:
        UnseenError: If a file is damaged.
    """
    cells: list[Cell] = []
    for file in sorted(folder.glob("*/*/analysis.json")):
        try:
            report = json.loads(file.read_text("utf-8"))
            axes = {"model": report["model"], "domain": report["domain"]}
            for level, table in report["levels"].items():
                sheet = file.relative_to(folder.parent.parent).with_suffix(".png")
                cells.append({**axes, "level": int(level), "sampler": LATENTS,
                              "n": report["images"], "settings": {}, "metrics": table["figures"],
                              "sheet": sheet.as_posix()})
        except (ValueError, KeyError, TypeError) as error:
            raise UnseenError(f"{file}: damaged ({error}); run analyze again") from error
    return cells


def invocation_cells(root: Path, pairs: Collection[tuple[str, str]]) -> list[Cell]:
    """Return what an invocation is about: cells, analyses, and what the stages per model found.

    Args:
        root: The workspace.
        pairs: The (model, domain) pairs of its ``pipeline`` section; files of others, left by an
            earlier invocation, are passed over.

    Raises:
        UnseenError: If a file is damaged.
    """
    paths = Paths(root)
    found = [*read_cells(paths.metrics_folder), *read_latents(paths.analyses)]
    mine = [cell for cell in found if (cell["model"], cell["domain"]) in pairs]
    return [*mine, *read_stages(root, {model for model, _ in pairs})]


def datasets(root: Path, domain: str) -> list[Dataset]:
    """Return what ``fetch`` made of a domain: its fit images and its held-out ones.

    What is not on this machine, as after a `dvc pull` of the metrics alone, is left out.
    """
    folder = Paths(root).domain(domain)
    found: list[Dataset] = []
    for side in ("fit", "held_out"):
        file = folder / f"{side}.parquet"
        if not file.is_file() or not (folder / "report.json").is_file():
            continue
        report = json.loads((folder / "report.json").read_text("utf-8"))
        with file.open("rb") as stream:
            mark = hashlib.file_digest(stream, "sha256").hexdigest()[:36]
        source = {key: str(report[key]) for key in ("origin", "licence")}
        found.append(Dataset(domain, side, mark, report["source"], source, report["counts"][side]))
    return found


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested parameters as dotted names and short strings; lists become JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[f"{prefix}{key}"] = text[:500]
    return flat


def digest(content: object) -> str:
    """Return the SHA-256 of a JSON value with sorted keys."""
    text = json.dumps(content, sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def provenance(root: Path) -> dict[str, str]:
    """Return tags for the git commit, ``dvc.lock`` and the DVC experiment.

    ``dvc_lock`` is the file's hash, and ``dvc_lock_commit`` the commit that wrote it, which is
    absent as long as it is not committed.
    """
    tags = {"mlflow.source.name": "unseen", "mlflow.source.type": "LOCAL"}
    if commit := _git(root, "rev-parse", "HEAD"):
        tags["git_commit"] = tags["mlflow.source.git.commit"] = commit
    if (lock := root / "dvc.lock").is_file():
        tags["dvc_lock"] = hashlib.sha256(lock.read_bytes()).hexdigest()
        written = _git(root, "log", "-1", "--format=%H", "--", "dvc.lock")
        if written and not _git(root, "status", "--porcelain", "--", "dvc.lock"):
            tags["dvc_lock_commit"] = written
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = experiment
    return tags


def _git(root: Path, *words: str) -> str:
    """Return what git says, or nothing where there is no repository or no commit."""
    said = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True,
                          check=False)
    return said.stdout.strip() if said.returncode == 0 else ""
