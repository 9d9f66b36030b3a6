"""What a recorded invocation is made of: the store's address, tags, flat parameters, cells."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from unseen_core.errors import UnseenError

__all__ = ["Cell", "digest", "flatten", "provenance", "read_cells", "read_latents",
           "store_label", "store_uri"]

Cell = Mapping[str, object]
"""One model x domain x level x sampler: those four, ``n``, ``settings``, ``metrics``, ``sheet``."""


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
    """Return the analyses of ``<folder>/<model>/<domain>`` as cells of a sampler ``latents``.

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
                cells.append({**axes, "level": int(level), "sampler": "latents",
                              "n": report["images"], "settings": {}, "metrics": table["figures"],
                              "sheet": (file.parent / "analysis.png").as_posix()})
        except (ValueError, KeyError, TypeError) as error:
            raise UnseenError(f"{file}: damaged ({error}); run analyze again") from error
    return cells


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
    """Return tags for the git commit, the hash of ``dvc.lock`` and the DVC experiment."""
    tags = {"mlflow.source.name": "unseen", "mlflow.source.type": "LOCAL"}
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        tags["git_commit"] = tags["mlflow.source.git.commit"] = commit.stdout.strip()
    if (lock := root / "dvc.lock").is_file():
        tags["dvc_lock"] = hashlib.sha256(lock.read_bytes()).hexdigest()
    if experiment := os.environ.get("DVC_EXP_NAME"):
        tags["dvc_experiment"] = experiment
    return tags
