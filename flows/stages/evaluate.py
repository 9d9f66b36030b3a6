"""Stage ``evaluate``: every cell against images that nothing before it has read."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from flows.loading.judge import load_spaces
from flows.loading.starts import DrawnCell, drawn_cells
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.cells import COSTS, REAL, Cell, load_cost
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import png_bytes, with_channels
from unseen_core.basics.sheets import pair_sheet
from unseen_core.judging.features import extract
from unseen_core.judging.judges import DomainJudge, GhostJudge, Metrics, measure
from unseen_core.judging.measures import Judged
from unseen_core.judging.novelty import mean_distance
from unseen_core.store import read_pictures, write_bytes, write_csv, write_frame, write_json

__all__ = ["evaluate"]

_PAIRS = 9  # of each cell, on the sheet of nearest pairs
_TILE = 64  # pixels that a smaller image is enlarged to there


@stage("evaluate")
def evaluate(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Measure every cell of a domain and write JSON, CSV and a Parquet of per-image values.

    Distances are taken by every extractor; the first one also judges novelty, copies, diversity,
    precision, recall and the share of images in the target domain. A sheet shows each cell's
    images that are nearest to a fit image, beside it.

    Raises:
        UnseenError: If an input is missing or damaged.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    draws, seed = params.evaluate.draws, params.seed
    fit_images, fit_frame = read_pictures(PATHS.domain(domain) / "fit.parquet")
    held_out, _ = read_pictures(PATHS.domain(domain) / "held_out.parquet")
    seen, _ = read_pictures(PATHS.model(model) / "seen.parquet")
    fit_images, held_out = (with_channels(x, seen.shape[1]) for x in (fit_images, held_out))
    spaces = load_spaces(params.evaluate.extractors, fit_images, held_out, device)
    ids_of_fit = fit_frame["id"].tolist()
    judge = DomainJudge.of(spaces[0], fit_images, held_out, seen, ids_of_fit)
    ghost_judge = GhostJudge.of(fit_images, held_out, seed)
    spread = mean_distance(spaces[0].held_out)
    generated = PATHS.generated(model, domain)
    drawn = {row.cell: row for row in drawn_cells(PATHS.starts(model, domain))}

    def judge_cell(cell: Cell) -> tuple[dict[str, object], pd.DataFrame]:
        if cell.sampler == REAL:
            images, ids, cost = fit_images, ids_of_fit, {}
        else:
            images, frame = read_pictures(generated / f"{cell.key}.parquet")
            ids, cost = frame["id"].tolist(), load_cost(generated, cell)
        features = [extract(space.extractor, images) for space in spaces]
        metrics: Metrics = {}
        for space, x in zip(spaces, features, strict=True):
            metrics |= space.distances(x, draws, seed)
        said, values = judge.judge(images, features[0])
        haunted, chances = ghost_judge.judge(images, draws, seed)
        measured = measure(Judged(images, fit_images, held_out, features[0], spaces[0].fit,
                                  spaces[0].held_out, spread, draws, seed))
        row = drawn.get(cell)
        metrics |= said | measured | haunted | {"acceptance": row and row.acceptance,
                                     **{name: cost.get(name) for name in COSTS}}
        table = pd.DataFrame({"id": ids, "level": cell.level, "sampler": cell.sampler,
                              **values, **chances})
        return _row(model, domain, cell, row, len(images), metrics), table

    cells = [Cell(0, REAL), *drawn]
    found = run.map(judge_cell, cells, name=lambda cell: f"{model}/{domain}/{cell.key}",
                    workers=workers)
    rows, tables = [row for row, _ in found], [table for _, table in found]
    write_json(PATHS.metrics(model, domain, "json"), {"cells": rows})
    write_frame(PATHS.metrics(model, domain, "parquet"), pd.concat(tables))
    flat = pd.DataFrame([{**{k: row[k] for k in ("level", "sampler", "n")}, **row["metrics"]}
                         for row in rows])
    write_csv(PATHS.metrics(model, domain, "csv"), flat)
    natural = judge.natural
    title = (f"{model} {domain} | beside: nearest fit image by {spaces[0].extractor.name}; "
             f"copies are nearer than {natural.threshold:.3g}, no held-out image is nearer than "
             f"{natural.least:.3g}")
    made = list(zip(cells, tables, strict=True))[1:]
    # What repeats the fit images is near them by intent; it is shown only where nothing else is.
    shown = [(cell, table) for cell, table in made if not drawn[cell].repeats] or made
    nearest = _nearest_pairs(generated, shown, dict(zip(ids_of_fit, fit_images, strict=True)),
                             title)
    write_bytes(PATHS.metrics(model, domain, "png"), png_bytes(nearest))
    return {"cells": len(rows), "held_out": len(held_out)}


def _nearest_pairs(
    generated: Path, shown: Sequence[tuple[Cell, pd.DataFrame]], fit: dict[str, Tensor],
    title: str,
) -> Image.Image:
    """Return a sheet with a row per cell: its images nearest to a fit image, nearest first."""
    columns = min(_PAIRS, *(len(table) for _, table in shown))
    left, right, captions = [], [], []
    for cell, table in shown:
        images, _ = read_pictures(generated / f"{cell.key}.parquet")
        first = table.sort_values("nearest_fit_feature", kind="stable")[:columns]
        left.append(images[first.index.tolist()])
        right += [fit[name] for name in first["nearest_fit_id"]]
        distance = first["nearest_fit_feature"]
        captions.append(f"level {cell.level} {cell.sampler}: distance {distance.iloc[0]:.3g} to "
                        f"{distance.iloc[-1]:.3g}, {table['near_duplicate'].sum()} of {len(table)} "
                        "copies")
    return pair_sheet(torch.cat(left), torch.stack(right), columns=columns, title=title,
                      captions=captions, scale=max(1, _TILE // images.shape[-1]))


def _row(
    model: str, domain: str, cell: Cell, drawn: DrawnCell | None, count: int, metrics: Metrics
) -> dict[str, object]:
    """Return a cell as the metrics file, the table and MLflow have it."""
    settings = dict(drawn.settings) if drawn else {}
    if drawn and drawn.network:
        settings["network"] = drawn.network
    sheet = PATHS.generated(model, domain) / f"{cell.key}.png"
    return {
        "model": model, "domain": domain, "level": cell.level, "sampler": cell.sampler,
        "n": count, "settings": settings, "metrics": metrics,
        "sheet": None if cell.sampler == REAL else sheet.as_posix(),
    }
