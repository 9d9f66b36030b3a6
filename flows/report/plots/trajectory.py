"""One picture of a model's trajectories: measured solid, predicted dashed, a panel a question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import pandas as pd
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor

from unseen_core.basics.sheets import sheet

__all__ = ["plot_strip", "plot_trajectory"]

Report = Mapping[str, Any]
_COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9")


def plot_trajectory(
    report: Report, levels: pd.DataFrame, emergence: pd.DataFrame, gains: pd.DataFrame, file: Path
) -> None:
    """Plot the tables of stage ``trajectory``."""
    figure, axes = plt.subplots(2, 4, figsize=(18, 8))
    inner = levels[(levels["level"] > 0) & (levels["level"] < levels["level"].max())]
    _rotation(axes[0, 0], inner)
    _domains(axes[0, 1], inner, list(report["domains"]))
    _dimension(axes[0, 2], report)
    _emergence(axes[0, 3], emergence, report)
    _gains(axes[1, 0], gains)
    _explained(axes[1, 1], levels[levels["level"] > 0])
    _errors(axes[1, 2], levels[levels["level"] > 0])
    _distance(axes[1, 3], levels, gains)
    for axis in axes.flat:
        axis.legend(fontsize=7, loc="lower right" if axis is axes[1, 0] else "best")
    figure.suptitle(f"{report['model']}: {report['settings']['seeds']} runs from level "
                    f"{report['grid'][-1]} in {len(report['grid']) - 1} calls. Solid: the "
                    f"network; dashed: a Gaussian with {report['law']['modes']} modes of "
                    f"{report['seen']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(file, dpi=90, metadata={"Software": None})
    plt.close(figure)


def plot_strip(measured: Tensor, predicted: Tensor, levels: Sequence[int]) -> Image.Image:
    """Return predicted images over levels: a row of the network's, below it the closed form's.

    Args:
        measured: uint8 (runs, columns, 3, h, w), from noise to images.
        predicted: The same of the closed form.
        levels: All levels of the grid, falling to 0.
    """
    columns = measured.shape[1]
    shown = [levels[i] for i in torch.linspace(0, len(levels) - 1, columns).long().tolist()]
    rows = torch.stack([measured, predicted], 1).flatten(0, 2)
    captions = [f"run {i}, {who}" for i in range(len(measured))
                for who in ("network", "closed form")]
    return sheet(rows, columns=columns, captions=captions,
                 title="predicted image at levels " + ", ".join(map(str, shown)))


def _rotation(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Plot what the rotation and the plane of the ends leave over."""
    for name, colour in (("rotation", "C0"), ("plane", "C1")):
        axis.plot(table["level"], table[name], color=colour, label=f"{name}, 5 to 95 % of runs")
        axis.fill_between(table["level"], table[f"{name}_low"], table[f"{name}_high"],
                          color=colour, alpha=0.2, lw=0)
        axis.plot(table["level"], table[f"{name}_predicted"], color=colour, ls="--")
    axis.set(title="share of |x_k|² off the rotation a x_0 + s x_T,\nand off the plane of x_0, x_T",
             xlabel="level k", ylabel="share", ylim=(0, None))


def _domains(axis: plt.Axes, table: pd.DataFrame, sides: Sequence[str]) -> None:
    """Plot the rotation's residual of inverted images."""
    for side, colour in zip(sides, _COLOURS, strict=False):
        axis.plot(table["level"], table[f"rotation_{side}"], color=colour, label=side)
    axis.set(title="share off the rotation, images carried up", xlabel="level k", ylabel="share",
             ylim=(0, None))


def _dimension(axis: plt.Axes, report: Report) -> None:
    """Plot what is left of the variance after so many axes."""
    for what, colour in (("states", "C0"), ("differences", "C1"), ("noise", "C2")):
        for end, style in (("", "-"), ("_predicted", "--")):
            table = report["dimensions"][f"{what}{end}"]
            left = [max(1 - share, 1e-6) for share in table["explained"]]
            label = f"{what}: {table['dimension']['value']:.1f} axes for 99.9 %" if not end else (
                f"predicted: {table['dimension']['value']:.1f}")
            axis.plot(range(1, len(left) + 1), left, color=colour, ls=style, label=label)
    axis.axhline(1e-3, color="grey", lw=0.5)
    axis.set(title="variance of a trajectory left by principal axes", xlabel="axes",
             ylabel="share left", yscale="log", ylim=(1e-6, 1))


