"""Stage ``sample``: start states for every level and sampler."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from flows.loading.fitted import load_fitted, references_at
from flows.loading.plan import read_plan
from flows.loading.source_law import load_source, source_file
from flows.loading.starts import _part
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.cells import Cell, load_training
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.rng import Streams
from unseen_core.basics.scheduler_config import load_schedule
from unseen_core.laws.references import References
from unseen_core.starts import StartContext
from unseen_core.store import save_tensors, write_json, write_with

__all__ = ["sample"]


@stage("sample")
def sample(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Draw the start states of every cell, ``sample.part_size`` of them at a time.

    A part is a file ``CELL/part-00000.safetensors`` with ``x`` float32 (rows, c, h, w) and
    ``parents`` int64 (rows, p). Each start state depends on its own number alone, so parts are
    a matter of memory and never of what is drawn. The streams depend on seed, domain and level
    but not on the sampler, so samplers are compared on common random numbers.

    ``report.json`` has a row for every cell, in the order of params.yaml: how it was drawn, and
    what later stages must know of its sampler (see `flows.loading.starts.drawn_cells`).

    Raises:
        UnseenError: If there is no plan, a sampler accepts no candidate, or it starts a
            fine-tuned network at a level that its schedule has not.
    """
    params = load_params()
    torch.set_num_threads(params.compute.threads)
    plan = read_plan(PATHS.plan)
    samplers, cells = plan.built, plan.cells
    schedule = load_schedule(PATHS.model(model))
    out = PATHS.starts(model, domain)
    shutil.rmtree(out, ignore_errors=True)
    contexts: dict[int, StartContext] = {}
    source_file(model)  # missed at once, whichever samplers there are
    lawful = any(samplers[cell.sampler].needs == "law" for cell in cells)
    source = load_source(model) if lawful else None

    @cache
    def images(count: int, shape: tuple[int, ...]) -> References:
        # One object for all levels, read when a sampler asks for it.
        return References(count, shape, lambda rows: pictures().rows(rows))

    @cache
    def pictures() -> References:
        return references_at(model, domain, 0)[0]

    def context_at(level: int) -> StartContext:
        if level not in contexts:
            contexts.clear()  # one level in memory at a time
            fitted = load_fitted(model, domain, level)
            states = fitted.references
            contexts[level] = StartContext(
                schedule, level, states, fitted.priors, fitted.envelope, params.fit.neighbours,
                images(states.count, states.shape), source)
        return contexts[level]

    def draw(cell: Cell) -> dict[str, object]:
        network = plan.samplers[cell.sampler].network
        context = (context_at(cell.level) if network is None
                   else _tuned(context_at(0), cell, PATHS.finetuned(model, domain) / network))
        count, size = params.sample.count, params.sample.part_size
        if samplers[cell.sampler].repeats:
            count = min(count, context.references.count)
        drawn = []
        for part, first in enumerate(range(0, count, size)):
            ids = [f"{i:05d}" for i in range(first, min(first + size, count))]
            starts = samplers[cell.sampler].draw(
                context, Streams(params.seed, f"{domain}/L{cell.level:04d}", ids))
            tensors = {"x": starts.x.contiguous(), "parents": starts.parents.contiguous()}
            write_with(_part(out, cell, part), lambda path, t=tensors: save_tensors(path, t))
            drawn.append(_Drawn(len(ids), starts.proposed, starts.passed, starts.eta))
        return _summary(drawn)

    by_level = sorted(cells, key=lambda cell: cell.level)
    reports = dict(zip(by_level, run.map(
        draw, by_level, name=lambda cell: f"{model}/{domain}/{cell.key}"), strict=True))
    write_json(out / "report.json", {"cells": [
        {"cell": cell.key, "level": cell.level, "sampler": cell.sampler,
         "settings": section.settings(), "space": section.space, "network": section.network,
         "candidate": cell in plan.candidates, "repeats": samplers[cell.sampler].repeats,
         **reports[cell]}
        for cell in cells for section in [plan.samplers[cell.sampler]]]})
    return {"cells": len(cells)}


@dataclass(frozen=True)
class _Drawn:
    """What is reported of a part."""

    count: int
    proposed: int
    passed: Mapping[str, float]
    eta: float


def _summary(parts: Sequence[_Drawn]) -> dict[str, object]:
    """Return what is reported of a cell: shares of all candidates, whatever part they were for."""
    proposed = sum(part.proposed for part in parts)
    passed = {name: sum(part.passed[name] * part.proposed for part in parts) / max(proposed, 1)
              for name in parts[0].passed}
    rows = [part.count for part in parts]
    return {"eta": parts[0].eta, "rows": rows, "proposed": proposed,
            "acceptance": sum(rows) / max(proposed, 1), "passed": passed}


def _tuned(pixels: StartContext, cell: Cell, network: Path) -> StartContext:
    """Return the context of a fine-tuned network: the images of its training, at its own level."""
    pixels.schedule.check_level(cell.level, f"samplers.{cell.sampler}.levels:")
    count = int(load_training(network)["training_images"])
    chosen = References.of(pixels.references.rows(range(count)))
    return replace(pixels, level=cell.level, references=chosen, images=chosen)


