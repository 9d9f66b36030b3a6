"""Stage ``compare``: one table, its plots, and the best cell of every domain."""

import pandas as pd

from flows import plots
from flows.cells import REAL, every_sampler
from flows.extractors import metric_names
from flows.overview import write_overview
from flows.params import Params, load_params
from flows.paths import PATHS
from flows.provenance import read_cells
from flows.run import Run
from flows.stage import stage
from flows.summary import summarise
from flows.tracking import record_invocation
from unseen_core.errors import UnseenError
from unseen_core.starts import Noise, Reconstruction
from unseen_core.store import write_bytes, write_json

__all__ = ["compare"]


@stage("compare")
def compare(run: Run) -> dict[str, object]:
    """Write data/report: compare.csv, best.json, plots; mirror the cells to MLflow.

    Raises:
        UnseenError: If there are no metrics.
    """
    params = load_params()
    wanted = {(m, d) for m in params.pipeline.models for d in params.pipeline.domains}
    cells = [c for c in read_cells(PATHS.metrics_folder) if (c["model"], c["domain"]) in wanted]
    if not cells:
        raise UnseenError(f"{PATHS.metrics_folder} holds no metrics; run evaluate first")
    kernel, frechet = metric_names(next(iter(params.evaluate.extractors)))
    table = _table(cells, kernel, frechet)
    PATHS.report.mkdir(parents=True, exist_ok=True)
    table.to_csv(PATHS.report / "compare.csv", index=False, float_format="%.6g")
    best = _best(params, table, kernel)
    write_json(PATHS.report / "best.json", best)
    run.map(lambda draw: draw(table, kernel, params, PATHS.report), plots.ALL,
            name=lambda draw: draw.__name__)
    summary = summarise(table, best, kernel, params)
    write_bytes(PATHS.report / "summary.md", summary.encode())
    write_overview(best, params, PATHS.report / "overview.png")
    record_invocation(params.model_dump(), cells, root=PATHS.root.resolve())
    run.log.info("%s", summary)
    return {"rows": len(table), "best": len(best)}


def _table(cells: list[dict[str, object]], kernel: str, frechet: str) -> pd.DataFrame:
    """Return one row per cell, the columns that are compared first."""
    axes = ["model", "domain", "level", "sampler", "n"]
    table = pd.DataFrame([{**{key: cell[key] for key in axes}, **cell["metrics"]}
                          for cell in cells])
    first = [*axes, kernel, f"{kernel}_low", f"{kernel}_high", frechet, "in_target", "novelty",
             "diversity", "acceptance", "calls", "seconds"]
    return table[[*first, *(name for name in table if name not in first)]]


def _best(params: Params, table: pd.DataFrame, kernel: str) -> dict[str, object]:
    """Return, per model and domain, the latent cell of least distance that is new and on target.

    A cell qualifies with ``compare.in_target``, ``compare.novelty`` and no larger share of copies
    than held-out images have.
    """
    built = every_sampler(params)
    judged = [name for name, sampler in params.samplers.items() if sampler.space == "latents"
              and not isinstance(built[name], Noise | Reconstruction)]
    best: dict[str, object] = {}
    for (model, domain), rows in table[table["sampler"] != REAL].groupby(["model", "domain"]):
        latent = rows[rows["sampler"].isin(judged)]
        good = latent[(latent["in_target"] >= params.compare.in_target)
                      & (latent["novelty"] >= params.compare.novelty)
                      & (latent["copies"] <= latent["copies_held_out"])]
        pool = good if len(good) else latent
        if len(pool):
            row = pool.loc[pool[kernel].idxmin()].to_dict()  # plain numbers, fit for JSON
            keys = ["level", "sampler", "n", kernel, f"{kernel}_low", f"{kernel}_high",
                    "in_target", "novelty", "copies"]
            best[f"{model}/{domain}"] = {"qualifies": bool(len(good)),
                                         **{key: row[key] for key in keys}}
    return best
