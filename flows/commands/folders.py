"""The commands on the user's own folders."""

from collections.abc import Callable
from functools import wraps
from os import chdir
from pathlib import Path
from typing import Annotated

import typer

from flows.options import (
    Eta,
    Fraction,
    Guidance,
    Images,
    NumberOfCopies,
    OneModel,
    Out,
    Pipeline,
    Prompt,
    Seed,
    Steps,
    finite,
)
from flows.settings.documented import SHIPPED
from unseen_core.errors import UnseenError

__all__ = ["anonymise", "anywhere", "augment", "enhance", "finetune_pipeline", "generate"]


def anonymise(
    images: Images,
    out: Out,
    model: OneModel = None,
    fraction: Fraction = 0.3,
    copies: NumberOfCopies = 1,
    eta: Eta = 1.0,
    steps: Steps = 40,
    seed: Seed = 0,
    pipeline: Pipeline = None,
    prompt: Prompt = "",
    guidance: Guidance = 1.0,
) -> None:
    """Change images until simple matchers lose track of them; no privacy guarantee."""
    made = _copies("anonymise", images, out, model, pipeline, {
        "fraction": fraction, "copies": copies, "eta": eta, "steps": steps, "seed": seed,
        "prompt": prompt, "guidance": guidance})
    # Of two matchers, the one that traces more: the other would promise too much.
    traced = max((float(str(made[key])) for key in ("top1", "top1_pixels") if key in made),
                 default=None)
    share = "" if traced is None else (f", {traced:.0%} traced to their source (guessing: "
                                       f"{made['top1_chance']:.0%})")
    typer.echo(f"{out}: {made['outputs']} images{share}; {made['notice']}. manifest.csv names the "
               "sources: keep it back")


def augment(
    images: Images,
    out: Out,
    model: OneModel = None,
    fraction: Fraction = 0.1,
    copies: NumberOfCopies = 4,
    eta: Eta = 1.0,
    steps: Steps = 40,
    seed: Seed = 0,
    pipeline: Pipeline = None,
    prompt: Prompt = "",
    guidance: Guidance = 1.0,
) -> None:
    """Add copies to a labelled folder, one subfolder a class, and say whether they help."""
    made = _copies("augment", images, out, model, pipeline, {
        "fraction": fraction, "copies": copies, "eta": eta, "steps": steps, "seed": seed,
        "prompt": prompt, "guidance": guidance})
    found = ", ".join(f"{key.removeprefix('accuracy ')} {value:.3f}"
                      for key, value in made.items() if key.startswith("accuracy "))
    typer.echo(f"{out}: {made['outputs']} copies beside their originals; accuracy {found} "
               "(intervals: report.json)")


def enhance(
    images: Images,
    out: Out,
    model: OneModel = None,
    factor: Annotated[int, typer.Option(min=1, help="Sides of the result over those given.")] = 4,
    passes: Annotated[int, typer.Option(min=1, help="Times noised and denoised.")] = 1,
    fraction: Fraction = 0.03,
    originals: Annotated[Path | None, typer.Option(
        help="The true large images, of the same names, to measure by.")] = None,
    eta: Eta = 1.0,
    steps: Steps = 40,
    seed: Seed = 0,
    pipeline: Pipeline = None,
    prompt: Prompt = "",
    guidance: Guidance = 1.0,
) -> None:
    """Enlarge small images, with detail of what the network has seen."""
    made = _copies("enhance", images, out, model, pipeline, {
        "factor": factor, "passes": passes, "fraction": fraction, "eta": eta, "steps": steps,
        "seed": seed, "prompt": prompt, "guidance": guidance,
        "originals": None if originals is None else str(originals)})
    verdict = made.get("beats_bicubic")
    words = {None: "not compared: no --originals", True: "better than bicubic enlargement",
             False: "not better than bicubic enlargement"}
    typer.echo(f"{out}: {made['outputs']} images; {words[verdict]}")


def _copies(
    name: str, images: Path, out: Path, model: str | None, pipeline: Path | None,
    settings: dict[str, object],
) -> dict[str, object]:
    """Run one of Boomerang's applications on a folder; without a network, with the first model."""
    from flows.dispatch import run_stage
    from flows.folders.copies import CopyRequest

    request = CopyRequest.model_validate({
        **settings, "images": str(images), "out": str(out), "model": _first(model, pipeline),
        "pipeline": None if pipeline is None else str(pipeline)})
    return run_stage(name, {"request": request.model_dump_json(exclude_defaults=True)})


def _first(model: str | None, pipeline: Path | None) -> str | None:
    """Return the first model where no network is named."""
    from flows.settings.params import load_params

    return load_params().pipeline.models[0] if model is None and pipeline is None else model


