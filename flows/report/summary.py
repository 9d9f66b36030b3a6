"""The comparison in a few lines of Markdown, for a terminal and for a README."""

from collections.abc import Mapping

import pandas as pd

from flows.settings.cells import REAL
from flows.settings.plan import Plan
from unseen_core.judging.extractors import reported
from unseen_core.starts import STARTS

__all__ = ["summarise", "summarise_selections"]


def summarise(
    table: pd.DataFrame, best: Mapping[str, Mapping[str, object]], kernel: str, plan: Plan
) -> str:
    """Return a Markdown table: per domain the floor, each sampler's closest level, and the best.

    The model-free row is the closest one that is at least as new as the best cell, or, where none
    is, the newest. What is closest is decided by one half of the held-out images; the distances
    in the table are to the other half.

    Args:
        table: As in compare.csv.
        best: As in best.json.
        kernel: Name of the kernel distance.
        plan: Tells which samplers are model-free.
    """
    first, shown_as = f"{kernel}_first", reported(kernel)[0]
    lines = [f"| domain | sampler | level | {shown_as} (95 %) | in target | novelty | copies |",
             "|---|---|---|---|---|---|---|"]
    pixels = {name for name, s in plan.samplers.items() if s.space == "pixels"}
    plain = {name for name, s in plan.samplers.items()
             if STARTS[s.sampler].summarised and s.space == "latents"}
    for name, cell in best.items():
        model, _, domain = name.partition("/")
        rows = table[(table["model"] == model) & (table["domain"] == domain)]
        shown = [("fit images", rows[rows["sampler"] == REAL])]
        shown += [(sampler, group.nsmallest(1, first))
                  for sampler, group in rows[rows["sampler"].isin(plain)].groupby("sampler")]
        chosen = rows[(rows["sampler"] == cell["sampler"]) & (rows["level"] == cell["level"])]
        free = rows[rows["sampler"].isin(pixels)]
        if len(free):
            newer = free[free["novelty"] >= float(str(cell["novelty"]))]
            twin = newer.nsmallest(1, first) if len(newer) else free.nlargest(1, "novelty")
            shown.append((f"{twin['sampler'].iloc[0]}, no model", twin))
        mark = "" if cell["qualifies"] else " (misses a bound)"
        shown.append((f"**{cell['sampler']}**{mark}", chosen))
        lines += [_line(domain, label, row.iloc[0], kernel) for label, row in shown if len(row)]
    return "\n".join(lines) + "\n"


def summarise_selections(judged: pd.DataFrame, kernel: str) -> str:
    """Return a Markdown table: per domain the cell that fit images chose, and the best one.

    Args:
        judged: As in selection.csv.
        kernel: Name of the kernel distance.
    """
    name = reported(kernel)[0]
    lines = [f"| domain | chosen by fit images (confidence) | {name} (95 %) | best candidate | "
             f"{name} |", "|---|---|---|---|---|"]
    for _, row in judged.iterrows():
        chosen, best = ["none", ""], ["none", ""]
        if pd.notna(row["level"]):
            chosen = [f"{row['sampler']}@{row['level']} ({row['confidence']:.2f})",
                      _interval(row, kernel)]
        if pd.notna(row["best_level"]):
            best = [f"{row['best_sampler']}@{row['best_level']}", f"{row[f'best_{name}']:.3f}"]
        lines.append(f"| {' | '.join([row['domain'], *chosen, *best])} |")
    return "\n".join(lines) + "\n"


def _line(domain: str, label: str, row: pd.Series, kernel: str) -> str:
    """Return one row."""
    level = "" if row["level"] == 0 else str(int(row["level"]))
    return (f"| {domain} | {label} | {level} | {_interval(row, kernel)} | {row['in_target']:.2f} | "
            f"{row['novelty']:.2f} | {row['copies']:.2f} |")


def _interval(row: pd.Series, kernel: str) -> str:
    """Return a distance with its interval."""
    value, low, high = (row[name] for name in reported(kernel))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
