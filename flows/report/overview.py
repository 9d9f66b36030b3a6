"""The picture of a whole run: what was given, what noise becomes, what the best cell makes."""

from collections.abc import Mapping
from pathlib import Path

import torch

from flows.settings.cells import Cell
from flows.settings.paths import PATHS
from flows.settings.plan import Plan
from unseen_core.basics.images import png_bytes
from unseen_core.basics.sheets import sheet
from unseen_core.store import read_pictures, write_bytes

__all__ = ["write_overview"]

_COLUMNS = 18


def write_overview(best: Mapping[str, Mapping[str, object]], plan: Plan, file: Path) -> None:
    """Write one sheet with three rows per model and domain.

    Args:
        best: ``model/domain`` to its best cell, as in best.json.
        plan: Names the sampler of pure noise, whose row is left out where there is none.
        file: The PNG.
    """
    noise = next((name for name, s in plan.samplers.items() if s.sampler == "noise"), None)
    pictures, captions = [], []
    for name, cell in best.items():
        model, _, domain = name.partition("/")
        level, sampler = int(str(cell["level"])), str(cell["sampler"])
        rows = [(PATHS.domain(domain) / "fit.parquet",
                 f"{domain}: some of the images given to {model}, which has seen none like them")]
        folder = PATHS.generated(model, domain)
        if noise is not None:
            levels = [cell.level for cell in plan.cells if cell.sampler == noise]
            at = min(levels, key=lambda k: abs(k - level))
            rows.append((folder / f"{Cell(at, noise).key}.parquet",
                         f"the frozen {model} from noise at level {at}"))
        rows.append((folder / f"{Cell(level, sampler).key}.parquet",
                     f"new {domain}: {sampler} at level {level}"))
        for path, caption in rows:
            images, _ = read_pictures(path)
            short = images[torch.arange(_COLUMNS) % len(images)]
            pictures.append(short)
            captions.append(caption)
    if pictures:
        whole = sheet(torch.cat(pictures), columns=_COLUMNS, captions=captions, scale=2)
        write_bytes(file, png_bytes(whole))
