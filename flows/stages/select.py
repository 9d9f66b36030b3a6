"""Stage ``select``: the mixing level and the sampler, chosen by the fit images alone."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from flows.loading.fitted import channels_of
from flows.loading.judge import first_extractor
from flows.loading.starts import drawn_cells
from flows.report.plots.selection import plot_selection
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.cells import Cell, load_cost
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError
from unseen_core.judging.features import extract
from unseen_core.judging.selection import Candidate, Choice, choose
from unseen_core.store import read_pictures, write_csv, write_json
from unseen_core.types import FeatureExtractor

__all__ = ["select"]

_COLUMNS = ["level", "sampler", "criterion", "low", "high", "novelty", "diversity", "copies",
            "admissible", "frontier", "share", "calls", "chosen"]


@stage("select")
def select(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Write data/selection: the chosen cell as JSON, all candidates as CSV, a plot.

    Held-out images are never read: the criterion compares a cell's images with the fit images
    that are not their parents, see ``unseen_core.judging.selection.choose``.
    ``flows.settings.plan.Plan.candidates`` says which cells may be compared so. The first of
    ``evaluate.extractors`` judges.

    Without a candidate, or without one that reaches ``select.novelty`` and ``select.diversity``
    and does not copy,
    ``chosen`` is null and a warning is logged.

    Raises:
        UnseenError: If an input is missing, or images and fit images are of different runs.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    torch.set_num_threads(params.compute.threads)
    extractor = first_extractor(params, device)
    images, frame = read_pictures(PATHS.domain(domain) / "fit.parquet")
    images = with_channels(images, channels_of(model))
    rows = {key: row for row, key in enumerate(frame["id"])}
    folder = PATHS.generated(model, domain)
    cells = [drawn.cell for drawn in drawn_cells(PATHS.starts(model, domain)) if drawn.candidate]
    candidates = run.map(lambda cell: _candidate(folder, cell, rows, extractor), cells,
                         name=lambda cell: f"{model}/{domain}/{cell.key}")
    choice = Choice(None, 0.0, "no cell of params.yaml may be compared; add a sampler geometric "
                    "with proposal blend, slerp with partner reference, or bands", ())
    if candidates:
        choice = choose(candidates, extract(extractor, images), novelty=params.select.novelty,
                        diversity=params.select.diversity, draws=params.select.draws,
                        seed=params.seed)
    if choice.chosen is None:
        run.log.warning("select: %s/%s: %s", model, domain, choice.reason)
    table = _table(choice, cells)
    report = {"model": model, "domain": domain, "extractor": extractor.name,
              **_summary(choice, table),
              "thresholds": {"novelty": params.select.novelty,
                             "diversity": params.select.diversity},
              "candidates": len(cells), "cells": [cell.key for cell in cells]}
    write_csv(PATHS.selection(model, domain, "csv"), table)
    plot_selection(table, report, PATHS.selection(model, domain, "png"))
    write_json(PATHS.selection(model, domain, "json"), report)
    return {"candidates": len(cells), "chosen": choice.chosen}


def _candidate(
    folder: Path, cell: Cell, rows: Mapping[str, int], extractor: FeatureExtractor
) -> Candidate:
    """Return a cell's features and parents.

    Raises:
        UnseenError: If a file is missing, or an image has no parent among the fit images.
    """
    file = folder / f"{cell.key}.parquet"
    images, frame = read_pictures(file)
    parents = [line.split(",") for line in frame["parents"]]
    unknown = {key for line in parents for key in line if key not in rows}
    if unknown:
        raise UnseenError(f"{file}: parent {min(unknown)!r} is not among the fit images; run "
                          "sample and denoise again")
    features: Tensor = extract(extractor, images)
    calls = int(load_cost(folder, cell)["calls"])
    return Candidate(cell.key, cell.level, features,
                     [[rows[key] for key in line] for line in parents], calls)


def _table(choice: Choice, cells: list[Cell]) -> pd.DataFrame:
    """Return one row per candidate, the columns of the CSV."""
    if not choice.scores:
        return pd.DataFrame(columns=_COLUMNS)
    return choice.table().assign(sampler=[cell.sampler for cell in cells])[_COLUMNS]


def _summary(choice: Choice, table: pd.DataFrame) -> dict[str, object]:
    """Return the choice and what is measured of the chosen cell, for the JSON."""
    found = {"chosen": None, "confidence": choice.confidence, "reason": choice.reason,
             "admissible": int(table["admissible"].sum())}
    if choice.chosen is not None:
        row = table[table["chosen"]].iloc[0].to_dict()
        found["chosen"] = {key: row[key] for key in _COLUMNS[:8]} | {"cell": choice.chosen}
    return found
