"""Local copies of a user's images: made in parts, written as PNG files with their provenance."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from flows.folders.checks import check_place, read_images, same_names
from flows.folders.manifest import classes_of, has_classes, write_images
from flows.folders.open import open_network
from flows.loading.opened import Opened
from flows.running.cores import share_cores
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.sections import Count, Section
from unseen_core.applications import boomerang, grid_through, level_of
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.batch import naming_memory
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceImages
from unseen_core.store import Scratch, read_json, read_tensors, save_tensors, write_json

__all__ = ["Copies", "CopyRequest", "copy_folder"]

Classes = Literal["needed", "kept", "none"]
_SETTINGS, _REPORT = "settings.json", "report.json"


class CopyRequest(Section):
    """What is made of a folder; a stage takes it as one string of JSON.

    Attributes:
        images: Folder or zip of the originals.
        out: Folder to be made.
        fraction: k / T, how far originals are noised; 0 returns them.
        copies: Outputs of each original.
        passes: How often each is noised and denoised.
        factor: Sides of the result over those of what is read.
        eta: Share of fresh noise on the way down; 1 is the published sampler.
        steps: Network calls from T down; fewer from lower levels.
        seed: Of all random numbers.
        originals: Folder of the true large images, to measure enhancement by; or None.
        model, pipeline, prompt, guidance: See `flows.folders.open.open_network`.
    """

    images: str
    out: str
    fraction: float
    copies: Count = 1
    passes: Count = 1
    factor: Count = 1
    eta: float = Field(default=1.0, ge=0, le=1)
    steps: Count = 40
    seed: int = 0
    originals: str | None = None
    model: str | None = None
    pipeline: str | None = None
    prompt: str = ""
    guidance: float = 1.0


@dataclass(frozen=True, eq=False)
class Copies:
    """What was made of a folder.

    Attributes:
        params: Of the project.
        opened: The network.
        source: The originals, of size ``opened.size / factor``.
        starts: What was noised, uint8 (n, 3, size, size).
        images: The copies, uint8 (n * copies, 3, size, size), those of an original together.
        rows: The original of each copy, int64.
        level: Where originals were noised to.
        originals: The true large images, uint8 (n, 3, size, size), where they are given.
    """

    params: Params
    opened: Opened
    source: SourceImages
    starts: Tensor
    images: Tensor
    rows: Tensor
    level: int
    originals: Tensor | None


def copy_folder(
    run: Run,
    name: str,
    asked: CopyRequest,
    *,
    enlarged: Callable[[Tensor], Tensor],
    classes: Classes,
    keep: bool,
    measure: Callable[[Copies], dict[str, object]],
) -> dict[str, object]:
    """Write copies of every image, manifest.csv and report.json to ``asked.out``.

    A run that was interrupted goes on where it stopped; one that is finished is not repeated.

    Args:
        run: Runs the parts.
        name: The stage.
        asked: What is made.
        enlarged: Gives what is noised, float (n, 3, size, size), of float images as read.
        classes: ``needed``: every image must lie in a subfolder, its class, which ``out`` keeps;
            ``kept``: they are kept where every image has one; ``none``: they are not.
        keep: Put the originals, at the network's size, beside their copies.
        measure: Gives what report.json says of the copies; its values go into the outcome too
            unless they are tables.

    Returns:
        The number of outputs, and the scalars of the report.

    Raises:
        UnseenError: If the request is unusable or ``out`` holds anything else.
    """
    params, out = load_params(), Path(asked.out)
    check_place(Path(asked.images), out)
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    folder = None if asked.pipeline is None else Path(asked.pipeline)
    opened = open_network(params, model=asked.model, pipeline=folder, prompt=asked.prompt,
                          guidance=asked.guidance, device=device)
    if opened.size % asked.factor or opened.size // asked.factor < 8:
        raise UnseenError(f"--factor {asked.factor}: images of {opened.size} pixels would be made "
                          "from fewer than 8, or from part of a pixel; use a smaller factor")
    schedule = opened.network.schedule
    try:
        level = level_of(asked.fraction, schedule)
    except UnseenError as error:
        raise UnseenError(f"--{error}") from None
    grid = grid_through(schedule, [level], steps=asked.steps, spacing=params.solver.spacing)
    method = params.solver.method if asked.guidance == 1 else "ddim"
    source = read_images(params, asked.images, opened.size // asked.factor, run,
                         channels=opened.channels)
    if classes == "needed":
        classes_of(source, asked.images)
    originals = None
    if asked.originals is not None:
        large = read_images(params, asked.originals, opened.size, run, channels=opened.channels)
        originals = same_names(large, source, asked.originals)
        if len(source) * asked.copies < 2:
            raise UnseenError(f"{asked.originals}: one image gives no interval; leave --originals "
                              "out")
    labelled = classes == "needed" or (classes == "kept" and has_classes(source))
    places = ("images", "out", "model", "pipeline", "originals")
    settings = asked.model_dump(exclude=set(places)) | {
        "weights": opened.weights, "network": opened.name, "level": level, "grid": list(grid),
        "method": method, "size": opened.size, "precision": params.denoise.precision,
        "batch": opened.batch, "images": params.images.model_dump(),
        "extractors": params.evaluate.model_dump()}
    inputs = [Path(place) for place in (asked.images, asked.originals) if place is not None]
    work, mark = scratch(name, inputs, settings, device)
    done = _begin(out, mark, {"stage": name, **settings})
    if done is not None:
        run.log.info("%s: made before, with these settings", out)
        return done
    starts = to_uint8(enlarged(to_float(source.images)))
    rows = torch.arange(len(source)).repeat_interleave(asked.copies)
    ids = [f"{source.ids[row]}-{i % asked.copies}" for i, row in enumerate(rows.tolist())]
    parts = [range(i, min(i + opened.batch, len(ids))) for i in range(0, len(ids), opened.batch)]

    def make(part: range) -> None:
        if work.has(_file(part)):
            return
        x = to_float(starts[rows[part.start : part.stop]]).to(device)
        streams = Streams(asked.seed, name, ids[part.start : part.stop])
        with naming_memory("denoise.batch", len(part)):
            images = boomerang(opened.network, opened.codec, x, level, grid, eta=asked.eta,
                               method=method, streams=streams, batch=opened.batch,
                               passes=asked.passes)
        made = to_uint8(images.cpu()).contiguous()
        work.add(_file(part), lambda path: save_tensors(path, {"images": made}))

    with work:
        run.map(make, parts, name=lambda part: f"{opened.name}/{out.name}/{_file(part)}",
                workers=workers)
        copies = Copies(params, opened, source, starts, _joined(work, parts), rows, level,
                        originals)
        found = measure(copies)
        outcome = {"outputs": len(rows), "out": asked.out} | {
            key: value for key, value in found.items() if not isinstance(value, list | dict)}
        provenance = {"network": opened.name, "weights": opened.weights, "prompt": asked.prompt,
                      "guidance": asked.guidance, "originals_included": keep}
        how = {"fraction": asked.fraction, "level": level, "eta": asked.eta,
                "passes": asked.passes, "factor": asked.factor, "seed": asked.seed}
        write_images(out, source, copies.images, starts if keep else None, made=how,
                     provenance=provenance, labelled=labelled)
        write_json(out / _REPORT, {
            **settings, **found, "mark": mark, "originals": len(source),
            "originals_included": keep, "outcome": outcome,
            "skipped": [{"file": file, "reason": reason} for file, reason in source.skipped]})
        shutil.rmtree(work.folder)
    return outcome


def _begin(out: Path, mark: str, settings: dict[str, object]) -> dict[str, object] | None:
    """Claim a folder for these settings; return the outcome if it was finished with them."""
    record = out / _SETTINGS
    if record.is_file() and read_json(record).get("mark") == mark:
        report = out / _REPORT
        return dict(read_json(report)["outcome"]) if report.is_file() else None
    if out.is_dir() and any(out.iterdir()):
        raise UnseenError(f"{out} holds something else, or was made with other settings; name a "
                          "folder that is new or empty")
    write_json(record, {"mark": mark, **settings})
    return None


def _file(part: range) -> str:
    """Return the name of a part in the scratch folder."""
    return f"part-{part.start:07d}.safetensors"


def _joined(work: Scratch, parts: Sequence[range]) -> Tensor:
    """Return the images of all parts."""
    return torch.cat([read_tensors(work.path(_file(part)))["images"] for part in parts])
