"""Folders that the user names: read with the checks of a domain, made and never overwritten."""

from pathlib import Path

from flows.params import Params
from flows.run import Run
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig, SourceImages, load

__all__ = ["check_out", "read_images"]


def check_out(out: Path) -> None:
    """Raise UnseenError unless a folder is absent or empty: nothing is ever overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UnseenError(f"{out} is there already; name a folder that is new or empty")


def read_images(params: Params, path: str, size: int, run: Run) -> SourceImages:
    """Return the images of a folder or zip at a network's size, and warn of unusable files.

    Raises:
        UnseenError: If none is usable, or one is not and ``images.skip_bad`` is false.
    """
    kind = "zip" if Path(path).is_file() else "folder"
    source = load(SourceConfig(
        kind=kind, domain="images", path=path, crop=params.images.crop, size=size,
        skip_bad=params.images.skip_bad, max_pixels=params.images.max_pixels))
    for name, reason in source.skipped:
        run.log.warning("%s: skipped %s: %s", path, name, reason)
    return source
