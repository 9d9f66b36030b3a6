"""Published checkpoints, checked and opened: for ``fetch``, and into diffusers folders by hand."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from flows.settings.params import Params
from flows.settings.sections import Model
from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.loading import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    weights_files,
)
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, write_json

__all__ = ["convert", "misfits", "open_model"]


def open_model(name: str, section: Model, *, size: int) -> tuple[Checkpoint, str]:
    """Open a checkpoint of params.yaml; return it with the SHA-256 of its published weights.

    The hash is compared before the file is opened; without one, a file that has to be unpickled
    stays shut.

    Args:
        name: Of the model.
        section: Its part of params.yaml.
        size: Side of the images, where ``architecture`` does not say it.

    Raises:
        UnseenError: If the file is not the one that is named, or cannot be used.
    """
    weights, found = _hashed(Path(section.path))
    if section.sha256 is None and weights.suffix != ".safetensors":
        raise UnseenError(f"models.{name}: {weights} has sha256 {found}; compare it with its "
                          f"publisher's and set models.{name}.sha256 to it")
    if section.sha256 not in (None, found):
        raise UnseenError(f"models.{name}: {weights} has sha256 {found}, not the one in "
                          f"params.yaml; fetch it again or correct models.{name}.sha256")
    try:
        architecture = Architecture.from_settings(section.architecture.model_dump())
        checkpoint = load_checkpoint(Path(section.path), architecture=architecture, size=size)
        return checkpoint.labelled(section.label), found
    except UnseenError as error:
        raise UnseenError(f"models.{name}: {error}") from error


def misfits(params: Params, name: str, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield where a checkpoint does not go with the rest of params.yaml, a line each.

    Args:
        params: The parameters.
        name: Of the model.
        checkpoint: As `open_model` returns it.
    """
    channels, height, width = checkpoint.shape
    if channels not in (1, 3):
        yield (f"models.{name} works on images of {channels} channels; give a network of 3, or of "
               "1 for grey")
    if (height, width) != (params.images.size, params.images.size):
        yield (f"models.{name} works on {channels} x {height} x {width} images; set images.size to "
               f"{height}")
    for level in params.levels:
        try:
            checkpoint.schedule.check_level(level, "levels:")
        except UnseenError as error:
            yield str(error)


def convert(
    path: Path, out: Path, settings: Mapping[str, object], *, sha256: str | None = None
) -> str:
    """Write a published checkpoint as a ``DDPMPipeline`` folder that diffusers loads.

    Args:
        path: A file or folder; see ``load_checkpoint``.
        out: The folder to be written; empty or absent.
        settings: Keys of ``Architecture``, and ``preset``.
        sha256: Of the file with the weights, or None to leave it unchecked.

    Returns:
        The SHA-256 that was found.

    Raises:
        UnseenError: If the checkpoint is unusable or not the one named, if diffusers alone would
            compute something else with it, or if ``out`` holds anything.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UnseenError(f"{out} is not empty; give a folder that is, or a new one")
    weights, found = _hashed(path)
    if sha256 not in (None, found):
        raise UnseenError(f"{weights} has sha256 {found}, not {sha256}; fetch it again")
    checkpoint = load_checkpoint(path, architecture=Architecture.from_settings(settings))
    checkpoint.check_diffusers()
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_checkpoint(checkpoint, partial)
    write_json(partial / "model_index.json", {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", checkpoint.scheduler.get("_class_name", "DDPMScheduler")],
        "unet": ["diffusers", "UNet2DModel"],
    })
    os.replace(partial, out)
    return found


def _hashed(path: Path) -> tuple[Path, str]:
    """Return the first file that holds a checkpoint's weights, and their SHA-256.

    Of several files it is the one of what ``sha256sum`` prints of them:
    ``sha256sum *.safetensors | sha256sum``.
    """
    files = weights_files(path)
    if len(files) == 1:
        return files[0], file_hash(files[0])
    lines = "".join(f"{file_hash(file)}  {file.name}\n" for file in files)
    return files[0], hashlib.sha256(lines.encode()).hexdigest()
