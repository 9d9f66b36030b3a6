"""Options that several commands on a user's folder share."""

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from unseen_core.errors import UnseenError

__all__ = ["Eta", "Fraction", "Guidance", "Images", "NumberOfCopies", "OneModel", "Out", "Pipeline",
           "Prompt", "Seed", "Steps", "finite"]


def finite(option: typer.CallbackParam, value: float) -> float:
    """Return a number; JSON, in which requests travel, has no others."""
    if not isfinite(value):
        name = str(option.name).replace("_", "-")
        raise UnseenError(f"--{name} {value} is not a finite number; give one")
    return value


Images = Annotated[Path, typer.Argument(help="Folder or zip of images.")]
Out = Annotated[Path, typer.Argument(help="The folder to write.")]
OneModel = Annotated[str | None, typer.Option(
    help="A model of params.yaml that was fetched; by default the first.")]
Fraction = Annotated[float, typer.Option(
    callback=finite, help="How far images are noised, from 0 (not at all) to 1 (wholly).")]
NumberOfCopies = Annotated[int, typer.Option(min=1, help="New images made of each image.")]
Eta = Annotated[float, typer.Option(
    min=0, max=1, help="Fresh noise while denoising: 0 none (DDIM), 1 all (DDPM).")]
Steps = Annotated[int, typer.Option(
    min=2, help="Network calls from pure noise to an image; part of the way takes a part.")]
Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
Pipeline = Annotated[Path | None, typer.Option(
    help="A Stable Diffusion folder, as diffusers saves it, in place of a model.")]
Prompt = Annotated[str, typer.Option(help="What the images show, in words, for --pipeline.")]
Guidance = Annotated[float, typer.Option(
    callback=finite, help="Classifier-free guidance; 1 is none.")]
