"""Folders that the user names: read with the checks of a domain, made and never overwritten."""

from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from zipfile import is_zipfile

from torch import Tensor

from flows.running.run import Run
from flows.settings.params import Params
from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig, SourceImages, load

__all__ = ["check_out", "check_pipeline", "check_place", "read_images", "same_names"]


def check_out(images: Path, out: Path) -> None:
    """Raise UnseenError unless a folder is absent or empty: nothing is ever overwritten."""
    check_place(images, out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UnseenError(f"{out} is there already; name a folder that is new or empty")


def check_place(images: Path, out: Path) -> None:
    """Raise UnseenError if an output cannot be written, or lies among the images.

    There it would become an image itself at the next call.
    """
    if out.resolve().is_relative_to(images.resolve()):
        raise UnseenError(f"{out} lies in {images}; name a folder outside it")
    try:
        if out.exists() and not out.is_dir():
            raise UnseenError(f"{out} is not a folder; name one that is new or empty")
        place = out.resolve()
        with TemporaryFile(dir=next(p for p in (place, *place.parents) if p.exists())):
            pass
    except OSError as error:
        raise UnseenError(f"{out} cannot be written: {error.strerror}; name another "
                          "folder") from None


def check_pipeline(folder: Path) -> None:
    """Raise UnseenError where there is no diffusers folder at all."""
    if not (folder / "model_index.json").is_file():
        found = "has no model_index.json" if folder.is_dir() else "is not a folder"
        raise UnseenError(f"{folder} {found}; give a diffusers folder of Stable Diffusion 1 or 2")


def read_images(
    params: Params, path: str, size: int, run: Run, *, channels: int = 3,
    percentile: tuple[float, float] | None = None, pages: str = "first",
) -> SourceImages:
    """Return the images of a folder or zip as a network takes them, and warn of unusable files.

    Raises:
        UnseenError: If none is usable, or one is not and ``images.skip_bad`` is false.
    """
    kind = "zip" if Path(path).is_file() else "folder"
    if kind == "zip" and not is_zipfile(path):
        raise UnseenError(f"{path} is neither a folder nor a zip; give a folder or zip of images")
    try:
        source = load(SourceConfig(
            kind=kind, domain="images", path=path, crop=params.images.crop, size=size,
            skip_bad=params.images.skip_bad, max_pixels=params.images.max_pixels,
            percentile=percentile, pages=pages))
    except UnseenError as error:
        raise UnseenError(str(error).removeprefix("domain images: ")) from None
    for line in source.warnings():
        run.log.warning("%s: %s", path, line)
    return replace(source, images=with_channels(source.images, channels))


def same_names(found: SourceImages, source: SourceImages, path: str) -> Tensor:
    """Return those of the images ``found`` that have the names of ``source``, in its order.

    Endings of files do not count.

    Raises:
        UnseenError: If a name is missing.
    """
    rows = {_stem(file): row for row, file in enumerate(found.files)}
    missing = [file for file in source.files if _stem(file) not in rows]
    if missing:
        raise UnseenError(f"{path}: no original of {missing[0]} ({len(missing)} missing); give "
                          "one of the same name for each image")
    return found.images[[rows[_stem(file)] for file in source.files]]


def _stem(file: str) -> str:
    """Return a file's path without its ending."""
    return str(PurePosixPath(file).with_suffix(""))
