"""One picture of a domain's analysis: plain matplotlib, a panel for each question."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["plot_analysis"]

Table = Mapping[str, Any]


def plot_analysis(report: Table, file: Path) -> None:
    """Plot an analysis as written in analysis.json."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7))
    for axis, draw in zip(axes.flat, (_separability, _bands, _passed, _bandwidth, _round_trips,
                                      _walks), strict=True):
        draw(axis, report)
        axis.legend(fontsize=6)
    figure.suptitle(f"{report['model']} / {report['domain']}: {report['images']} unseen images, "
                    f"{report['seen']} seen", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=90, metadata={"Software": None})
    plt.close(figure)


def _over_levels(report: Table) -> tuple[list[int], list[Table]]:
    """Return levels and their tables."""
    return [int(level) for level in report["levels"]], list(report["levels"].values())


def _separability(axis: plt.Axes, report: Table) -> None:
    """Plot the distance of the centres against the rule d^(1/4)."""
    levels, tables = _over_levels(report)
    for name, label in (("separability", "states"), ("separability bottleneck", "bottleneck")):
        axis.plot(levels, [t[name]["ratio"] for t in tables], marker="o", label=label)
        axis.plot(levels, [t[name]["threshold"] for t in tables], ls=":", label=f"d^1/4, {label}")
    axis.set(title="distance of centres / sd per dimension", xlabel="level")


def _bands(axis: plt.Axes, report: Table) -> None:
    """Plot the fitted variance over the closed form's, per band."""
    levels, tables = _over_levels(report)
    for i, band in enumerate(tables[0]["prior_gap"]["bands"]):
        axis.errorbar(levels, [t["prior_gap"]["bands"][i]["ratio"] for t in tables],
                      [t["prior_gap"]["bands"][i]["sd"] for t in tables], marker="o", lw=1,
                      label=f"frequencies {band['low']:.0f} to {band['high']:.0f}")
    axis.axhline(1, color="grey", lw=0.5)
    axis.set(title="variance: inverted / noised images", xlabel="level")


def _passed(axis: plt.Axes, report: Table) -> None:
    """Plot how many of each kind of state pass the geometry test."""
    levels, tables = _over_levels(report)
    for name in tables[0]["passed"]:
        axis.plot(levels, [t["passed"][name]["joint"]["value"] for t in tables], marker="o",
                  label=name)
    axis.set(title="share inside the geometric envelope", xlabel="level", ylim=(-0.02, 1.02))


def _bandwidth(axis: plt.Axes, report: Table) -> None:
    """Plot the content that is left against eta."""
    levels, tables = _over_levels(report)
    for level, table in zip(levels, tables, strict=True):
        wide = table["bandwidth"]
        axis.plot(wide["etas"], wide["content"]["kept"], marker="o", label=f"level {level}")
    axis.set(title="content kept (cosine) against fresh noise", xlabel="eta")


def _round_trips(axis: plt.Axes, report: Table) -> None:
    """Plot the error of the round trip against calls."""
    for side, rows in report["reconstruction"].items():
        for level in sorted({row["level"] for row in rows}):
            line = [row for row in rows if row["level"] == level]
            axis.plot([row["calls"] for row in line], [row["relative"] for row in line],
                      marker="o", ls="-" if side == "unseen" else ":", label=f"{side}, {level}")
    axis.set(title="relative error of the round trip", xlabel="calls each way", yscale="log",
             xscale="log")


def _walks(axis: plt.Axes, report: Table) -> None:
    """Plot the share in the target domain along paths."""
    for name, walk in report["walks"].items():
        if name != "level":
            places = [i / (len(walk["in_target"]) - 1) for i in range(len(walk["in_target"]))]
            axis.plot(places, walk["in_target"], marker="o", label=name)
    axis.set(title=f"share in target along paths, level {report['walks']['level']}",
             xlabel="place on the path", ylim=(-0.02, 1.02))
