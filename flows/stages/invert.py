"""Stage ``invert``: fit images carried to every mixing level in one pass each."""

import pandas as pd
import torch

from flows.loading.frozen import load_frozen
from flows.loading.grid import grid_of
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import to_float, with_channels
from unseen_core.diffusion.batch import naming_memory
from unseen_core.diffusion.transport import invert as carry_up
from unseen_core.store import (
    TensorStore,
    latent_manifest,
    part_name,
    read_pictures,
    save_part,
    write_index,
)

__all__ = ["invert"]


@stage("invert")
def invert(run: Run, *, model: str, domain: str | None = None) -> dict[str, object]:
    """Store the latents of a domain's fit images at every level.

    Without a domain, those of the images that the model has seen, for ``analyze`` to compare with.

    Raises:
        UnseenError: If the checkpoint or the images are missing, or a level is out of range.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    pictures = PATHS.model(model) / "seen.parquet"
    if domain is not None:
        pictures = PATHS.domain(domain) / "fit.parquet"
    label, out = domain or "seen", PATHS.latents(model, domain)
    images, frame = read_pictures(pictures)
    opened = load_frozen(model, device=device, precision=params.invert.precision,
                         batch=params.invert.batch)
    network, batch, images = opened.network, opened.batch, with_channels(images, opened.channels)
    grid = grid_of(network, params)
    size, levels = params.invert.part_size, sorted(params.levels)
    parts = range(-(-len(images) // size))
    settings = {"invert": {**params.invert.model_dump(), "batch": batch}, "grid": list(grid),
                "method": params.solver.method}
    work, mark = scratch("invert", [pictures, *PATHS.network(model)], settings, device)

    def carry(part: int) -> None:
        if all(work.has(part_name(level, part)) for level in levels):
            return
        kept: dict[int, list[torch.Tensor]] = {level: [] for level in levels}

        def observe(level: int, states: torch.Tensor) -> None:
            if level in kept:
                kept[level].append(states.cpu())

        rows = to_float(images[part * size : (part + 1) * size])
        with naming_memory("invert.batch", batch):
            for x in rows.split(batch):
                carry_up(network, opened.codec.encode(x.to(device)), grid,
                         method=params.solver.method, observe=observe)
        for level, states in kept.items():
            whole = torch.cat(states)
            work.add(part_name(level, part), lambda path, x=whole: save_part(
                path, x, params.invert.store))

    index = pd.DataFrame({"id": frame["id"], "part": [i // size for i in range(len(images))],
                          "row": [i % size for i in range(len(images))]})
    with work:
        run.map(carry, parts, name=lambda part: f"{model}/{label}/part-{part:05d}",
                workers=workers)
        work.add("index.parquet", lambda path: write_index(path, index))
        names = [part_name(level, part) for level in levels for part in parts]
        rows = [min(size, len(images) - part * size) for part in parts]
        manifest = latent_manifest(TensorStore.format, network.shape, params.invert.store, levels,
                                   rows, mark)
        work.publish(out, [*names, "index.parquet"],
                     {**manifest, "grid": list(grid), "method": params.solver.method,
                      "batch": batch, "weights": opened.weights})
    return {"images": len(images), "levels": levels, "calls": len(grid) - 1}


