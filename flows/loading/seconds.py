"""How long work took, kept apart from results, which are the same bytes on every run.

``data/seconds/MODEL/DOMAIN.json`` is no output of any stage and not tracked by Git; MLflow shows
what it holds. What another machine computed has no times here.
"""

from collections.abc import Mapping
from pathlib import Path

from flows.settings.paths import Paths
from unseen_core.store import read_json, write_json

__all__ = ["read_seconds", "record_seconds"]


def record_seconds(
    root: Path, model: str, domain: str, stage: str, seconds: Mapping[str, float]
) -> None:
    """Note what a stage took for a model and domain, in place of what it took before.

    Args:
        root: The workspace.
        model: Its name.
        domain: Its name.
        stage: ``denoise`` or ``finetune``.
        seconds: By cell key, such as ``L0300-slerp``, or by network, such as ``style-20/300``.
    """
    file = Paths(root).seconds(model, domain)
    known = read_json(file) if file.is_file() else {}
    write_json(file, {**known, stage: dict(seconds)})


def read_seconds(root: Path, model: str, domain: str, stage: str) -> Mapping[str, float]:
    """Return what a stage took, by the names that it recorded; empty where nothing is known."""
    file = Paths(root).seconds(model, domain)
    found = read_json(file).get(stage, {}) if file.is_file() else {}
    return {str(name): float(value) for name, value in found.items()}
