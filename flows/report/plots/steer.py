"""The pictures of ``steer``: closed form dashed, measurement solid; sheets of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch
from PIL import Image
from torch import Tensor

from unseen_core.basics.images import to_uint8
from unseen_core.basics.sheets import sheet

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["colour_sheet", "plot_steer", "variation_sheet"]

Table = Mapping[str, Any]
_COLUMNS = 12
_SMALL = {"kernel": 0.01, "frechet": 0.1}  # differences below are drawn to scale, others by log
_GRID_TILE, _FOUND_TILE = 64, 96  # pixels that smaller images are enlarged to
_JUMPS = {"law": "closed form of the learnt law", "mean": "of its mean alone",
          "none": "no jump: noise put at the level"}
_CHANNELS = {"0": "tab:red", "1": "tab:green", "2": "tab:blue", "all": "black"}


def plot_steer(report: Table, file: Path) -> None:
    """Plot a report as written in steer.json."""
    figure, axes = plt.subplots(2, 4, figsize=(17, 7.4))
    _difference(axes[0, 0], report, "kernel")
    _difference(axes[0, 1], report, "frechet")
    _error(axes[0, 2], report)
    _searches(axes[0, 3], report)
    for axis, name, what in ((axes[1, 0], "colour", "mean of a channel"),
                             (axes[1, 1], "gradient", "gradient across")):
        _control(axis, report["controls"][name], name, what)
    _spread(axes[1, 2], report)
    _distance(axes[1, 3], report)
    for axis in axes.flat:
        axis.title.set_fontsize(9)
        axis.legend(fontsize=6)
    rows = report["teleport"]["rows"]
    figure.suptitle(f"{report['model']}: {rows[0]['n']} images a run, {rows[0]['held_out']} held "
                    f"out of {report['seen']}; dashed: closed form", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=90, metadata={"Software": None})
    plt.close(figure)


def colour_sheet(wanted: Tensor, images: Sequence[Tensor], levels: Sequence[int]) -> Image.Image:
    """Return a sheet whose first row shows the colours that were set, the others levels.

    Args:
        wanted: Channel means in [-1, 1], (n, 3).
        images: For each level, uint8 (n, 3, h, w), from the same noise.
        levels: One for each entry of ``images``.
    """
    columns = min(_COLUMNS, len(wanted))
    flat = to_uint8(wanted[:columns, :, None, None].expand(-1, -1, *images[0].shape[2:]))
    return sheet(torch.cat([flat, *(x[:columns] for x in images)]), columns=columns,
                 scale=_scale(flat, _GRID_TILE),
                 captions=["colour that is set", *(f"set at level {level}" for level in levels)])


def variation_sheet(
    names: Sequence[str], grids: Sequence[Sequence[Tensor]], found: Sequence[Tensor]
) -> Image.Image:
    """Return grids of variations: along trajectories, below along random directions, then searches.

    Args:
        names: Of the subjects.
        grids: Both grids of each subject, (points * points, 3, h, w) in [-1, 1].
        found: Of the first subjects: image, target, and what was found along the trajectory's
            directions and along random ones, (4, 3, h, w) in [-1, 1].
    """
    columns = [[sheet(to_uint8(grid), columns=round(len(grid) ** 0.5),
                      scale=_scale(grid, _GRID_TILE), title=f"{name}: {kind}")
                for kind, grid in zip(("along its trajectory", "along random directions"), pair,
                                      strict=True)]
               for name, pair in zip(names, grids, strict=True)]
    for column, images in zip(columns, found, strict=False):
        column.append(sheet(to_uint8(images), columns=len(images),
                            scale=_scale(images, _FOUND_TILE),
                            title="image, target, found: trajectory, random"))
    width = max(picture.size[0] for column in columns for picture in column)
    height = max(sum(picture.size[1] for picture in column) for column in columns)
    whole = Image.new("RGB", (width * len(columns), height))
    for place, column in enumerate(columns):
        top = 0
        for picture in column:
            whole.paste(picture, (place * width, top))
            top += picture.size[1]
    return whole


def _scale(images: Tensor, tile: int) -> int:
    """Return the whole factor that makes images about as large as a tile."""
    return max(1, tile // images.shape[-1])


def _lines(report: Table) -> list[tuple[str, list[Table]]]:
    """Return the rows of each jump that has any, by share saved."""
    rows = sorted(report["teleport"]["rows"], key=lambda row: row["saved_share"])
    return [(label, line) for jump, label in _JUMPS.items()
            if (line := [row for row in rows if row["jump"] == jump])]


def _difference(axis: plt.Axes, report: Table, name: str) -> None:
    """Plot what a distance gains by skipping calls, with its paired interval."""
    for label, rows in _lines(report):
        key = f"{name}_difference"
        values = [row[key] for row in rows]
        ends = [[row[key] - row[f"{key}_low"] for row in rows],
                [row[f"{key}_high"] - row[key] for row in rows]]
        axis.errorbar([row["saved_share"] for row in rows], values,
                      [[max(0.0, end) for end in side] for side in ends], marker="o", lw=1,
                      capsize=2, label=label)
    axis.axhline(0, color="grey", lw=0.5)
    axis.set(title=f"{name} distance less that of the whole run", xlabel="share of calls saved",
             ylabel="paired difference, 95 %")
    axis.set_yscale("symlog", linthresh=_SMALL[name])


def _error(axis: plt.Axes, report: Table) -> None:
    """Plot the error of the images, with its quartiles."""
    for label, rows in _lines(report):
        rows = [row for row in rows if row["saved"]]
        shares = [row["saved_share"] for row in rows]
        axis.plot(shares, [row["relative_error"] for row in rows], marker="o", label=label)
        axis.fill_between(shares, [row["relative_error_q25"] for row in rows],
                          [row["relative_error_q75"] for row in rows], alpha=0.2)
    axis.set(title="images against the whole run's", xlabel="share of calls saved",
             ylabel="relative error, quartiles", yscale="log")


def _control(axis: plt.Axes, control: Table, name: str, what: str) -> None:
    """Plot slope per channel and pooled R² over levels, measured and predicted."""
    for channel, colour in _CHANNELS.items():
        rows = [row for row in control["rows"] if row["channel"] == channel]
        levels, label = [row["level"] for row in rows], channel if channel == "all" else None
        if label:
            axis.errorbar(levels, [row["slope"] for row in rows],
                          [[row["slope"] - row["slope_low"] for row in rows],
                           [row["slope_high"] - row["slope"] for row in rows]],
                          color=colour, marker="o", lw=1, capsize=2, label="slope")
            axis.plot(levels, [row["r2"] for row in rows], color="tab:orange", marker="s", lw=1,
                      label="R²")
            axis.plot(levels, [row["predicted_r2"] for row in rows], color="tab:orange", ls="--",
                      lw=1)
        else:
            axis.plot(levels, [row["slope"] for row in rows], color=colour, marker=".", lw=0.5)
        axis.plot(levels, [row["predicted_slope"] for row in rows], color=colour, ls="--",
                  lw=1 if label else 0.5)
    axis.axhline(0.95, color="grey", lw=0.5, ls=":")
    good = control["highest_good_level"]
    axis.set(title=f"control: {name}; best at {control['best_level']}, R² >= 0.95 up to {good}",
             xlabel="level", ylabel=f"{what}: found against set")


def _spread(axis: plt.Axes, report: Table) -> None:
    """Plot the spread of colours from pure noise over levels."""
    rows = report["spread"]
    levels, values = [row["level"] for row in rows], [row["sd_ratio"] for row in rows]
    axis.errorbar(levels, values, [[row["sd_ratio"] - row["sd_ratio_low"] for row in rows],
                                   [row["sd_ratio_high"] - row["sd_ratio"] for row in rows]],
                  marker="o", lw=1, capsize=2, color="black", label="sd of channel means / real")
    axis.plot(levels, [row["predicted_sd_ratio"] for row in rows], color="black", ls="--", lw=1)
    axis.plot(levels, [row["shift"] for row in rows], color="tab:purple", marker="s", lw=1,
              label="shift of their mean")
    axis.plot(levels, [row["predicted_shift"] for row in rows], color="tab:purple", ls="--", lw=1)
    axis.axhline(1, color="grey", lw=0.5)
    axis.set(title="colours from N(0, I) put at a level", xlabel="level")


def _distance(axis: plt.Axes, report: Table) -> None:
    """Plot how far images with set amplitudes are from the network's own domain."""
    for name, control in report["controls"].items():
        rows = [row for row in control["rows"] if row["channel"] == "all"]
        axis.errorbar([row["level"] for row in rows], [row["kernel"] for row in rows],
                      [[max(0.0, row["kernel"] - row["kernel_low"]) for row in rows],
                       [max(0.0, row["kernel_high"] - row["kernel"]) for row in rows]],
                      marker="o", lw=1, capsize=2, label=name)
    axis.axhline(0, color="grey", lw=0.5)
    axis.set(title="images with set amplitudes against held-out ones", xlabel="level",
             ylabel=report["kernel"])


def _searches(axis: plt.Axes, report: Table) -> None:
    """Plot the distance to the target over the rounds of the search."""
    for row in report["search"]:
        axis.plot(range(len(row["path"])), [value / row["path"][0] for value in row["path"]],
                  marker="o", ls="-" if row["directions"] == "trajectory" else ":",
                  label=f"{row['subject']}, {row['count']} {row['directions']} directions")
    level = report["search"][0]["level"]
    axis.set(title=f"search at level {level}: distance left to the target", xlabel="round",
             ylim=(0, 1.05))
