"""What fine-tuning buys: distance and forgetting against steps and images of training."""

from pathlib import Path

import matplotlib
import pandas as pd

from flows.settings.paths import PATHS
from flows.settings.plan import Plan
from unseen_core.judging.extractors import reported
from unseen_core.store import read_json, write_csv

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["training"]

_AXES = ["model", "domain", "sampler", "level", "network", "noise", "images", "steps"]
_SETTINGS = ["batch", "learning_rate", "warmup", "clip", "seed", "loss"]
_FORGETTING = ["forgetting", "forgetting_low", "forgetting_high", "forgetting_untuned"]


def training(table: pd.DataFrame, kernel: str, plan: Plan, folder: Path) -> None:
    """Write training/training.csv, a row per cell of a fine-tuned network, and a plot of them.

    Without such cells the table is a heading, and there is no plot.

    Args:
        table: As in compare.csv.
        kernel: Name of the kernel distance.
        plan: Tells which samplers start a fine-tuned network.
        folder: Where best.json lies; the folder ``training`` is made in it.
    """
    out = folder / "training"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    measured = ["n", "calls", f"{kernel}_first", *reported(kernel), "novelty", "copies",
                "in_target", "diversity"]
    rows = [_row(cell, plan, measured) for _, cell in table.iterrows()
            if _network(cell["sampler"], plan)]
    found = pd.DataFrame(rows, columns=[*_AXES, *_SETTINGS, *measured, *_FORGETTING])
    found = found.sort_values(_AXES[:2] + _AXES[5:], kind="stable")
    write_csv(out / "training.csv", found)
    if rows:
        _plot(found, table, kernel, plan, folder)


def _network(sampler: str, plan: Plan) -> str | None:
    """Return the fine-tuned network that a sampler starts."""
    return plan.samplers[sampler].network if sampler in plan.samplers else None


def _row(cell: pd.Series, plan: Plan, measured: list[str]) -> dict[str, object]:
    """Return a cell's measurements beside how its network was trained."""
    network = _network(cell["sampler"], plan)
    report = read_json(PATHS.finetuned(cell["model"], cell["domain"]) / "report.json")
    trained = {row["network"]: row for row in report["networks"]}[network]
    return {**{key: cell[key] for key in ("model", "domain", "sampler", "level", *measured)},
            **{key: trained[key] for key in (*_AXES[4:], *_SETTINGS, *_FORGETTING[:-1])},
            "forgetting_untuned": report["untuned"]["forgetting"]}


def _plot(
    found: pd.DataFrame, table: pd.DataFrame, kernel: str, plan: Plan, folder: Path
) -> None:
    """Plot the kernel distance over steps: a panel per domain, a curve per noise and images."""
    best = read_json(folder / "best.json")
    value, lowest, highest = reported(kernel)
    groups = list(found.groupby(["model", "domain"], sort=False))
    figure, axes = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 3.8), squeeze=False)
    for axis, ((model, domain), rows) in zip(axes[0], groups, strict=True):
        for (noise, images), line in rows.groupby(["noise", "images"]):
            low = (line[value] - line[lowest]).clip(lower=0)
            high = (line[highest] - line[value]).clip(lower=0)
            axis.errorbar(line["steps"], line[value], yerr=[low, high], marker="o", capsize=2,
                          ls="-" if noise == "style" else "--", label=f"{noise}, {images} images")
        here = table[(table["model"] == model) & (table["domain"] == domain)]
        frozen = here[here["sampler"].map(lambda name: _is_frozen_style(name, plan))
                      & here[f"{kernel}_first"].notna()]
        if f"{model}/{domain}" in best:
            chosen = best[f"{model}/{domain}"]
            axis.axhline(chosen[value], color="black", ls=":",
                         label=f"frozen: {chosen['sampler']}, level {chosen['level']}")
        if len(frozen):
            nearest = frozen.loc[frozen[f"{kernel}_first"].idxmin()]
            axis.axhline(nearest[value], color="grey", ls=":", label="frozen: style noise")
        axis.set(title=f"{model} / {domain}", xlabel="steps of training", xscale="log",
                 xticks=sorted(set(rows["steps"])), xticklabels=sorted(set(rows["steps"])))
        axis.minorticks_off()
        axis.set_yscale("symlog", linthresh=0.1)
        axis.legend(fontsize=6)
    axes[0][0].set_ylabel(f"{value} to held-out images")
    figure.tight_layout()
    # Without the time of day, so that equal tables give equal files.
    figure.savefig(folder / "training/training.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def _is_frozen_style(name: str, plan: Plan) -> bool:
    """Say whether a sampler starts the frozen network from style noise."""
    sampler = plan.samplers.get(name)
    return sampler is not None and sampler.sampler == "style-noise" and sampler.network is None
