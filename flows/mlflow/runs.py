"""The runs below an MLflow parent: per cell, per model and domain, per model and stage."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from flows.loading.metrics import LATENTS, CellReport
from flows.loading.seconds import read_seconds
from flows.mlflow.provenance import datasets, digest, flatten
from flows.mlflow.store import Store
from flows.settings.paths import Paths

__all__ = ["write_runs"]

_LARGEST = 64 * 2**20  # bytes of a prior's file worth a copy: weights over 2,000 fit images


def write_runs(
    store: Store,
    parent: str,
    cells: Sequence[CellReport],
    root: Path,
    fresh: Collection[tuple[str, str]] | None = None,
) -> int:
    """Write the runs of cells, of model x domain and of stages; see ``tracking.mirror``.

    What an earlier parent has already is tagged ``cached=true``, and ``unseen.computed_in`` names
    the run that has its pictures and files: those are not stored twice.

    Returns:
        How many runs were added; those that ``parent`` has are left alone.
    """
    known, added = _children(store, parent), 0
    groups: dict[tuple[str, str], list[CellReport]] = {}
    for cell in cells:
        if "stage" not in cell:
            groups.setdefault((str(cell["model"]), str(cell["domain"])), []).append(cell)
    for pair, members in groups.items():
        marks = {"mlflow.parentRunId": parent,
                 "cached": str(fresh is not None and pair not in fresh).lower()}
        missing = [cell for cell in members if digest(cell) not in known]
        whole = digest(members)
        if not missing and whole in known:
            continue
        origins = _origins(store, {"model": pair[0], "domain": pair[1]})
        used = datasets(root, pair[1])
        for cell in missing:
            mark = digest(cell)
            tags = marks | {"unseen.kind": "cell", "unseen.cell": mark}
            run = store.begin(_name(cell), tags | _origin(origins, mark))
            store.inputs(run, used)
            _write_cell(store, run, cell, None if mark in origins else root, _seconds(cell, root))
            added += 1
        if whole not in known:
            tags = marks | {"unseen.kind": "series", "unseen.cell": whole}
            run = store.begin("/".join(pair), tags | _origin(origins, whole))
            store.inputs(run, used)
            _write_series(store, run, members, None if whole in origins else root)
            added += 1
    return added + sum(_write_stage(store, parent, record, root, fresh)
                       for record in cells if "stage" in record and digest(record) not in known)


def _write_cell(
    store: Store, run: str, cell: CellReport, root: Path | None, took: Mapping[str, float]
) -> None:
    """Write a cell: axes, settings, metrics and seconds, and its sheet if a root is given."""
    axes = {key: cell[key] for key in ("model", "domain", "level", "sampler")}
    settings, metrics = dict(cell.get("settings") or {}), dict(cell.get("metrics") or {})
    # As a metric too: the UI sorts and filters parameters as texts.
    numbers = metrics | {"n": cell.get("n"), "level": cell["level"]} | took
    store.log(run, metrics=numbers, parameters=flatten(axes | settings))
    if root is not None and (sheet := _sheet(cell, root)):
        # As a file: a picture over steps is encoded twice more, and the series has it.
        store.artifact(run, sheet, "images")
    store.end(run)


def _write_series(store: Store, run: str, cells: Sequence[CellReport], root: Path | None) -> None:
    """Write ``<metric>/<sampler>`` with the level as step, and sheets and priors if asked for."""
    model, domain = str(cells[0]["model"]), str(cells[0]["domain"])
    store.log(run, parameters={"model": model, "domain": domain})
    for cell in cells:
        named = {f"{key}/{cell['sampler']}": value for key, value in dict(cell["metrics"]).items()}
        store.log(run, metrics=named, step=int(str(cell["level"])))
    if root is not None:
        for cell in cells:
            if cell["sampler"] != LATENTS and (sheet := _sheet(cell, root)):
                store.picture(run, sheet, f"sheet/{cell['sampler']}", int(str(cell["level"])))
        for file in sorted(Paths(root).priors(model, domain).glob("L*")):
            if file.stat().st_size <= _LARGEST:
                store.artifact(run, file, "priors")
    store.end(run)


def _write_stage(
    store: Store,
    parent: str,
    record: CellReport,
    root: Path,
    fresh: Collection[tuple[str, str]] | None,
) -> int:
    """Write what a stage per model found: its figures, curves over levels, and files."""
    pair, mark = (str(record["model"]), str(record["stage"])), digest(record)
    origins = _origins(store, {"model": pair[0], "stage": pair[1]})
    tags = {"mlflow.parentRunId": parent, "unseen.kind": "analysis", "unseen.cell": mark,
            "cached": str(fresh is not None and pair not in fresh).lower()}
    run = store.begin("/".join(pair), tags | _origin(origins, mark))
    axes = {"model": pair[0], "stage": pair[1]}
    store.log(run, metrics=dict(record["metrics"]), parameters=flatten(
        axes | dict(record["settings"])))
    steps: dict[int, dict[str, float]] = {}
    for name, points in dict(record["curves"]).items():
        for step, value in points:
            steps.setdefault(step, {})[name] = value
    for step, metrics in steps.items():
        store.log(run, metrics=metrics, step=step)
    for file in () if mark in origins else record["files"]:
        store.artifact(run, root / file, pair[1])
    store.end(run)
    return 1


def _name(cell: CellReport) -> str:
    """Return a cell's name in the UI, which sorts by it."""
    return f"{cell['model']}/{cell['domain']}/L{int(str(cell['level'])):04d}/{cell['sampler']}"


def _seconds(cell: CellReport, root: Path) -> dict[str, float]:
    """Return what a cell, and the training of its network, took on this machine."""
    known = partial(read_seconds, root, str(cell["model"]), str(cell["domain"]))
    key = f"L{int(str(cell['level'])):04d}-{cell['sampler']}"
    network = str(dict(cell.get("settings") or {}).get("network"))
    found = {"seconds": known("denoise").get(key),
             "training_seconds": known("finetune").get(network)}
    return {name: value for name, value in found.items() if value is not None}


def _sheet(cell: CellReport, root: Path) -> Path | None:
    """Return a cell's contact sheet, if it is there."""
    sheet = root / str(cell.get("sheet") or "")
    return sheet if sheet.is_file() else None


def _children(store: Store, parent: str) -> set[str]:
    """Return the content hashes of the runs below ``parent``, removing unfinished ones."""
    found: set[str] = set()
    for run in store.find(f"tags.`mlflow.parentRunId` = '{parent}'"):
        if run.status == "FINISHED":
            found.add(run.tags.get("unseen.cell", ""))
        else:
            store.drop(run.id)
    return found


def _origins(store: Store, axes: Mapping[str, str]) -> Mapping[str, str]:
    """Return the content hashes of these parameters in the store, and the first run of each."""
    query = " and ".join(["tags.`unseen.first` = 'true'", "attributes.status = 'FINISHED'",
                          *(f"params.{name} = '{value}'" for name, value in axes.items())])
    return {run.tags["unseen.cell"]: run.id for run in store.find(query)}


def _origin(origins: Mapping[str, str], mark: str) -> dict[str, str]:
    """Return the tags that mark the first run of a content and its repetitions."""
    if mark in origins:
        return {"cached": "true", "unseen.computed_in": origins[mark]}
    return {"unseen.first": "true"}
