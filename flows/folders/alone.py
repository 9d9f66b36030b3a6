"""New images after a folder of examples by samplers that need the clean images alone."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from flows.folders.checks import read_images
from flows.folders.open import open_network
from flows.folders.request import (
    NOISE,
    Request,
    all_settings,
    level_of,
    sampler_of,
    tuned_noise,
)
from flows.loading.opened import Opened
from flows.running.cores import share_cores
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.params import Params
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import encode_png, png_bytes, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.basics.sheets import sheet
from unseen_core.diffusion.batch import naming_memory
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.geometry import STATISTICS, Envelope
from unseen_core.starts import StartContext, StartSampler, StartStates, denoise_starts
from unseen_core.store import read_tensors, save_tensors, write_bytes

__all__ = ["generate_alone"]

_SHEET, _COLUMNS = 64, 8
_STEPS = 50  # network calls from the level down, by default


def generate_alone(run: Run, asked: Request, params: Params) -> dict[str, object]:
    """Write ``asked.count`` PNG files, manifest.csv and sheet.png to ``asked.out``.

    An interrupted run goes on where it stopped. Random numbers depend on seed and number alone,
    so samplers are compared on common ones.

    Raises:
        UnseenError: If the request is unusable; nothing is then written.
    """
    out = Path(asked.out)
    sampler = sampler_of(asked)
    method = asked.method or sampler.method or (
        params.solver.method if asked.guidance == 1 else "ddim")
    if sampler.method not in (None, method):
        raise UnseenError(f"--sampler {asked.sampler} is denoised by {sampler.method}; leave "
                          "--method out")
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    folder = None if asked.pipeline is None else Path(asked.pipeline)
    opened = open_network(params, model=asked.model, pipeline=folder, prompt=asked.prompt,
                          negative=asked.negative, guidance=asked.guidance, device=device)
    source = read_images(params, asked.images, opened.size, run, channels=opened.channels,
                         percentile=asked.percentile, pages=asked.pages)
    tuned = tuned_noise(asked)
    if tuned is None and len(source) < sampler.fewest:
        found = "one image" if len(source) == 1 else f"{len(source)} images"
        raise UnseenError(f"{asked.images} has {found}; --sampler {asked.sampler} needs "
                          f"{sampler.fewest} or more")
    level = level_of(asked, opened.network.schedule, tuned)
    schedule = opened.network.schedule
    steps, spacing = asked.steps or _STEPS, params.solver.spacing
    grid = schedule.grid(steps, level, spacing=spacing) if level else (0,)
    values = all_settings(sampler) if tuned is None else {"noise": NOISE}
    settings = asked.model_dump(exclude={"out", "images", "model", "pipeline"}) | {
        "settings": values,
        "examples": source.ids,
        "skipped": [{"file": file, "reason": reason} for file, reason in source.skipped],
        "weights": opened.weights, "network": opened.name, "level": level, "grid": list(grid),
        "method": method, "size": opened.size, "crop": params.images.crop,
        "precision": params.denoise.precision, "batch": opened.batch}
    work, _ = scratch("generate", [Path(asked.images), *([tuned] if tuned else [])], settings,
                      device)
    context = _context(opened, level, source.images)
    ids = [f"{i:05d}" for i in range(asked.count)]
    parts = [_Part(i // opened.batch, ids[i : i + opened.batch])
             for i in range(0, len(ids), opened.batch)]

    def make(part: _Part) -> None:
        if work.has(part.file):
            return
        streams = partial(Streams, asked.seed, ids=part.ids)
        starts = _starts(sampler, tuned, context, streams(purpose="generate/starts"))
        with naming_memory("denoise.batch", len(part.ids)):
            down = denoise_starts(sampler, opened.network, starts.rows(slice(None), device),
                                  grid, images=context.clean, method=method,
                                  streams=streams(purpose="generate/denoise"))
            images = to_uint8(opened.codec.decode(down).cpu()).contiguous()
        work.add(part.file, lambda path: save_tensors(
            path, {"images": images, "parents": starts.parents}))

    with work:
        run.map(make, parts, name=lambda part: f"{opened.name}/{out.name}/{part.file}",
                workers=workers)
        made = [read_tensors(work.path(part.file)) for part in parts]
        images, parents = (torch.cat([part[key] for part in made])
                           for key in ("images", "parents"))
        frame = pd.DataFrame({
            "file": [f"{name}.png" for name in ids], "sampler": asked.sampler,
            "settings": _text(values), "level": level, "steps": len(grid) - 1,
            "method": method, "seed": asked.seed, "network": opened.name,
            "weights": opened.weights, "prompt": asked.prompt, "negative": asked.negative,
            "guidance": asked.guidance,
            "parents": [",".join(source.ids[i] for i in row) for row in parents.tolist()],
        })
        title = f"{opened.name} {asked.sampler} level {level} {asked.prompt}".strip()
        picture = sheet(images[:_SHEET], columns=_COLUMNS, title=title,
                        scale=max(1, 64 // opened.size))
        for name, image in zip(frame["file"], images, strict=True):
            work.add(name, lambda path, x=image: write_bytes(path, encode_png(x)))
        work.add("manifest.csv", lambda path: frame.to_csv(path, index=False))
        work.add("sheet.png", lambda path: write_bytes(path, png_bytes(picture)))
        work.publish(out, [*frame["file"], "manifest.csv", "sheet.png"], settings)
    return {"images": len(ids), "out": asked.out, "calls": len(grid) - 1}


@dataclass(frozen=True)
class _Part:
    """Images that are made at once, and survive a kill."""

    number: int
    ids: list[str]

    @property
    def file(self) -> str:
        """Its name in the scratch folder and in logs."""
        return f"part-{self.number:05d}.safetensors"


def _context(opened: Opened, level: int, images: torch.Tensor) -> StartContext:
    """Return what a sampler sees that needs clean images alone; no geometry is measured."""
    clean = opened.states_of(images)
    free = torch.full((len(STATISTICS),), torch.inf, dtype=torch.float64)
    return StartContext(opened.network.schedule, level, clean, {}, Envelope(-free, free, 1.0),
                        images=clean)


def _starts(
    sampler: StartSampler, tuned: Path | None, context: StartContext, streams: Streams
) -> StartStates:
    """Draw start states: by the sampler, or of the noise that a pipeline was tuned on."""
    if tuned is None:
        return sampler.draw(context, streams)
    x = Gaussian.from_state(read_tensors(tuned)).sample(streams)
    if x.shape[1] != context.references.dimension:
        raise UnseenError(f"{tuned}: {x.shape[1]} numbers, not those of states "
                          f"{tuple(context.shape)}; tune the pipeline again")
    return StartStates.untested(x.reshape(-1, *context.shape), context.level)


def _text(settings: dict[str, object]) -> str:
    """Return settings on one line."""
    return " ".join(f"{key}={value}" for key, value in sorted(settings.items()))
