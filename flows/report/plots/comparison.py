"""The plots of the comparison: plain matplotlib, one function each."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd

from flows.report.plots.training import training
from flows.settings.plan import Plan
from unseen_core.starts import STARTS

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["ALL", "distance_over_level", "front"]

_MODEL_FREE = ("pixel-blend", "pixel-gaussian")
_NEWEST = 2.2  # novelty at the right edge: farther cells do not show the domain


def distance_over_level(table: pd.DataFrame, kernel: str, plan: Plan, folder: Path) -> None:
    """Plot the kernel distance of each sampler against the mixing level, per model and domain."""
    groups = list(table.groupby(["model", "domain"]))
    lowest = min(cell.level for cell in plan.cells if cell.level)
    figure, axes = plt.subplots(1, len(groups), figsize=(4 * len(groups), 3.6), squeeze=False)
    for axis, ((model, domain), rows) in zip(axes[0], groups, strict=True):
        for sampler, line in rows[rows["level"] > 0].groupby("sampler"):
            line = line.sort_values("level")
            axis.plot(line["level"], line[kernel].clip(lower=1e-3), marker="o", label=sampler)
        for name in ("real", *_MODEL_FREE):
            flat = rows[rows["sampler"] == name]
            if len(flat):
                axis.axhline(max(flat[kernel].iloc[0], 1e-3), ls=":", color="grey")
                axis.annotate(name, (lowest, max(flat[kernel].iloc[0], 1e-3)),
                              fontsize=6, color="grey")
        axis.set(title=f"{model} / {domain}", xlabel="mixing level",
                 yscale="log" if rows[kernel].notna().any() else "linear")
    axes[0][0].set_ylabel(f"{kernel} to held-out images")
    _legend_below(figure, axes[0][-1])
    _save(figure, folder / "distance_over_level.png")


def front(table: pd.DataFrame, kernel: str, plan: Plan, folder: Path) -> None:
    """Plot kernel distance against novelty, with the model-free front drawn in.

    Below and to the right is better. The dashed line joins the model-free points that no other
    model-free point beats on both counts.
    """
    names = [name for name, s in plan.samplers.items() if not STARTS[s.sampler].repeats]
    hidden = set(plan.samplers) - set(names)
    groups = list(table[~table["sampler"].isin(hidden)].groupby(["model", "domain"]))
    columns = min(2, len(groups))
    figure, grid = plt.subplots(-(-len(groups) // columns), columns, squeeze=False,
                                figsize=(6.5 * columns, 4.4 * -(-len(groups) // columns)))
    axes = list(grid.flat)
    colours = dict(zip(names, plt.get_cmap("tab20").colors * 3, strict=False))
    for axis, ((model, domain), rows) in zip(axes, groups, strict=False):
        for name in names:
            line = rows[rows["sampler"] == name].sort_values("level")
            free = plan.samplers[name].space == "pixels"
            low = (line[kernel] - line[f"{kernel}_low"]).clip(lower=0)
            high = (line[f"{kernel}_high"] - line[kernel]).clip(lower=0)
            axis.errorbar(line["novelty"], line[kernel], yerr=[low, high], fmt="s" if free else "o",
                          ms=4, lw=0.8, color=colours[name], label=name)
            for _, row in line.iterrows():
                if row["level"] and row["novelty"] < _NEWEST:
                    axis.annotate(int(row["level"]), (row["novelty"], row[kernel]), fontsize=5)
        free = rows[[plan.samplers[s].space == "pixels" if s in plan.samplers else False
                     for s in rows["sampler"]]].sort_values("novelty", ascending=False)
        edge = free[free[kernel] <= free[kernel].cummin()]
        axis.plot(edge["novelty"], edge[kernel], "k--", lw=0.8)
        axis.axvline(1, color="grey", lw=0.5)
        beyond = int((rows["novelty"] >= _NEWEST).sum())
        title = f"{model} / {domain}" + f" ({beyond} cells lie farther right)" * (beyond > 0)
        axis.set(title=title, xlabel="novelty (held-out images: 1)", xlim=(0.5, _NEWEST),
                 ylabel=f"{kernel} to held-out images")
        within = rows[(rows["novelty"] > 0) & (rows["novelty"] < _NEWEST)]
        axis.set_yscale("symlog", linthresh=0.1)
        highest = within[kernel].max()
        axis.set_ylim(-0.1, 1.5 * highest if highest > 0 else 1.0)
    for axis in axes[len(groups):]:
        axis.set_axis_off()
    _legend_below(figure, axes[0])
    _save(figure, folder / "front.png")


ALL: tuple[Callable[[pd.DataFrame, str, Plan, Path], None], ...] = (
    distance_over_level, front, training)


def _legend_below(figure: plt.Figure, axis: plt.Axes) -> None:
    """Put an axis' legend below the figure: a run may have more samplers than an axis has room."""
    figure.legend(*axis.get_legend_handles_labels(), fontsize=6, loc="upper center",
                  bbox_to_anchor=(0.5, 0), ncols=6 if len(figure.axes) > 1 else 3)


def _save(figure: plt.Figure, path: Path) -> None:
    """Write a figure without the time of day, so that equal tables give equal files."""
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
