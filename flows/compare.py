"""Stage ``compare``: one table, its plots, the best cell of every domain and the chosen one."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from flows import plots
from flows.cells import REAL, Cell, every_sampler
from flows.extractors import metric_names
from flows.overview import write_overview
from flows.params import Params, load_params
from flows.paths import PATHS
from flows.provenance import read_cells, read_latents
from flows.run import Run
from flows.sampler_table import sampler_table
from flows.stage import stage
from flows.stage_reports import MODEL_STAGES, stage_folder
from flows.summary import summarise, summarise_selections
from flows.tracking import record_invocation
from unseen_core.errors import UnseenError
from unseen_core.store import read_json, write_bytes, write_json

__all__ = ["compare", "judge_selections"]


@stage("compare")
def compare(run: Run) -> dict[str, object]:
    """Write data/report: tables, best.json, mean.json, plots; mirror the cells to MLflow.

    Raises:
        UnseenError: If there are no metrics, or a selection, the analyses or the report of a
            model's stage are missing.
    """
    params = load_params()
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
    PATHS.report.mkdir(parents=True, exist_ok=True)
    table.to_csv(PATHS.report / "compare.csv", index=False, float_format="%.6g")
    _latents(latents).to_csv(PATHS.report / "latents.csv", index=False, float_format="%.6g")
    best = _best(params, table, kernel)
    write_json(PATHS.report / "best.json", best)
    write_json(PATHS.report / "mean.json", _mean(best, kernel))
    judged = judge_selections(selections, table, kernel, params)
    judged.to_csv(PATHS.report / "selection.csv", index=False, float_format="%.6g")
    run.map(lambda draw: draw(table, kernel, params, PATHS.report), plots.ALL,
            name=lambda draw: draw.__name__)
    summary = summarise(table, best, kernel, params) + "\n" + summarise_selections(judged, kernel)
    write_bytes(PATHS.report / "summary.md", summary.encode())
    write_bytes(PATHS.report / "samplers.md", sampler_table(table, kernel, params).encode())
    write_overview(best, params, PATHS.report / "overview.png")
    record_invocation(params.model_dump(), [*cells, *latents], root=PATHS.root.resolve())
    run.log.info("%s", summary)
    return {"rows": len(table), "best": len(best)}


def _table(cells: list[dict[str, object]], kernel: str, frechet: str) -> pd.DataFrame:
    """Return one row per cell, the columns that are compared first.

    The last one, ``distance``, is the first extractor's kernel distance under a name that does
    not change with the extractor, for plots.
    """
    axes = ["model", "domain", "level", "sampler", "n"]
    table = pd.DataFrame([{**{key: cell[key] for key in axes}, **cell["metrics"]}
                          for cell in cells])
    first = [*axes, kernel, f"{kernel}_low", f"{kernel}_high", frechet, "in_target", "novelty",
             "diversity", "acceptance", "calls", "seconds"]
    rest = [name for name in table if name not in first]
    return table[[*first, *rest]].assign(distance=table[kernel])


def _latents(cells: list[dict[str, object]]) -> pd.DataFrame:
    """Return one row per model, domain and level of what ``analyze`` found."""
    axes = ["model", "domain", "level", "n"]
    rows = [{**{key: cell[key] for key in axes}, **cell["metrics"]} for cell in cells]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=axes)


def _best(params: Params, table: pd.DataFrame, kernel: str) -> dict[str, object]:
    """Return, per model and domain, the latent cell of least distance that is new and on target.

    Cells of the frozen network alone; one that was fine-tuned is what they are compared with. A
    cell qualifies with ``compare.in_target``, ``compare.novelty`` and no larger share of copies
    than held-out images have.
    """
    built = every_sampler(params)
    judged = [name for name, sampler in params.samplers.items() if sampler.space == "latents"
              and sampler.network is None and not built[name].control]
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


def _mean(best: Mapping[str, Mapping[str, object]], kernel: str) -> dict[str, float]:
    """Return means over the best cells: the same few figures whatever the domains are."""
    names = {"distance": kernel, "novelty": "novelty", "in_target": "in_target",
             "copies": "copies", "qualify": "qualifies"}
    rows = pd.DataFrame(best.values(), columns=list(names.values())).astype(float)
    return {name: rows[column].mean() for name, column in names.items()} if best else {}


def judge_selections(
    selections: list[Mapping[str, Any]], table: pd.DataFrame, kernel: str, params: Params
) -> pd.DataFrame:
    """Return what held-out images say of the cells that fit images chose.

    The best cell, ``best_...``, is the candidate of least distance to held-out images among those
    that reach ``compare.novelty`` and ``compare.in_target``. It is picked by the very images that
    judge it, so its distance is too small, and the chosen cell's loss too large.

    ``difference`` is chosen - best, and ``ratio`` chosen / best, left empty unless best > 0: the
    estimate is unbiased and may be negative. ``within_10_percent``: difference <= 0.1 |best|.
    ``within_chance``: best lies in the chosen cell's 95 % interval. Where nothing was chosen, or
    no candidate qualifies, its columns are empty and both answers False.

    Args:
        selections: As in data/selection.
        table: As in compare.csv.
        kernel: Name of the kernel distance.
        params: Tells the bounds of ``compare``.

    Returns:
        One row per selection.

    Raises:
        UnseenError: If the chosen cell is not in the table.
    """
    measured = [kernel, f"{kernel}_low", f"{kernel}_high"]
    found = []
    for selection in selections:
        model, domain, chosen = (selection[key] for key in ("model", "domain", "chosen"))
        rows = table[(table["model"] == model) & (table["domain"] == domain)]
        names = [Cell(*place).key for place in zip(rows["level"], rows["sampler"], strict=True)]
        rows = rows.set_axis(names, axis=0)
        good = rows[rows.index.isin(selection["cells"])
                    & (rows["in_target"] >= params.compare.in_target)
                    & (rows["novelty"] >= params.compare.novelty)]
        row: dict[str, object] = {"model": model, "domain": domain}
        if chosen is not None:
            if chosen["cell"] not in rows.index:
                raise UnseenError(f"{PATHS.selection(model, domain, 'json')}: chose "
                                  f"{chosen['cell']}, which has no metrics; run select again")
            row |= rows.loc[chosen["cell"], ["level", "sampler", *measured, "novelty", "copies"]]
            row["confidence"] = selection["confidence"]
        if len(good):
            best = good.loc[good[kernel].idxmin()]
            row |= {f"best_{key}": best[key] for key in ("level", "sampler", *measured)}
        if chosen is not None and len(good):
            row |= _loss(*(row[key] for key in (*measured, f"best_{kernel}")))
        found.append(row)
    columns = ["model", "domain", "level", "sampler", "confidence", *measured, "novelty", "copies",
               "best_level", "best_sampler", *(f"best_{key}" for key in measured), "ratio",
               "difference", "within_10_percent", "within_chance"]
    whole = dict.fromkeys(("level", "best_level"), "Int64") | dict.fromkeys(columns[-2:], "boolean")
    made = pd.DataFrame(found, columns=columns).astype(whole)
    return made.fillna(dict.fromkeys(columns[-2:], False))


def _loss(chosen: float, low: float, high: float, best: float) -> dict[str, object]:
    """Return how much farther the chosen cell is than the best one."""
    return {"ratio": chosen / best if best > 0 else None, "difference": chosen - best,
            "within_10_percent": chosen - best <= 0.1 * abs(best),
            "within_chance": low <= best <= high}
