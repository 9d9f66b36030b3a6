"""Stage ``generate``: new images after a folder of examples, without inverting any of them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from pydantic import Field
from ruamel.yaml import YAML, YAMLError
from safetensors.torch import save_file

from flows.cores import share_cores
from flows.networks import Opened, open_network
from flows.params import load_params
from flows.resume import scratch
from flows.run import Run
from flows.sections import Section
from flows.stage import stage
from flows.user_folders import check_out, read_images
from unseen_core.batch import naming_memory
from unseen_core.device import pick_device
from unseen_core.errors import UnseenError
from unseen_core.gaussian import Gaussian
from unseen_core.geometry import STATISTICS, Envelope
from unseen_core.images import encode_png, png_bytes, sheet, to_float, to_uint8
from unseen_core.references import References
from unseen_core.rng import Streams
from unseen_core.starts import StartContext, StartSampler, StartStates, build_sampler
from unseen_core.store import read_tensors, write_bytes
from unseen_core.transport import METHODS, ancestral, denoise

__all__ = ["ALONE", "NOISE", "Request", "generate", "read_settings"]

ALONE = ("signal-leak", "boomerang", "style-noise", "noise")
"""Samplers that need clean images alone: no latents, no fitted prior, no law of the seen domain."""
NOISE = "noise.safetensors"
"""In a tuned pipeline's folder: the law of the noise that it starts from."""
_LAWS = ("signal-leak", "style-noise")  # fitted to two examples or more
_SHEET, _COLUMNS = 64, 8


class Request(Section):
    """What is generated; a stage takes it as one string of JSON.

    Attributes:
        images: Folder or zip of the examples.
        out: Folder to be made.
        sampler: One of ALONE, with ``settings`` as its fields.
        level: Level of the start states, 0..T; None: T, for noise and style noise.
        count: Images.
        steps: Network calls from T down.
        seed: Of all random numbers.
        method: Solver; None: ``solver.method``, and ddim under guidance.
        model, pipeline, prompt, negative, guidance: See `open_network`.
    """

    images: str
    out: str
    sampler: str
    settings: dict[str, object] = Field(default_factory=dict)
    level: int | None = None
    count: int = 16
    steps: int = 50
    seed: int = 0
    method: str | None = None
    model: str | None = None
    pipeline: str | None = None
    prompt: str = ""
    negative: str = ""
    guidance: float = 1.0


@stage("generate")
def generate(run: Run, *, request: str) -> dict[str, object]:
    """Write ``request.count`` PNG files, manifest.csv and sheet.png to ``request.out``.

    An interrupted run goes on where it stopped. Random numbers depend on seed and number alone,
    so samplers are compared on common ones.

    Raises:
        UnseenError: If the request is unusable; nothing is then written.
    """
    asked, params = Request.model_validate_json(request), load_params()
    out = Path(asked.out)
    check_out(Path(asked.images), out)
    if asked.count < 1:
        raise UnseenError(f"--count {asked.count} is too few; use 1 or more")
    method = asked.method or (params.solver.method if asked.guidance == 1 else "ddim")
    if method not in METHODS:
        raise UnseenError(f"--method {method} is not known; use one of {', '.join(METHODS)}")
    sampler = _sampler(asked)
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    folder = None if asked.pipeline is None else Path(asked.pipeline)
    opened = open_network(params, model=asked.model, pipeline=folder, prompt=asked.prompt,
                          negative=asked.negative, guidance=asked.guidance, device=device)
    source = read_images(params, asked.images, opened.size, run)
    tuned = _tuned_noise(asked)
    if asked.sampler in _LAWS and tuned is None and len(source) < 2:
        raise UnseenError(f"{asked.images} has one image; --sampler {asked.sampler} needs 2 or "
                          "more")
    level = _level(asked, opened, tuned)
    schedule = opened.network.schedule
    grid = schedule.grid(asked.steps, level, spacing=params.solver.spacing) if level else (0,)
    values = _effective(sampler) if tuned is None else {"noise": NOISE}
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
            x = starts.x.to(device)
            if starts.eta > 0 and level > 0:
                down = ancestral(opened.network, x, grid, eta=starts.eta,
                                 streams=streams(purpose="generate/denoise"))
            else:
                down = denoise(opened.network, x, grid, method=method)
            images = to_uint8(opened.codec.decode(down).cpu()).contiguous()
        work.add(part.file, lambda path: save_file(
            {"images": images, "parents": starts.parents.contiguous()}, path))

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


def read_settings(pairs: Sequence[str]) -> dict[str, object]:
    """Return the settings that ``KEY=VALUE`` words name, values as in params.yaml.

    Raises:
        UnseenError: If a word has no ``=``, or its value is no YAML.
    """
    settings: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        try:
            settings[key.strip()] = YAML(typ="safe").load(text)
        except YAMLError:
            equals = ""
        if not equals or not key.strip():
            raise UnseenError(f"--set {pair!r} is no setting; write it as kind=dct")
    return settings


@dataclass(frozen=True)
class _Part:
    """Images that are made at once, and survive a kill."""

    number: int
    ids: list[str]

    @property
    def file(self) -> str:
        """Its name in the scratch folder and in logs."""
        return f"part-{self.number:05d}.safetensors"


def _sampler(asked: Request) -> StartSampler:
    """Build the sampler that is asked for."""
    if asked.sampler not in ALONE:
        raise UnseenError(f"--sampler {asked.sampler} is not one that needs images alone; use one "
                          f"of {', '.join(ALONE)}")
    if "sampler" in asked.settings:
        raise UnseenError("--set names no sampler; use --sampler")
    try:
        return build_sampler("--set", {"sampler": asked.sampler, **asked.settings})
    except UnseenError as error:
        raise UnseenError(str(error).removeprefix("samplers.")) from None


def _tuned_noise(asked: Request) -> Path | None:
    """Return the law of the noise that a pipeline was tuned on, where style noise is asked for."""
    if asked.pipeline is None or asked.sampler != "style-noise":
        return None
    file = Path(asked.pipeline) / NOISE
    return file if file.is_file() else None


def _level(asked: Request, opened: Opened, tuned: Path | None) -> int:
    """Return the level of the start states."""
    schedule = opened.network.schedule
    if asked.level is None:
        if asked.sampler not in ("noise", "style-noise"):
            raise UnseenError(f"--sampler {asked.sampler} needs --level, 0 to {schedule.top}; "
                              "higher ones leave more to the network")
        return schedule.top
    if tuned is not None and asked.level != schedule.top:
        raise UnseenError(f"{tuned}: the network was tuned on this noise at level {schedule.top}; "
                          "leave --level out")
    if not 0 <= asked.level <= schedule.top:
        raise UnseenError(f"--level {asked.level} is out of range; use 0 to {schedule.top}")
    return asked.level


def _context(opened: Opened, level: int, images: torch.Tensor) -> StartContext:
    """Return what a sampler sees that needs clean images alone; no geometry is measured."""
    clean = References.of(torch.cat([opened.codec.encode(to_float(part))
                                     for part in images.split(opened.batch)]))
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


def _effective(sampler: StartSampler) -> dict[str, object]:
    """Return all settings of a sampler, those left at their defaults too, as JSON has them."""
    found = {field.name: getattr(sampler, field.name) for field in fields(sampler)}  # type: ignore[arg-type]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _text(settings: dict[str, object]) -> str:
    """Return settings on one line."""
    return " ".join(f"{key}={value}" for key, value in sorted(settings.items()))
