"""Stage ``sample``: start states for every level and sampler."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from flows.cells import Cell, each_cell, every_sampler
from flows.fit import load_priors, references_at
from flows.params import load_params
from flows.paths import PATHS
from flows.run import Run
from flows.stage import stage
from unseen_core.rng import Streams
from unseen_core.schedule import load_schedule
from unseen_core.starts import StartContext, StartStates
from unseen_core.store import read_json, read_tensors, write_json, write_with

__all__ = ["load_starts", "sample"]


@stage("sample")
def sample(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Draw the start states of every cell.

    The streams depend on seed, domain and level but not on the sampler, so samplers are
    compared on common random numbers.

    Raises:
        UnseenError: For an unknown sampler or setting, or one that accepts no candidate.
    """
    params = load_params()
    torch.set_num_threads(params.compute.threads)
    samplers, cells = every_sampler(params), list(each_cell(params))
    schedule = load_schedule(PATHS.model(model))
    out = PATHS.starts(model, domain)
    shutil.rmtree(out, ignore_errors=True)
    contexts: dict[int, StartContext] = {}

    def context_at(level: int) -> StartContext:
        if level not in contexts:
            contexts.clear()  # one level in memory at a time
            references, _ = references_at(model, domain, level)
            priors, envelope = load_priors(PATHS.priors(model, domain), level)
            contexts[level] = StartContext(schedule, level, references, priors, envelope,
                                           params.fit.neighbours)
        return contexts[level]

    def draw(cell: Cell) -> dict[str, object]:
        context = context_at(cell.level)
        count = params.sample.count
        if params.samplers[cell.sampler].sampler == "reconstruction":
            count = min(count, len(context.references))
        ids = [f"{i:05d}" for i in range(count)]
        starts = samplers[cell.sampler].draw(
            context, Streams(params.seed, f"{domain}/L{cell.level:04d}", ids))
        write_with(out / f"{cell.key}.safetensors", lambda path: save_file(
            {"x": starts.x.contiguous(), "parents": starts.parents.contiguous()}, path))
        return {"cell": cell.key, "level": cell.level, "eta": starts.eta,
                "proposed": starts.proposed, "acceptance": starts.acceptance,
                "passed": dict(starts.passed)}

    cells.sort(key=lambda cell: cell.level)
    reports = run.map(draw, cells, name=lambda cell: f"{model}/{domain}/{cell.key}")
    write_json(out / "report.json", {"cells": reports})
    return {"cells": len(cells)}


def load_starts(folder: Path, cell: Cell) -> tuple[StartStates, dict[str, object]]:
    """Return a cell's start states and its row of the report.

    Raises:
        UnseenError: If ``sample`` did not write the cell, or its files are damaged.
    """
    tensors = read_tensors(folder / f"{cell.key}.safetensors")
    rows = {row["cell"]: row for row in read_json(folder / "report.json")["cells"]}
    row = rows[cell.key]
    return StartStates(tensors["x"], cell.level, tensors["parents"], int(row["proposed"]),
                       row["passed"], float(row["eta"])), row