def generate(
    images: Images,
    out: Out,
    sampler: Annotated[str | None, typer.Option(
        help="A sampler of params.yaml, or one that inverts nothing: local-score, signal-leak, "
             "boomerang, style-noise, noise. By default the images choose.")] = None,
    level: Annotated[int | None, typer.Option(
        help="Mixing level, 1 to T; by default the images choose.")] = None,
    settings: Annotated[list[str] | None, typer.Option(
        "--set", help="A setting of the sampler, as kind=dct; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(
        help="A model of params.yaml, or the path of a checkpoint; by default the first "
             "model.")] = None,
    pipeline: Pipeline = None,
    prompt: Prompt = "",
    negative: Annotated[str, typer.Option(
        help="What they are not to show; needs --guidance above 1.")] = "",
    guidance: Guidance = 1.0,
    count: Annotated[int, typer.Option(help="Number of new images.")] = 16,
    steps: Annotated[int | None, typer.Option(
        min=1, help="Network calls an image; by default those of params.yaml.")] = None,
    method: Annotated[str | None, typer.Option(
        help="Solver: dpm3m, dpm2m, ab2 or ddim; by default that of params.yaml, and ddim "
             "with --guidance above 1.")] = None,
    seed: Seed = 0,
    percentile: Annotated[tuple[float, float] | None, typer.Option(
        help="Percentiles of each file's values that are black and white, as 1 99: for FITS, "
             "DICOM, NIfTI, floating point.")] = None,
    all_pages: Annotated[bool, typer.Option(
        "--all-pages", help="Take every page of TIFF and DICOM files; by default the "
                            "first.")] = False,
) -> None:
    """Make new images of the domain of a folder of examples, with the model frozen."""
    from flows.dispatch import run_stage
    from flows.folders.request import Request, read_settings

    request = Request(
        images=str(images), out=str(out),
        sampler=sampler or (None if pipeline is None else "signal-leak"),
        settings=read_settings(settings or []), level=level, count=count, steps=steps, seed=seed,
        method=method, model=_first(model, pipeline),
        pipeline=None if pipeline is None else str(pipeline), prompt=prompt, negative=negative,
        guidance=guidance, percentile=percentile, pages="all" if all_pages else "first")
    _download_missing(request.model)
    made = run_stage("generate", {"request": request.model_dump_json(exclude_defaults=True)})
    typer.echo(f"{out}: {made['images']} images, sheet.png and manifest.json")
    if "novelty" in made:
        typer.echo(f"level {made['level']}, sampler {made['sampler']}: novelty "
                   f"{made['novelty']:.2f} (1: as far from the given images as these are from "
                   f"each other), near copies {made['near_copies']:.0%}, accepted "
                   f"{made['acceptance']:.0%} of the candidates")


def _download_missing(model: str | None) -> None:
    """Bring what a model of params.yaml is read from, where it lies in data/downloads."""
    from flows.dispatch import run_stage
    from flows.settings.params import load_params
    from flows.settings.paths import PATHS

    params = load_params()
    place = Path(params.models[model].path) if model in params.models else Path()
    for name in params.downloads:
        folder = PATHS.download(name)
        if place.is_relative_to(folder) and not folder.exists():
            run_stage("download", {"name": name})


def finetune_pipeline(
    images: Images,
    out: Out,
    pipeline: Annotated[Path, typer.Option(
        help="A Stable Diffusion folder; it is not changed.")],
    prompt: Prompt = "",
    noise: Annotated[str, typer.Option(
        help="Noise to train from: style (Diffusion in Style) or white.")] = "style",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 500,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 4,
    learning_rate: Annotated[float, typer.Option(
        callback=finite, help="Learning rate of AdamW.")] = 1e-5,
    seed: Seed = 0,
) -> None:
    """Train a copy of a latent diffusion model on a folder of images."""
    from flows.dispatch import run_stage
    from flows.folders.finetune_pipeline import FinetuneRequest

    if noise not in ("style", "white"):
        raise UnseenError(f"--noise {noise!r} is not known; use style or white")
    request = FinetuneRequest(
        images=str(images), out=str(out), pipeline=str(pipeline), prompt=prompt, noise=noise,
        steps=steps, batch=batch, learning_rate=learning_rate, seed=seed)
    run_stage("finetune_pipeline", {"request": request.model_dump_json(exclude_defaults=True)})
    typer.echo(f"{out}: a pipeline; give it to `generate --pipeline`, with the same prompt")


def anywhere(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that works in the source tree where the working directory has no project."""

    @wraps(command)
    def run(**words: object) -> None:
        if not Path("params.yaml").exists():
            # What is named is meant to be found from here.
            for key, value in words.items():
                if isinstance(value, Path):
                    words[key] = value.resolve()
                elif key == "model" and Path(str(value)).exists():
                    words[key] = str(Path(str(value)).resolve())
            chdir(SHIPPED.parent)
        command(**words)

    return run
