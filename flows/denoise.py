"""Stage ``denoise``: start states become images, contact sheets and provenance."""

from time import perf_counter

import pandas as pd
import torch

from flows.cells import Cell, each_cell
from flows.cores import share_cores
from flows.frozen import load_frozen
from flows.invert import grid_of
from flows.params import load_params
from flows.paths import PATHS
from flows.resume import scratch
from flows.run import Run
from flows.sample import load_starts
from flows.stage import stage
from unseen_core.device import pick_device
from unseen_core.images import pair_sheet, png_bytes, to_uint8
from unseen_core.novelty import nearest
from unseen_core.rng import Streams
from unseen_core.starts import StartStates
from unseen_core.store import read_pictures, write_bytes, write_json, write_pictures
from unseen_core.transport import ancestral
from unseen_core.transport import denoise as carry_down

__all__ = ["denoise"]

_SHEET = 32  # pictures on a contact sheet, each beside its nearest fit image


@stage("denoise")
def denoise(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Denoise every cell's start states; a cell is a part that survives a kill.

    Raises:
        UnseenError: If an input is missing.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    cells = list(each_cell(params))
    starts = PATHS.starts(model, domain)
    pictures = PATHS.domain(domain) / "fit.parquet"
    fit_images, fit_frame = read_pictures(pictures)
    fit_ids = fit_frame["id"].tolist()
    network, weights = load_frozen(model, device=device, precision=params.denoise.precision)
    grid = grid_of(network, params)
    settings = {"cells": f"{model}/{domain}", "denoise": params.denoise.model_dump(),
                "grid": list(grid), "seed": params.seed, "method": params.solver.method}
    work, _ = scratch("denoise", [starts, pictures, *PATHS.network(model)], settings, device)

    def carry(states: StartStates, purpose: str, ids: list[str]) -> torch.Tensor:
        part = grid[: grid.index(states.level) + 1]
        streams = Streams(params.seed, purpose, ids)
        images = []
        for i in range(0, len(ids), params.denoise.batch):
            x = states.x[i : i + params.denoise.batch].to(device)
            if states.level == 0:
                images.append(x.cpu())
            elif states.eta > 0:
                rows = streams[i : i + params.denoise.batch]
                images.append(ancestral(network, x, part, eta=states.eta, streams=rows).cpu())
            else:
                images.append(carry_down(network, x, part, method=params.solver.method).cpu())
        return to_uint8(torch.cat(images))

    def make(cell: Cell) -> None:
        if all(work.has(f"{cell.key}.{ending}") for ending in ("parquet", "png", "json")):
            return
        states, _ = load_starts(starts, cell)
        ids = [f"{domain}-{cell.key}-{i:05d}" for i in range(len(states.x))]
        began = perf_counter()
        images = carry(states, f"{domain}/{cell.key}/denoise", ids)
        seconds = perf_counter() - began
        distance, closest = nearest(images.flatten(1).double() / 255,
                                    fit_images.flatten(1).double() / 255)
        frame = pd.DataFrame({
            "id": ids, "model": model, "domain": domain, "level": cell.level,
            "sampler": cell.sampler, "seed": params.seed,
            "parents": [",".join(fit_ids[i] for i in row) for row in states.parents.tolist()],
            "nearest_fit": [fit_ids[i] for i in closest.tolist()],
            "nearest_distance": distance.tolist(),
        })
        title = f"{model} {domain} level {cell.level} {cell.sampler} | beside: nearest fit image"
        sheet = pair_sheet(images[:_SHEET], fit_images[closest[:_SHEET]], columns=8, title=title)
        calls = grid.index(cell.level)
        work.add(f"{cell.key}.parquet", lambda path: write_pictures(path, images, frame))
        work.add(f"{cell.key}.png", lambda path: write_bytes(path, png_bytes(sheet)))
        work.add(f"{cell.key}.json", lambda path: write_json(path, {
            "calls": calls, "seconds": seconds, "images": len(images)}))

    with work:
        run.map(make, cells, name=lambda cell: f"{model}/{domain}/{cell.key}",
                workers=workers)
        names = [f"{cell.key}.{end}" for cell in cells for end in ("parquet", "png", "json")]
        work.publish(PATHS.generated(model, domain), names,
                     {"grid": list(grid), "weights": weights})
    return {"cells": len(cells)}
