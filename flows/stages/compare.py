"""Stage ``compare``: one table, its plots, the best cell of every domain and the chosen one."""

import math

import pandas as pd

from flows.loading.metrics import read_cells, read_latents
from flows.loading.plan import read_plan
from flows.loading.reports import MODEL_STAGES, stage_folder
from flows.mlflow.tracking import record_invocation
from flows.report.choice import best_cells, judge_selections, mean_of_best
from flows.report.overview import write_overview
from flows.report.plots import comparison as plots
from flows.report.sampler_table import sampler_table
from flows.report.summary import summarise, summarise_selections
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import metric_names
from unseen_core.store import read_json, write_bytes, write_csv, write_json

__all__ = ["compare"]


@stage("compare")
def compare(run: Run) -> dict[str, object]:
    """Write data/report: tables, best.json, mean.json, plots; mirror the cells to MLflow.

    Raises:
        UnseenError: If there are no metrics, or a selection, the analyses or the report of a
            model's stage are missing.
    """
    params, plan = load_params(), read_plan(PATHS.plan)
    wanted = {(m, d) for m in params.pipeline.models for d in params.pipeline.domains}
    cells, latents = ([c for c in found if (c["model"], c["domain"]) in wanted] for found in
                      (read_cells(PATHS.metrics_folder), read_latents(PATHS.analyses)))
    if not cells:
        raise UnseenError(f"{PATHS.metrics_folder} holds no metrics; run evaluate first")
    needed = {PATHS.analyses: "analyze"} | {
        stage_folder(PATHS.root, name, model): name
        for model in params.pipeline.models for name in MODEL_STAGES}
    for folder, name in needed.items():
        if not folder.is_dir():
            raise UnseenError(f"{folder} is missing; run {name} first")
    kernel, frechet = metric_names(next(iter(params.evaluate.extractors)))
    table = _table(cells, kernel, frechet)
    selections = [read_json(PATHS.selection(model, domain, "json"))
                  for model, domain in dict.fromkeys(zip(table["model"], table["domain"],
                                                         strict=True))]
    write_csv(PATHS.report / "compare.csv", table)
    write_csv(PATHS.report / "latents.csv", _latents(latents))
    best = best_cells(params, plan, table, kernel)
    write_json(PATHS.report / "best.json", best)
    write_json(PATHS.report / "mean.json", mean_of_best(best, kernel))
    judged = judge_selections(selections, table, kernel, params)
    write_csv(PATHS.report / "selection.csv", judged)
    run.map(lambda draw: draw(table, kernel, plan, PATHS.report), plots.ALL,
            name=lambda draw: draw.__name__)
    summary = summarise(table, best, kernel, plan) + "\n" + summarise_selections(judged, kernel)
    write_bytes(PATHS.report / "summary.md", summary.encode())
    write_bytes(PATHS.report / "samplers.md", sampler_table(table, kernel, plan).encode())
    write_overview(best, plan, PATHS.report / "overview.png")
    record_invocation(params.model_dump(), [*cells, *latents], root=PATHS.root.resolve())
    run.log.info("%s", summary)
    return {"rows": len(table), "best": len(best)}


def _table(cells: list[dict[str, object]], kernel: str, frechet: str) -> pd.DataFrame:
    """Return one row per cell, the columns that are compared first.

    A figure that is infinite, as novelty is where all held-out images are fit images, is missing.
    The last one, ``distance``, is the first extractor's kernel distance under a name that does
    not change with the extractor, for plots.
    """
    axes = ["model", "domain", "level", "sampler", "n"]
    table = pd.DataFrame([{**{key: cell[key] for key in axes}, **cell["metrics"]}
                          for cell in cells]).replace([math.inf, -math.inf], math.nan)
    first = [*axes, kernel, f"{kernel}_low", f"{kernel}_high", frechet, "in_target", "novelty",
             "diversity", "acceptance", "calls"]
    rest = [name for name in table if name not in first]
    return table[[*first, *rest]].assign(distance=table[kernel])


def _latents(cells: list[dict[str, object]]) -> pd.DataFrame:
    """Return one row per model, domain and level of what ``analyze`` found."""
    axes = ["model", "domain", "level", "n"]
    rows = [{**{key: cell[key] for key in axes}, **cell["metrics"]} for cell in cells]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=axes)


