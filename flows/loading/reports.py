"""The stages per model, as MLflow has them: figures, curves over levels, and files."""

import csv
import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from flows.settings.paths import Paths
from unseen_core.errors import UnseenError

__all__ = ["MODEL_STAGES", "read_stages", "stage_folder"]

MODEL_STAGES = ("trajectory", "steer", "applications")
"""The stages of a model that do not belong to a domain's run."""

# Of every table: what MLflow counts as the step, and the columns that separate curves.
_CURVES: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
    "levels": ("level", ()), "emergence": ("mode", ()), "gains": ("level", ("direction",)),
    "teleport": ("saved", ("jump",)), "colour": ("level", ("control", "channel")),
    "anonymise": ("level", ("domain",)), "augment": (None, ("domain", "arm")),
    "enhance": ("level", ("domain", "factor", "passes"))}
_SETTINGS = ("settings", "classifier")


def stage_folder(root: Path, stage: str, model: str) -> Path:
    """Return where one of `MODEL_STAGES` writes, its report named after itself."""
    paths = Paths(root)
    return {"trajectory": paths.trajectory, "steer": paths.steer,
            "applications": paths.applications}[stage](model)


def read_stages(root: Path, models: Collection[str]) -> list[Mapping[str, object]]:
    """Return what the stages per model found, one record each; what is not there is left out.

    A record has ``model`` and ``stage``, ``settings``, ``metrics`` (the report's single figures),
    ``curves`` (name to pairs of step and value, of the CSV files) and ``files``, relative to the
    root.

    Args:
        root: The workspace.
        models: Names of models; the records are in order of model and stage.

    Raises:
        UnseenError: If a file is damaged.
    """
    found: list[Mapping[str, object]] = []
    for model in sorted(models):
        for stage in MODEL_STAGES:
            folder = stage_folder(root, stage, model)
            file = folder / f"{stage}.json"
            if not file.is_file():
                continue
            try:
                report = json.loads(file.read_text("utf-8"))
                settings = {key: value for key, value in report.items()
                            if isinstance(value, str | int | float) or key in _SETTINGS}
                nested = {key: value for key, value in report.items() if key not in settings}
                tables = sorted(folder.glob("*.csv"))
                curves = dict(curve for path in tables for curve in _curves(path))
            except (ValueError, KeyError, AttributeError) as error:
                raise UnseenError(f"{file}: damaged, or a table beside it ({error}); run {stage} "
                                  "again") from error
            files = [file, *tables, *sorted(folder.glob("*.png"))]
            found.append({"model": model, "stage": stage,
                          "settings": {key: settings[key] for key in settings if key != "model"},
                          "metrics": dict(_figures(nested)), "curves": curves,
                          "files": [path.relative_to(root).as_posix() for path in files]})
    return found


def _figures(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers in nested tables, lists left out, under names with slashes."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{key}/")
        elif prefix and isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)


def _curves(file: Path) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Yield ``table/column/names`` and its points; the ends of intervals stay in the file."""
    if file.stem not in _CURVES:
        return
    axis, names = _CURVES[file.stem]
    found: dict[str, list[tuple[int, float]]] = {}
    with file.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            step = 0 if axis is None else int(float(row[axis]))
            for column, text in row.items():
                if column in (axis, *names) or column.endswith(("_low", "_high")):
                    continue
                value = _number(text)
                if value is not None:
                    name = "/".join((file.stem, column, *(row[key] for key in names)))
                    found.setdefault(name, []).append((step, value))
    yield from found.items()


def _number(text: str) -> float | None:
    """Return a finite number, None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
