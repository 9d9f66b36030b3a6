"""The picture of a selection: the criterion over levels, the chosen cell marked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["plot_selection"]

_LINEAR = 0.1  # the criterion is near 0, and may be below it, where a cell is good
_TICKS = (-0.1, 0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_SPACE = 0.012  # between the samplers' points at one level, as a share of the span of levels


def plot_selection(table: pd.DataFrame, report: Mapping[str, Any], file: Path) -> None:
    """Plot the criterion with its 95 % interval over levels, one line per sampler.

    Hollow points miss a threshold; a ring marks the chosen cell.

    Args:
        table: As in the stage's CSV; may have no rows.
        report: As in the stage's JSON.
        file: The PNG.
    """
    figure, axis = plt.subplots(figsize=(6.5, 4.2))
    groups = list(table.groupby("sampler", sort=False))
    step = _SPACE * max(float(table["level"].max() - table["level"].min()), 100) if groups else 0
    for i, (sampler, line) in enumerate(groups):
        line = line.sort_values("level")
        x = line["level"] + step * (i - (len(groups) - 1) / 2)
        low = (line["criterion"] - line["low"]).clip(lower=0)
        high = (line["high"] - line["criterion"]).clip(lower=0)
        drawn = axis.errorbar(x, line["criterion"], yerr=[low, high], marker="o", ms=4, lw=0.8,
                              label=sampler)
        poor = ~line["admissible"].astype(bool)
        axis.plot(x[poor], line["criterion"][poor], "o", ms=4, mfc="white",
                  color=drawn[0].get_color())
        chosen = line["chosen"].astype(bool)
        axis.plot(x[chosen], line["criterion"][chosen], "o", ms=13, mfc="none", color="black")
    if groups:
        axis.set_xticks(sorted(table["level"].unique()))
        axis.legend(fontsize=6)
    axis.axhline(0, color="grey", lw=0.5)
    axis.set_yscale("symlog", linthresh=_LINEAR, linscale=0.4)
    axis.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    if groups:
        axis.set_ylim(min(-_LINEAR / 2, table["low"].min()), 1.2 * max(table["high"].max(), 0.2))
    chosen = report["chosen"]
    said = "none chosen" if chosen is None else (
        f"{chosen['sampler']} at level {chosen['level']}, confidence {report['confidence']:.2f}")
    axis.set_title(f"{report['model']} / {report['domain']}: {said}", fontsize=9)
    axis.set(xlabel="mixing level",
             ylabel=f"kernel distance to other fit images ({report['extractor']})")
    figure.tight_layout()
    figure.savefig(file, dpi=90, metadata={"Software": None})
    plt.close(figure)
