"""What a recorded invocation is made of: the store's address, tags, parameters, cells, inputs."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flows.running.git import ask_git
from flows.settings.paths import Paths
from unseen_core.store import file_hash

__all__ = ["Dataset", "datasets", "digest", "flatten", "provenance", "store_label", "store_uri"]


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
        mark = file_hash(file)[:36]
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
    if commit := ask_git(root, "rev-parse", "HEAD"):
        tags["git_commit"] = tags["mlflow.source.git.commit"] = commit
    if (lock := root / "dvc.lock").is_file():
        tags["dvc_lock"] = file_hash(lock)
        written = ask_git(root, "log", "-1", "--format=%H", "--", "dvc.lock")
        if written and not ask_git(root, "status", "--porcelain", "--", "dvc.lock"):
            tags["dvc_lock_commit"] = written
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = experiment
    return tags
