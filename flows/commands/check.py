"""`check`: every mistake that params.yaml, paths and headers show before anything runs."""

import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.loading.checkpoints import misfits, open_model
from flows.settings.params import Params, read_params
from flows.settings.paths import PATHS
from flows.settings.plan import Plan
from flows.settings.sections import Domain
from flows.stages.fetch import source_of
from unseen_core.basics.device import pick_device
from unseen_core.checkpoints.loading import Checkpoint
from unseen_core.errors import UnseenError
from unseen_core.sources import check as check_source
from unseen_core.sources.reading import visible

__all__ = ["check_file"]

_FOLDERS, _FILES, _BOTH = ("folder",), ("zip", "npz", "npy"), ("tar", "parquet", "lmdb", "datasets")


def check_file(path: Path) -> tuple[list[str], str]:
    """Return a line for each mistake, and what a sound file asks for.

    Images are not decoded and nothing is computed; a checkpoint that is there is opened.

    Args:
        path: The parameters.

    Raises:
        UnseenError: If the file cannot be read as YAML.
    """
    params, lines = read_params(path)
    if params is None:
        return lines, ""
    try:
        params.check()
    except UnseenError as error:  # what follows looks these names up
        return [str(error)], ""
    lines = [*_samplers(params), *_domains(params), *_said(_device, params)]
    opened = []
    for name in params.models:
        found = _opened(params, name)
        lines += [found] if isinstance(found, str) else []
        if isinstance(found, Checkpoint):
            opened.append(found)
            lines += _fits(params, name, found)
    cells = 0 if lines else len(Plan.of(params).cells)
    size, said = _size(params, opened, cells)
    free = shutil.disk_usage(path.resolve().parent).free
    if size > free:
        lines.append(f"{said}, and the disk has {_bytes(free)} left; lower sample.count, levels or "
                     "fit, or work on another disk")
    return lines, f"{cells} cells a domain; {said}"


def _said(look: Callable[..., object], *values: object) -> list[str]:
    """Return what a function complains of: one line or none."""
    try:
        look(*values)
    except UnseenError as error:
        return [str(error)]
    return []


def _device(params: Params) -> None:
    """Raise UnseenError unless the device is here."""
    try:
        pick_device(params.compute.device)
    except UnseenError as error:
        raise UnseenError(f"compute.device: {error}") from None


def _samplers(params: Params) -> Iterator[str]:
    """Yield what is wrong with each sampler, by itself and for the fewest images of a domain."""
    few = min(params.pipeline.domains, key=lambda name: params.domain(name).fit)
    fit = params.domain(few).fit
    for name, section in params.samplers.items():
        alone = params.model_copy(update={"samplers": {name: section}})
        if wrong := _said(Plan.of, alone):
            yield from wrong
            continue
        sampler = Plan.of(alone).built[name]
        if sampler.fewest > fit:
            yield (f"samplers.{name} needs {sampler.fewest} fit images, and domains.{few}.fit is "
                   f"{fit}; lower near or the number of parents, or raise fit")


def _domains(params: Params) -> Iterator[str]:
    """Yield what is wrong with the source of each domain, as far as a look at its path tells."""
    for name, section in params.domains.items():
        if wrong := _said(check_source, source_of(params, name)):
            yield from wrong
            continue
        wanted = section.fit + section.held_out
        for key in ("limit", "pool"):
            most = getattr(section, key)
            if most is not None and most < wanted:
                yield (f"domains.{name}.{key}: {most} images are fewer than fit + held_out, "
                       f"{wanted}; raise it or lower those")
        # Of the others the path is nothing but what DVC watches.
        named = section.source in (*_FOLDERS, *_FILES, *_BOTH) and not section.hub
        if not named or _comes(params, section.path):
            continue
        path = Path(section.path)
        if not path.exists():
            yield f"domains.{name}.path: {path} does not exist; correct it"
        elif not (path.is_file() or path.is_dir()):
            yield f"domains.{name}.path: {path} is neither a file nor a folder; give one of them"
        elif path.is_dir() and section.source in _FILES:
            yield f"domains.{name}.path: {path} is a folder; give a {section.source} file"
        elif path.is_file() and section.source in _FOLDERS:
            yield f"domains.{name}.path: {path} is a file; give a folder"
        elif (count := _entries(section, path)) is not None and count < wanted:
            yield (f"domains.{name}: {path} has {count} files, fewer than fit + held_out, "
                   f"{wanted}; lower these or add images")


def _entries(section: Domain, path: Path) -> int | None:
    """Return at most how many images there are; None where a look at the names does not tell."""
    try:
        if section.source == "folder":
            names = [file.name for file in visible(path.resolve()) if not file.is_dir()]
        elif section.source == "zip":
            with zipfile.ZipFile(path) as archive:
                names = [member.filename for member in archive.infolist() if not member.is_dir()]
        else:
            return None
    except (OSError, zipfile.BadZipFile, UnseenError):  # fetch says what is wrong
        return None
    many = section.pages == "all" or any(".nii" in name.lower() for name in names)
    return None if many and names else len(names)


def _comes(params: Params, path: str) -> bool:
    """Say whether a path lies in what a download will bring."""
    return any(Path(path).is_relative_to(PATHS.download(name)) for name in params.downloads)


def _opened(params: Params, name: str) -> Checkpoint | str | None:
    """Return a model's checkpoint, what is wrong with it, or None where it is still to come."""
    section = params.model(name)
    if _comes(params, section.path) and not Path(section.path).exists():
        return None
    try:
        return open_model(name, section, size=params.images.size)[0]
    except UnseenError as error:
        return f"models.{name}: {str(error).removeprefix(f'models.{name}: ')}"


def _fits(params: Params, name: str, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield where levels, calls and the size of images do not go with a network."""
    yield from misfits(params, name, checkpoint)
    schedule = checkpoint.schedule
    for title in ("trajectory", "steer"):
        for level in getattr(params, title).levels:
            yield from _said(schedule.check_level, level, f"{title}.levels:")
    if max(params.levels) > schedule.top:
        return
    if wrong := _said(lambda: schedule.grid(
            params.solver.steps, max(params.levels), spacing=params.solver.spacing,
            through=sorted(params.levels)[:-1])):
        yield f"solver.{wrong[0]}, for as many levels"
    elif params.solver.steps > max(params.levels):
        yield (f"solver.steps: {params.solver.steps} calls are more than there are levels up to "
               f"{max(params.levels)}; lower it")


def _size(params: Params, opened: list[Checkpoint], cells: int) -> tuple[int, str]:
    """Return the bytes that a run keeps of models whose shape is known, and the same in words."""
    numbers = [math.prod(checkpoint.shape) for checkpoint in opened]
    fits = [params.domain(name).fit for name in params.pipeline.domains]
    stored = 2 if params.invert.store == "float16" else 4
    latents = sum(numbers) * sum(fits) * len(params.levels) * stored
    starts = sum(numbers) * len(fits) * cells * params.sample.count * 4
    memory = max(numbers, default=0) * max(fits) * 4
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    of = f" of this machine's {_bytes(have)}" if memory > have // 2 else ""
    return latents + starts, (f"latents take {_bytes(latents)} and start states {_bytes(starts)} "
                              f"on disk, the latents of a level {_bytes(memory)} of memory{of}")


def _bytes(count: float) -> str:
    """Return a number of bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
