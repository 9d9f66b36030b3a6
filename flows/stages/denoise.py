"""Stage ``denoise``: start states become images, contact sheets and provenance."""

from dataclasses import dataclass
from time import perf_counter

import pandas as pd
import torch

from flows.loading.frozen import load_frozen, load_tuned
from flows.loading.grid import grid_of
from flows.loading.seconds import record_seconds
from flows.loading.starts import drawn_cells, load_starts, rows_of_parts
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.cells import Cell, load_training
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import png_bytes, to_uint8, with_channels
from unseen_core.basics.rng import Streams
from unseen_core.basics.sheets import pair_sheet
from unseen_core.basics.states import StartStates
from unseen_core.diffusion.batch import naming_memory
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.judging.novelty import nearest_pictures
from unseen_core.starts import build_sampler, denoise_starts
from unseen_core.store import (
    read_pictures,
    read_tensors,
    save_tensors,
    write_bytes,
    write_json,
    write_pictures,
)

__all__ = ["denoise"]

_SHEET = 32  # pictures on a contact sheet, each beside its nearest fit image


@dataclass(frozen=True)
class _Part:
    """Some of a cell's start states: what is denoised at once, and survives a kill."""

    cell: Cell
    number: int
    rows: range

    @property
    def key(self) -> str:
        """Its name in the scratch folder and in logs."""
        return f"{self.cell.key}/part-{self.number:05d}"


@stage("denoise")
def denoise(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Denoise every cell's start states; a part of a cell survives a kill.

    Raises:
        UnseenError: If an input is missing, or memory is too small for ``denoise.batch``.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    starts = PATHS.starts(model, domain)
    drawn = drawn_cells(starts)
    cells = {cell: [_Part(cell, *part) for part in enumerate(rows_of_parts(starts, cell))]
             for cell in (row.cell for row in drawn)}
    pictures = PATHS.domain(domain) / "fit.parquet"
    fit_images, fit_frame = read_pictures(pictures)
    fit_ids = fit_frame["id"].tolist()
    opened = load_frozen(model, device=device, precision=params.denoise.precision,
                         batch=params.denoise.batch)
    network, batch = opened.network, opened.batch
    fit_images = with_channels(fit_images, opened.channels)
    samplers = {row.cell: build_sampler(row.cell.sampler, row.settings) for row in drawn}
    clean = opened.states_of(fit_images)
    grid = grid_of(network, params)
    tuned = {row.cell: row.network for row in drawn if row.network}
    folders = {cell: PATHS.finetuned(model, domain) / name for cell, name in tuned.items()}
    inputs = [starts, pictures, *PATHS.network(model), *sorted({*folders.values()})]
    settings = {"cells": f"{model}/{domain}", "grid": list(grid), "seed": params.seed,
                "denoise": {**params.denoise.model_dump(), "batch": batch},
                "method": params.solver.method}
    work, _ = scratch("denoise", inputs, settings, device)

    def network_of(cell: Cell) -> UNetEps:
        if cell not in tuned:
            return network
        return load_tuned(model, domain, tuned[cell], device=device,
                          precision=params.denoise.precision)

    def levels_of(cell: Cell) -> tuple[int, ...]:
        if cell not in tuned:
            return grid[: grid.index(cell.level) + 1]
        return network.schedule.grid(params.solver.steps, cell.level,
                                     spacing=params.solver.spacing)

    def carry(eps: UNetEps, levels: tuple[int, ...], cell: Cell, states: StartStates,
              ids: list[str]) -> torch.Tensor:
        streams = Streams(params.seed, f"{domain}/{cell.key}/denoise", ids)
        images = []
        for i in range(0, len(ids), batch):
            rows = slice(i, i + batch)
            down = denoise_starts(samplers[cell], eps, states.rows(rows, device), levels,
                                  images=clean, streams=streams[rows],
                                  method=params.solver.method)
            if cell.level > 0:  # level 0 is pixel space
                down = opened.codec.decode(down)
            images.append(to_uint8(down.cpu()))
        return torch.cat(images)

    def ids_of(cell: Cell, rows: range) -> list[str]:
        return [f"{domain}-{cell.key}-{i:05d}" for i in rows]

    def make(part: _Part) -> None:
        if work.has(f"{part.key}.safetensors"):
            return
        states = load_starts(starts, part.cell, part.number)
        eps, levels = network_of(part.cell), levels_of(part.cell)
        began = perf_counter()
        with naming_memory("denoise.batch", batch):
            images = carry(eps, levels, part.cell, states, ids_of(part.cell, part.rows))
        seconds = torch.tensor(perf_counter() - began, dtype=torch.float64)
        work.add(f"{part.key}.safetensors", lambda path: save_tensors(
            path, {"images": images, "parents": states.parents, "seconds": seconds}))

    def gather(cell: Cell) -> None:
        if all(work.has(f"{cell.key}.{ending}") for ending in ("parquet", "png", "json")):
            return
        parts = [read_tensors(work.path(f"{part.key}.safetensors")) for part in cells[cell]]
        images, parents = (torch.cat([part[name] for part in parts])
                           for name in ("images", "parents"))
        distance, closest = nearest_pictures(images, fit_images)
        frame = pd.DataFrame({
            "id": ids_of(cell, range(len(images))), "model": model, "domain": domain,
            "level": cell.level, "sampler": cell.sampler, "seed": params.seed,
            "parents": [",".join(fit_ids[i] for i in row) for row in parents.tolist()],
            "nearest_fit": [fit_ids[i] for i in closest.tolist()],
            "nearest_distance": distance.tolist(),
        })
        title = f"{model} {domain} level {cell.level} {cell.sampler} | beside: nearest fit image"
        sheet = pair_sheet(images[:_SHEET], fit_images[closest[:_SHEET]], columns=8, title=title)
        work.add(f"{cell.key}.parquet", lambda path: write_pictures(path, images, frame))
        work.add(f"{cell.key}.png", lambda path: write_bytes(path, png_bytes(sheet)))
        cost = load_training(folders[cell]) if cell in folders else {}
        work.add(f"{cell.key}.json", lambda path: write_json(path, {
            "calls": len(levels_of(cell)) - 1, "images": len(images), **cost}))

    with work:
        run.map(make, [part for parts in cells.values() for part in parts],
                name=lambda part: f"{model}/{domain}/{part.key}", workers=workers)
        run.map(gather, list(cells), name=lambda cell: f"{model}/{domain}/{cell.key}")
        record_seconds(PATHS.root, model, domain, "denoise", {
            cell.key: sum(read_tensors(work.path(f"{part.key}.safetensors"))["seconds"].item()
                          for part in parts) for cell, parts in cells.items()})
        names = [f"{cell.key}.{end}" for cell in cells for end in ("parquet", "png", "json")]
        work.publish(PATHS.generated(model, domain), names,
                     {"grid": list(grid), "batch": batch, "weights": opened.weights})
    return {"cells": len(cells)}
