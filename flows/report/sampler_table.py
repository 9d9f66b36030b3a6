"""Every sampler at every level on every domain, in one Markdown table for a model."""

from collections.abc import Iterator

import pandas as pd

from flows.settings.cells import REAL
from flows.settings.plan import Plan

__all__ = ["sampler_table"]


def sampler_table(table: pd.DataFrame, kernel: str, plan: Plan) -> str:
    """Return a Markdown table per model: a row for each cell, a column for each domain.

    A field is the kernel distance to held-out images with its 95 % interval, then novelty and the
    share in the target domain. Samplers are in the order of params.yaml, fit images first.

    Args:
        table: As in compare.csv.
        kernel: Name of the kernel distance.
        plan: Tells the order of samplers.
    """
    parts = []
    for model, rows in table.groupby("model", sort=False):
        domains = list(dict.fromkeys(rows["domain"]))
        trained = "training_steps" in rows and rows["training_steps"].notna().any()
        head = ["sampler", "level", "network calls", *(["trained"] if trained else []), *domains]
        lines = [head, ["---"] * len(head)]
        for sampler, level, group in _cells(rows, plan):
            calls = group["calls"].max()
            cost = [_training(group)] if trained else []
            by_domain = group.set_index("domain")
            lines.append([
                "fit images" if sampler == REAL else sampler, str(level) if level else "",
                "" if pd.isna(calls) else str(int(calls)), *cost,
                *(_field(by_domain.loc[domain], kernel) if domain in by_domain.index else ""
                  for domain in domains)])
        table_of_model = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{model}**: {kernel} (95 %), novelty, share in the target domain.\n\n"
                     f"{table_of_model}\n")
    return "\n".join(parts)


def _cells(rows: pd.DataFrame, plan: Plan) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """Yield sampler, level and the rows over domains, in the order of the plan."""
    order = {name: place for place, name in enumerate((REAL, *plan.samplers))}
    groups = {key: group for key, group in rows.groupby(["sampler", "level"])}
    for sampler, level in sorted(groups, key=lambda key: (order.get(key[0], len(order)), key[1])):
        yield sampler, int(level), groups[sampler, level]


def _training(group: pd.DataFrame) -> str:
    """Return what the network of a cell was trained with."""
    trained = group.dropna(subset=["training_steps"])
    if not len(trained):
        return "frozen"
    images = sorted({int(count) for count in trained["training_images"]})
    return (f"{int(trained['training_steps'].iloc[0])} steps on "
            f"{' or '.join(map(str, images))} images")


def _field(row: pd.Series, kernel: str) -> str:
    """Return a cell's figures on one domain."""
    return (f"{row[kernel]:.3f} ({row[f'{kernel}_low']:.3f} to {row[f'{kernel}_high']:.3f}), "
            f"{row['novelty']:.2f}, {row['in_target']:.2f}")
