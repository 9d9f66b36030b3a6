"""The figures that stages wrote, a cell at a time."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from flows.loading.reports import read_stages
from flows.settings.paths import Paths
from unseen_core.errors import UnseenError

__all__ = ["LATENTS", "CellReport", "invocation_cells", "read_cells", "read_latents"]

CellReport = Mapping[str, object]
"""One model x domain x level x sampler: those four, ``n``, ``settings``, ``metrics``, ``sheet``.

Or what a stage per model found: see ``flows.loading.reports.read_stages``.
"""

LATENTS = "latents"
"""The sampler of the cells that are analyses."""


def read_cells(folder: Path) -> list[CellReport]:
    """Return every cell of ``<folder>/<model>/<domain>.json``, sorted by path.

    Raises:
        UnseenError: If a file is damaged.
    """
    cells: list[CellReport] = []
    for file in sorted(folder.glob("*/*.json")):
        try:
            cells += json.loads(file.read_text("utf-8"))["cells"]
        except (ValueError, KeyError, TypeError) as error:
            raise UnseenError(f"{file}: damaged ({error}); run evaluate again") from error
    return cells


def read_latents(folder: Path) -> list[CellReport]:
    """Return the analyses of ``<folder>/<model>/<domain>`` as cells of the sampler `LATENTS`.

    One per level, so that the same table and charts show them; their sheet is the analysis' plot.

    Raises:
        UnseenError: If a file is damaged.
    """
    cells: list[CellReport] = []
    for file in sorted(folder.glob("*/*/analysis.json")):
        try:
            report = json.loads(file.read_text("utf-8"))
            axes = {"model": report["model"], "domain": report["domain"]}
            for level, table in report["levels"].items():
                sheet = file.relative_to(folder.parent.parent).with_suffix(".png")
                cells.append({**axes, "level": int(level), "sampler": LATENTS,
                              "n": report["images"], "settings": {}, "metrics": table["figures"],
                              "sheet": sheet.as_posix()})
        except (ValueError, KeyError, TypeError) as error:
            raise UnseenError(f"{file}: damaged ({error}); run analyze again") from error
    return cells


def invocation_cells(root: Path, pairs: Collection[tuple[str, str]]) -> list[CellReport]:
    """Return what an invocation is about: cells, analyses, and what the stages per model found.

    Args:
        root: The workspace.
        pairs: The (model, domain) pairs of its ``pipeline`` section; files of others, left by an
            earlier invocation, are passed over.

    Raises:
        UnseenError: If a file is damaged.
    """
    paths = Paths(root)
    found = [*read_cells(paths.metrics_folder), *read_latents(paths.analyses)]
    mine = [cell for cell in found if (cell["model"], cell["domain"]) in pairs]
    return [*mine, *read_stages(root, {model for model, _ in pairs})]
