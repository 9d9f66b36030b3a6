"""Stage ``download``: files from the network, fetched once, checked, kept by DVC."""

import shutil

from flows.downloads.transfer import transfer
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.download_section import Download
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.store import Scratch, file_hash, write_with

__all__ = ["download"]


@stage("download")
def download(run: Run, *, name: str) -> dict[str, object]:
    """Bring one entry of ``downloads`` to data/downloads/NAME.

    The hash or the commit in params.yaml fixes what comes, so no change of code repeats it. What
    is there stays until what replaces it is whole and checked.

    Raises:
        UnseenError: The entry is not defined, or what came is not what it says.
    """
    section = load_params().download(name)
    fetch = _fetch_file if section.url is not None else _fetch_repository
    return run.map(lambda item: fetch(item, section), [name], name=str)[0]


def _fetch_file(name: str, section: Download) -> dict[str, object]:
    """Bring one file."""
    target = PATHS.download(name) / section.file_name()
    sha256 = section.file_hash()
    if sha256 is None or not target.is_file() or file_hash(target) != sha256:
        with Scratch(PATHS.work, f"download-{name}") as scratch:
            body = transfer(str(section.url), scratch.folder, sha256=sha256,
                            max_bytes=section.max_bytes, where=f"downloads.{name}")
            shutil.rmtree(target.parent, ignore_errors=True)
            write_with(target, lambda temporary: shutil.move(body, temporary))
            shutil.rmtree(scratch.folder)
    return {"name": name, "sha256": sha256}


def _fetch_repository(name: str, section: Download) -> dict[str, object]:
    """Bring files of a hub repository."""
    # huggingface_hub takes a second to import, and only this half of the stage needs it.
    from flows.downloads.hub import fetch_repository

    out = PATHS.download(name)
    with Scratch(PATHS.work, f"download-{name}") as scratch:
        files = scratch.folder / "files"
        commit = fetch_repository(section, files, f"downloads.{name}")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(files, out)
        shutil.rmtree(scratch.folder)
    return {"name": name, "commit": commit}