def _emergence(axis: plt.Axes, table: pd.DataFrame, report: Report) -> None:
    """Plot the level at which each mode has half its energy."""
    below, above = (table["measured"] - table["low"]).clip(0), (
        table["high"] - table["measured"]).clip(0)
    axis.errorbar(table["predicted"], table["measured"], [below, above], marker="o", ms=4, ls="",
                  lw=1, label="network, 95 % over runs")
    ends = [0, report["grid"][-1]]
    axis.plot(ends, ends, color="grey", ls="--", label="as predicted")
    order = report["emergence"]["all"].get("rank_correlation")
    text = f"\nrank correlation {order['value']:.3f}" if order else ""
    axis.set(title=f"level at which a mode's energy is half there{text}",
             xlabel="predicted level, sigma² = variance", ylabel="measured level")


def _gains(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Plot the gain of the final image by the level of the perturbation."""
    for (name, rows), colour in zip(table.groupby("direction", sort=False), _COLOURS,
                                    strict=False):
        label = f"{name}, variance {rows['variance'].iloc[0]:.3g}"
        axis.errorbar(rows["level"], rows["measured"],
                      [(rows["measured"] - rows["measured_low"]).clip(0),
                       (rows["measured_high"] - rows["measured"]).clip(0)],
                      color=colour, marker="o", ms=3, lw=1, label=label)
        axis.plot(rows["level"], rows["predicted"], color=colour, ls="--")
    axis.set(title="gain of a perturbation along a mode,\n5 to 95 % of runs",
             xlabel="level of injection", ylabel="change of image / change of state",
             yscale="log", ylim=(2e-4, None))


def _explained(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Plot the explained variance of predicted image and noise."""
    for name, colour in (("gaussian", "C0"), ("mean", "C1"), ("delta", "C2")):
        axis.plot(table["level"], table[f"ev_clean_{name}"], color=colour,
                  label=f"{name}, predicted image")
        axis.fill_between(table["level"], table[f"ev_clean_{name}_low"],
                          table[f"ev_clean_{name}_high"], color=colour, alpha=0.2, lw=0)
        axis.plot(table["level"], table[f"ev_noise_{name}"], color=colour, ls=":", lw=1,
                  label=f"{name}, noise")
    axis.set(title="share of the network's answer explained,\nnoised seen images",
             xlabel="level", ylabel="explained share", ylim=(-0.25, 1.02))


def _errors(axis: plt.Axes, table: pd.DataFrame) -> None:
    """Plot how far closed forms drift from the network's runs."""
    for name, colour in (("gaussian", "C0"), ("mean", "C1"), ("delta", "C2")):
        axis.plot(table["level"], table[f"error_states_{name}"], color=colour,
                  label=f"{name}, state")
        axis.plot(table["level"], table[f"error_clean_{name}"], color=colour, ls=":",
                  label=f"{name}, predicted image")
    axis.set(title="closed forms off the network's runs,\nsame start",
             xlabel="level", ylabel="squared distance / squared length", yscale="log",
             ylim=(1e-5, 10))


def _distance(axis: plt.Axes, table: pd.DataFrame, gains: pd.DataFrame) -> None:
    """Plot how far a predicted image is from the final one, and what a perturbation moves."""
    axis.plot(table["level"], table["distance"], color="C0", label="predicted to final, features")
    axis.fill_between(table["level"], table["distance_low"], table["distance_high"], color="C0",
                      alpha=0.2, lw=0)
    axis.plot(table["level"], table["pixels"], color="C1", label="predicted to final, pixels")
    axis.plot(table["level"], table["pixels_predicted"], color="C1", ls="--")
    moved = gains[gains["direction"] != "off span"].groupby("level")["distance"].mean()
    axis.plot(moved.index, moved, color="C3", marker="o", ms=3,
              label="perturbed to plain, features")
    axis.set(title="distance to the final image\n(features: 1 is that of two final images)",
             xlabel="level", ylabel="relative distance", ylim=(0, None))
