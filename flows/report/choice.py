"""The best cell of every domain, and what held-out images say of the chosen one."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from flows.settings.cells import REAL, Cell
from flows.settings.params import Params
from flows.settings.paths import PATHS
from flows.settings.plan import Plan
from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import reported

__all__ = ["best_cells", "judge_selections", "mean_of_best", "qualified"]


def qualified(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Return the rows of compare.csv that are in the target domain, new, and copy no more.

    The bounds are ``compare.in_target``, ``compare.novelty``, and the share of copies among
    held-out images.
    """
    bounds = params.compare
    return rows[(rows["in_target"] >= bounds.in_target) & (rows["novelty"] >= bounds.novelty)
                & (rows["copies"] <= rows["copies_held_out"])]


def best_cells(params: Params, plan: Plan, table: pd.DataFrame, kernel: str) -> dict[str, object]:
    """Return, per model and domain, the `qualified` latent cell of least distance.

    Of least distance to one half of the held-out images; the distance that is reported is the one
    to the other half. Cells of the frozen network alone; one that was fine-tuned is what they are
    compared with. Where none qualifies, it is the closest of all. A domain whose cells have no
    distances has none.
    """
    judged = [name for name, sampler in plan.samplers.items() if sampler.space == "latents"
              and sampler.network is None and not plan.built[name].control]
    best: dict[str, object] = {}
    for (model, domain), rows in table[table["sampler"] != REAL].groupby(["model", "domain"]):
        latent = rows[rows["sampler"].isin(judged) & rows[f"{kernel}_first"].notna()]
        good = qualified(latent, params)
        pool = good if len(good) else latent
        if len(pool):
            # As a dict it holds plain numbers, fit for JSON.
            row = pool.loc[pool[f"{kernel}_first"].idxmin()].to_dict()
            keys = ["level", "sampler", "n", *reported(kernel), "in_target", "novelty", "copies"]
            best[f"{model}/{domain}"] = {"qualifies": bool(len(good)),
                                         **{key: row[key] for key in keys}}
    return best


def mean_of_best(best: Mapping[str, Mapping[str, object]], kernel: str) -> dict[str, float]:
    """Return means over the best cells: the same few figures whatever the domains are."""
    names = {"distance": reported(kernel)[0], "novelty": "novelty", "in_target": "in_target",
             "copies": "copies", "qualify": "qualifies"}
    rows = pd.DataFrame(best.values(), columns=list(names.values())).astype(float)
    return {name: rows[column].mean() for name, column in names.items()} if best else {}


def judge_selections(
    selections: list[Mapping[str, Any]], table: pd.DataFrame, kernel: str, params: Params
) -> pd.DataFrame:
    """Return what held-out images say of the cells that fit images chose.

    The best cell, ``best_...``, is the candidate of least distance to one half of the held-out
    images among those that reach ``compare.novelty`` and ``compare.in_target``. The other half
    judges both cells.

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
    measured = reported(kernel)
    found = []
    for selection in selections:
        model, domain, chosen = (selection[key] for key in ("model", "domain", "chosen"))
        rows = table[(table["model"] == model) & (table["domain"] == domain)]
        names = [Cell(*place).key for place in zip(rows["level"], rows["sampler"], strict=True)]
        rows = rows.set_axis(names, axis=0)
        good = rows[rows.index.isin(selection["cells"]) & rows[f"{kernel}_first"].notna()
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
            best = good.loc[good[f"{kernel}_first"].idxmin()]
            row |= {f"best_{key}": best[key] for key in ("level", "sampler", *measured)}
        if chosen is not None and len(good):
            row |= _loss(*(row[key] for key in (*measured, f"best_{measured[0]}")))
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
