"""Draw the imports between the folders of the code: ``python docs/imports.py [FILE]``.

A row is a layer of pyproject.toml. An arrow that follows from others is left out: where stages
import laws, and laws import errors, none leads from stages to errors. Arrows to one folder share
their way. The drawing goes to docs/imports.svg.
"""

import sys
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import grimp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path as Curve
from scipy.optimize import isotonic_regression

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"flows": "#1f5a99", "unseen_core": "#a8480f"}
BOX, GAP = 1.7, 0.28  # width of a folder's box, and the least distance to what is beside it
SWEEPS = 60

Item = tuple[str, int]
"""A folder and a row: its box in its own row, above that the way of the arrows to it."""


def read_layers(file: Path) -> list[list[str]]:
    """Return the layers of pyproject.toml from the highest to the lowest."""
    settings = tomllib.loads(file.read_text("utf-8"))["tool"]["importlinter"]
    layers = next(one["layers"] for one in settings["contracts"] if one["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def read_imports(rows: Mapping[str, int]) -> dict[str, set[str]]:
    """Return the folders that each folder imports, except what follows from other imports.

    Raises:
        SystemExit: If an import leads from a layer to one that is not below it.
    """
    graph = grimp.build_graph("flows", "unseen_core", cache_dir=None)
    direct = {name: {to for to in rows if to != name and graph.direct_import_exists(
        importer=name, imported=to, as_packages=True)} for name in rows}
    wrong = [f"{name} -> {to}" for name in rows for to in direct[name] if rows[name] >= rows[to]]
    if wrong:
        sys.exit(f"imports that lead up or sideways: {', '.join(wrong)}; run `lint-imports`")
    below: dict[str, set[str]] = {}
    for name in sorted(rows, key=rows.__getitem__, reverse=True):
        below[name] = direct[name].union(*(below[to] for to in direct[name]))
    return {name: {to for to in found if not any(to in below[other] for other in found)}
            for name, found in direct.items()}


def link(imports: Mapping[str, set[str]], rows: Mapping[str, int]) -> dict[Item, set[Item]]:
    """Return what each item leads to in the row below it."""
    links: dict[Item, set[Item]] = {(name, row): set() for name, row in rows.items()}
    for name, found in imports.items():
        for to in found:
            way: list[Item] = [(name, rows[name]),
                               *((to, row) for row in range(rows[name] + 1, rows[to] + 1))]
            for upper, lower in pairwise(way):
                links.setdefault(upper, set()).add(lower)
    return links


def place(links: Mapping[Item, set[Item]], rows: Mapping[str, int]) -> dict[Item, float]:
    """Return where each item lies from left to right, near what it is linked to.

    Rows are sorted by the mean place of their neighbours (Sugiyama et al. 1981, IEEE Transactions
    on Systems, Man and Cybernetics 11, 109-125), then moved there as far as the widths allow.
    """
    above: dict[Item, set[Item]] = {item: set() for item in links}
    for upper, found in links.items():
        for lower in found:
            above[lower].add(upper)
    levels = [sorted(item for item in links if item[1] == row)
              for row in range(max(rows.values()) + 1)]
    x = {item: float(i) for level in levels for i, item in enumerate(level)}
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for level in levels if down else reversed(levels):
            near = {item: sorted((above if down else links)[item]) or sorted(
                (links if down else above)[item]) for item in level}
            wish = {item: float(np.mean([x[other] for other in near[item]])) if near[item]
                    else x[item] for item in level}
            level.sort(key=lambda item: (wish[item], item))
            width = [BOX if rows[name] == row else 0.0 for name, row in level]
            steps = [(a + b) / 2 + GAP for a, b in pairwise(width)]
            offset = np.concatenate([[0.0], np.cumsum(steps)])
            found = isotonic_regression([wish[item] for item in level] - offset).x + offset
            x.update(zip(level, found.tolist(), strict=True))
    return x


def draw(file: Path, layers: Sequence[Sequence[str]]) -> None:
    """Write the drawing as SVG.

    Raises:
        SystemExit: As `read_imports`.
    """
    rows = {name: row for row, layer in enumerate(layers) for name in layer}
    links = link(read_imports(rows), rows)
    x = place(links, rows)
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "imports"}
    figure = Figure(figsize=(9.5, 12), layout="constrained")
    axes = figure.add_subplot()
    for upper, found in sorted(links.items()):
        for lower in sorted(found):
            _arrow(axes, upper, lower, x, rows)
    for name, row in rows.items():
        package, _, folder = name.partition(".")
        axes.text(x[name, row], -row, folder, ha="center", va="center", color="white",
                  bbox={"boxstyle": "round,pad=0.35", "facecolor": COLOURS[package],
                        "edgecolor": "none"}, zorder=3)
    edge = min(x.values()) - BOX / 2
    for package, colour in COLOURS.items():
        inside = [row for name, row in rows.items() if name.startswith(f"{package}.")]
        axes.text(edge, -(min(inside) + max(inside)) / 2, package, color=colour, rotation=90,
                  ha="center", va="center", fontsize=16)
    axes.set(xlim=(edge - 0.3, max(x.values()) + BOX / 2), ylim=(-len(layers) + 0.4, 0.6))
    axes.set_axis_off()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _arrow(
    axes: Axes, upper: Item, lower: Item, x: Mapping[Item, float], rows: Mapping[str, int]
) -> None:
    """Draw a link: from a box or a way down to a way, or to a box with an arrow's head."""
    begins, ends = rows[upper[0]] == upper[1], rows[lower[0]] == lower[1]
    top = -upper[1] - (0.2 if begins else 0)
    bottom = -lower[1] + (0.26 if ends else 0)
    middle = (top + bottom) / 2
    curve = Curve([(x[upper], top), (x[upper], middle), (x[lower], middle), (x[lower], bottom)],
                  [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    axes.add_patch(FancyArrowPatch(
        path=curve, arrowstyle="-|>,head_width=2.5,head_length=5" if ends else "-",
        color=COLOURS[lower[0].partition(".")[0]], alpha=0.75, linewidth=1.1, shrinkA=0, shrinkB=0,
        gid=f"{upper[0]}-{upper[1]}-{lower[0]}"))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/imports.svg",
         read_layers(ROOT / "pyproject.toml"))
