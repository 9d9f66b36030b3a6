"""The pictures of docs/performance.md, drawn from what benchmarks found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["draw_calls", "draw_growth"]

Found = Mapping[str, Any]
_COLOURS = {"unseen": "C3", "DDIMInverseScheduler": "C1", "DDIMScheduler": "C1",
            "DPMSolverMultistepInverseScheduler": "C2", "DPMSolverMultistepScheduler": "C2",
            "DPMSolverMultistepScheduler, our grid": "C0", "UniPCMultistepScheduler": "C4"}


def draw_calls(found: Found, path: Path) -> None:
    """Draw errors over calls: a row of panels per network and direction, a column per level."""
    panels = [(network, direction) for network in found["networks"] for direction in ("up", "down")]
    levels = sorted({row["level"] for rows in found["networks"].values() for row in rows})
    figure, axes = plt.subplots(len(panels), len(levels), squeeze=False, sharey="row",
                                figsize=(4 * len(levels), 2.8 * len(panels)))
    for line, (network, direction) in zip(axes, panels, strict=True):
        for axis, level in zip(line, levels, strict=True):
            mine = [row for row in found["networks"][network]
                    if (row["level"], row["direction"]) == (level, direction)]
            for way in dict.fromkeys(row["way"] for row in mine):
                points = sorted((row["calls"], row["error"]) for row in mine if row["way"] == way)
                if len(points) == 1:
                    axis.axhline(points[0][1], color="black", ls=":", label=way)
                else:
                    axis.plot(*zip(*points, strict=True), marker=".", label=way,
                              color=_COLOURS.get(way), lw=2 if way == "unseen" else 1)
            axis.set(xscale="log", yscale="log", title=f"{network}, {direction}, level {level}")
            axis.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"])
            axis.set_xticks([], minor=True)
    for axis in axes[-1]:
        axis.set_xlabel("network calls")
    for line in axes:
        line[0].set_ylabel("relative error")
        line[-1].legend(fontsize=6)
    _save(figure, path)


def draw_growth(found: Found, path: Path) -> None:
    """Draw seconds and peak memory over both series."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), sharex="col")
    for column, (name, series) in enumerate(found["series"].items()):
        for stage in series["runs"][0]:
            for axis, key, scale in ((axes[0][column], "seconds", 1),
                                     (axes[1][column], "peak_bytes", 1e9)):
                axis.plot(series["along"], [run[stage][key] / scale for run in series["runs"]],
                          marker=".", label=stage)
                axis.set(xscale="log", yscale="log")
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_formatter("{x:g}")
        axes[1][column].set_xlabel("fit images of 32 x 32" if name == "images"
                                   else "pixels of an image, 100 images")
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("peak memory, GB")
    axes[0][1].legend(fontsize=6)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    """Write a picture and close it."""
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
