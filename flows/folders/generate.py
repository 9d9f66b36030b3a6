"""Stage ``generate``: new images after a folder of examples, with the network frozen."""

from pathlib import Path

import torch

from flows.folders.alone import generate_alone
from flows.folders.checks import check_out, read_images
from flows.folders.method import FEWEST, Chosen, UnseenMethod
from flows.folders.open import open_network
from flows.folders.request import ALONE, Request, all_settings, candidates_of
from flows.loading.judge import first_extractor
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.params import Params, load_params
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import encode_png, png_bytes
from unseen_core.basics.schedule import Schedule
from unseen_core.basics.sheets import pair_sheet
from unseen_core.diffusion.transport import METHODS
from unseen_core.errors import UnseenError
from unseen_core.store import read_tensors, save_tensors, write_bytes

__all__ = ["generate"]

_SHEET, _COLUMNS = 32, 8


@stage("generate")
def generate(run: Run, *, request: str) -> dict[str, object]:
    """Write ``request.count`` PNG files, sheet.png and manifest.json to ``request.out``.

    The paper's method, unless a sampler is named that needs the clean images alone. An
    interrupted run goes on where it stopped.

    Raises:
        UnseenError: If the request is unusable; nothing is then written.
    """
    asked, params = Request.model_validate_json(request), load_params()
    check_out(Path(asked.images), Path(asked.out))
    if asked.count < 1:
        raise UnseenError(f"--count {asked.count} is too few; use 1 or more")
    if asked.method not in (None, *METHODS):
        raise UnseenError(f"--method {asked.method} is not known; use one of {', '.join(METHODS)}")
    if asked.sampler in ALONE:
        return generate_alone(run, asked, params)
    return _by_method(run, asked, params)


def _by_method(run: Run, asked: Request, params: Params) -> dict[str, object]:
    """Invert, fit, choose, draw, denoise and audit; see `flows.folders.method`."""
    samplers, cells = candidates_of(asked, params)
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    folder = None if asked.pipeline is None else Path(asked.pipeline)
    precise, opened = (
        open_network(params, model=asked.model, pipeline=folder, prompt=asked.prompt,
                     negative=asked.negative, guidance=asked.guidance, device=device,
                     precision=precision)
        for precision in (params.invert.precision, params.denoise.precision))
    for cell in cells:
        if cell.level > 0 or asked.level is not None:  # else pixel space
            opened.network.schedule.check_level(cell.level, "--level")
    grid = _grid(asked, params, opened.network.schedule, {cell.level for cell in cells})
    source = read_images(params, asked.images, opened.size, run, channels=opened.channels,
                         percentile=asked.percentile, pages=asked.pages)
    if len(source) < FEWEST:
        raise UnseenError(f"{asked.images} has {len(source)} usable images; the method needs "
                          f"{FEWEST} or more")
    extractor = first_extractor(params, device)
    method = asked.method or params.solver.method
    settings = asked.model_dump(exclude={"out", "images", "model", "pipeline", "settings"}) | {
        "network": opened.name, "weights": opened.weights, "method": method, "grid": list(grid),
        "images": list(source.files or source.ids), "extractor": extractor.name,
        "skipped": [{"file": file, "reason": reason} for file, reason in source.skipped],
        "candidates": {cell.key: all_settings(samplers[cell.sampler]) for cell in cells}}
    decides = {name: getattr(params, name).model_dump()
               for name in ("images", "invert", "fit", "select", "denoise")}
    work, _ = scratch("generate", [Path(asked.images)], {
        **settings, **decides, "trial": params.sample.count, "size": opened.size}, device)
    made = UnseenMethod(params, precise, opened, source, samplers, cells, method, extractor, grid,
                        asked.seed, device, work)
    ids = [f"{i:05d}" for i in range(asked.count)]
    with work:
        made.invert(run, workers)
        chosen = made.choose(run, workers)
        run.log.info("level %d, sampler %s: %s", chosen.cell.level, chosen.cell.sampler,
                     chosen.reason)
        return _publish(run, made, chosen, ids, Path(asked.out), settings, workers)


def _publish(
    run: Run, made: UnseenMethod, chosen: Chosen, ids: list[str], out: Path,
    settings: dict[str, object], workers: int,
) -> dict[str, object]:
    """Draw the images of the chosen cell, measure them, and write the folder."""
    cell, work, size = chosen.cell, made.work, made.opened.batch
    parts = {f"part-{i // size:05d}.safetensors": ids[i : i + size]
             for i in range(0, len(ids), size)}

    def draw(file: str) -> None:
        if not work.has(file):
            found = made.draw(cell, "new", parts[file])
            work.add(file, lambda path: save_tensors(path, found))

    run.map(draw, list(parts), workers=workers, name=lambda file: f"new images, {file}")
    drawn = [read_tensors(work.path(file)) for file in parts]
    images, parents = (torch.cat([part[key] for part in drawn]) for key in ("images", "parents"))
    figures, distance, rows = made.audit(images)
    figures["acceptance"] = len(ids) / sum(int(part["proposed"]) for part in drawn)
    names, source = [f"{name}.png" for name in ids], made.source
    given = source.files or source.ids
    files = [{"file": name, "parents": [given[i] for i in row], "nearest": given[near],
              "distance": far, "near_copy": far < figures["near_copy_distance"]}
             for name, row, near, far in zip(names, parents.tolist(), rows.tolist(),
                                             distance.tolist(), strict=True)]
    title = f"{made.opened.name} {cell.sampler} level {cell.level} | beside: nearest given image"
    picture = pair_sheet(images[:_SHEET], source.images[rows[:_SHEET]], columns=_COLUMNS,
                         title=title, scale=max(1, 64 // made.opened.size))
    for name, image in zip(names, images, strict=True):
        work.add(name, lambda path, x=image: write_bytes(path, encode_png(x)))
    work.add("sheet.png", lambda path: write_bytes(path, png_bytes(picture)))
    work.publish(out, [*names, "sheet.png"], settings | {
        "level": cell.level, "sampler": cell.sampler, "figures": figures, "files": files,
        "choice": {"reason": chosen.reason, "table": list(chosen.table)}})
    return {"images": len(ids), "out": str(out), "calls": made.grid.index(cell.level),
            "level": cell.level, "sampler": cell.sampler, **figures}


def _grid(
    asked: Request, params: Params, schedule: Schedule, levels: set[int]
) -> tuple[int, ...]:
    """Return the grid up to the highest candidate's level: the pipeline's own, cut there."""
    top = max(levels)
    if top == 0:  # pixel space
        return (0,)
    stop = top if asked.steps else max(top, *params.levels)
    whole = schedule.grid(asked.steps or params.solver.steps, stop, spacing=params.solver.spacing,
                          through=sorted(levels - {stop}))
    return whole[: whole.index(top) + 1]
