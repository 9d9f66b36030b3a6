"""The runs below an MLflow parent: one per cell, and one per model and domain over levels."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from flows.mlflow_store import Store
from flows.paths import Paths
from flows.provenance import LATENTS, Cell, datasets, digest, flatten

__all__ = ["write_runs"]

_LARGEST = 64 * 2**20  # bytes of a prior's file worth a copy: weights over 2,000 fit images


def write_runs(
    store: Store,
    parent: str,
    cells: Sequence[Cell],
    root: Path,
    fresh: Collection[tuple[str, str]] | None = None,
) -> int:
    """Write one run per cell and one per model x domain below a parent; see ``tracking.mirror``.

    What an earlier parent has already is tagged ``cached=true``, and ``unseen.computed_in`` names
    the run that has its pictures and files: those are not stored twice.

    Returns:
        How many runs were added; those that ``parent`` has are left alone.
    """
    known, added = _children(store, parent), 0
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((str(cell["model"]), str(cell["domain"])), []).append(cell)
    for pair, members in groups.items():
        marks = {"mlflow.parentRunId": parent,
                 "cached": str(fresh is not None and pair not in fresh).lower()}
        missing = [cell for cell in members if digest(cell) not in known]
        whole = digest(members)
        if not missing and whole in known:
            continue
        origins, used = _origins(store, *pair), datasets(root, pair[1])
        for cell in missing:
            mark = digest(cell)
            tags = marks | {"unseen.kind": "cell", "unseen.cell": mark}
            run = store.begin(_name(cell), tags | _origin(origins, mark))
            store.inputs(run, used)
            _write_cell(store, run, cell, None if mark in origins else root)
            added += 1
        if whole not in known:
            tags = marks | {"unseen.kind": "series", "unseen.cell": whole}
            run = store.begin("/".join(pair), tags | _origin(origins, whole))
            store.inputs(run, used)
            _write_series(store, run, members, None if whole in origins else root)
            added += 1
    return added


def _write_cell(store: Store, run: str, cell: Cell, root: Path | None) -> None:
    """Write a cell: axes, settings and metrics, and its sheet if a root is given."""
    axes = {key: cell[key] for key in ("model", "domain", "level", "sampler")}
    settings, metrics = dict(cell.get("settings") or {}), dict(cell.get("metrics") or {})
    # As a metric too: the UI sorts and filters parameters as texts.
    numbers = metrics | {"n": cell.get("n"), "level": cell["level"]}
    store.log(run, metrics=numbers, parameters=flatten(axes | settings))
    if root is not None and (sheet := _sheet(cell, root)):
        store.picture(run, sheet, "sheet", int(str(cell["level"])))
    store.end(run)


def _write_series(store: Store, run: str, cells: Sequence[Cell], root: Path | None) -> None:
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


def _name(cell: Cell) -> str:
    """Return a cell's name in the UI, which sorts by it."""
    return f"{cell['model']}/{cell['domain']}/L{int(str(cell['level'])):04d}/{cell['sampler']}"


def _sheet(cell: Cell, root: Path) -> Path | None:
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


def _origins(store: Store, model: str, domain: str) -> Mapping[str, str]:
    """Return the content hashes that are in the store, and the first run of each."""
    query = ("tags.`unseen.first` = 'true' and attributes.status = 'FINISHED' and "
             f"params.model = '{model}' and params.domain = '{domain}'")
    return {run.tags["unseen.cell"]: run.id for run in store.find(query)}


def _origin(origins: Mapping[str, str], mark: str) -> dict[str, str]:
    """Return the tags that tell the first run of a content from its repetitions."""
    if mark in origins:
        return {"cached": "true", "unseen.computed_in": origins[mark]}
    return {"unseen.first": "true"}
