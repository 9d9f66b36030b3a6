"""Files of a repository on a Hugging Face hub: the only module that imports huggingface_hub."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, filter_repo_objects
from huggingface_hub.utils.sha import git_hash

from flows.downloads.retries import Passing, patiently, retry_after
from flows.downloads.transfer import check_url
from flows.running.run import LOG
from flows.settings.download_section import Download
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, write_json

__all__ = ["MANIFEST", "fetch_repository"]

# Hidden: a folder of pictures ignores it, and no repository has a file of this name by chance.
MANIFEST = ".unseen-manifest.json"
_WORKERS = 4


def fetch_repository(section: Download, folder: Path, where: str) -> str:
    """Bring the chosen files of a repository to ``folder``, each checked, and a manifest.

    The library goes on after a cut connection and keeps the files that are whole; what it keeps
    for that lies in ``folder/.cache`` and is gone at the end. The hub names the content of every
    file of a commit (SHA-256 of large files, git's SHA-1 of the others): what differs is thrown
    away. Nothing is opened.

    Args:
        section: ``hub``, ``revision``, ``repo_type``, ``files``, ``max_mib`` and, where given,
            ``sha256`` of single files. The hub is the one that HF_ENDPOINT names, else
            huggingface.co; a token comes from HF_TOKEN or ``hf auth login``.
        folder: Scratch of this repository alone; made when missing.
        where: The parameter of the repository, for messages.

    Returns:
        The commit that ``revision`` stands for.

    Raises:
        UnseenError: The repository, the revision or a file is not there, needs a login, is too
            large or not what the hub or ``sha256`` says, or the connection failed again and
            again.
    """
    return patiently(lambda: _attempt(section, folder, where), where)


def _attempt(section: Download, folder: Path, where: str) -> str:
    """Try once, and say in our words what went wrong."""
    try:
        return _fetch(section, folder, where)
    except LocalEntryNotFoundError as error:  # the library's word for whatever its cause is
        failure: BaseException = error.__cause__ or error
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, httpx2.InvalidURL,
            ValueError) as error:  # the last one: a name that the library does not take
        failure = error
    except OSError as error:  # the library's word for a file of another length
        if error.errno is not None:  # the disk's own
            raise
        failure = error
    raise _judged(failure, f"{section.repo_type} {section.hub} at {section.revision}", where)


def _judged(failure: BaseException, name: str, where: str) -> Passing | UnseenError:
    """Return what a failure means: one that may pass, or one that needs the user."""
    reason = " ".join(str(failure).split()) or type(failure).__name__
    if isinstance(failure, OfflineModeIsEnabled):
        return UnseenError(f"{where}: HF_HUB_OFFLINE forbids the network; unset it")
    if isinstance(failure, HfHubHTTPError):
        status, headers = failure.response.status_code, failure.response.headers
        if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
            return Passing(f"{name}: the hub answers {status}", retry_after(headers))
        said = " ".join((failure.server_message or reason).split())
        return UnseenError(f"{where}: {name}: the hub answers {status} ({said}); correct the name, "
                           "or log in with `hf auth login`")
    if isinstance(failure, httpx2.TransportError):
        return Passing(f"{name}: {reason}")
    return UnseenError(f"{where}: {name}: {reason}")


def _fetch(section: Download, folder: Path, where: str) -> str:
    """List, choose, bring and check."""
    api, kind, repository = HfApi(), section.repo_type, str(section.hub)
    check_url(api.endpoint, f"{where}: HF_ENDPOINT")
    commit = api.repo_info(repository, repo_type=kind, revision=section.revision).sha
    tree = [entry for entry in api.list_repo_tree(repository, recursive=True, revision=commit,
                                                  repo_type=kind) if isinstance(entry, RepoFile)]
    chosen = list(filter_repo_objects(tree, allow_patterns=section.files, key=lambda e: e.path))
    _check_choice(chosen, section, where)
    LOG.info("%s: %d files, %.1f MiB, of commit %s", where, len(chosen),
             sum(entry.size for entry in chosen) / 2**20, commit)
    if not sys.stderr.isatty():
        disable_progress_bars()
    snapshot_download(repository, repo_type=kind, revision=commit, local_dir=folder,
                      allow_patterns=section.files, max_workers=_WORKERS)
    hashes = {entry.path: _checked(entry, folder, where) for entry in chosen}
    _compare(hashes, section.file_hashes(), folder, where)
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in hashes:
            path.unlink()  # an earlier try chose more
    write_json(folder / MANIFEST, {
        "hub": repository, "repo_type": kind, "commit": commit,
        "files": {entry.path: {"sha256": hashes[entry.path], "size": entry.size}
                  for entry in chosen}})
    return str(commit)


def _check_choice(chosen: Sequence[RepoFile], section: Download, where: str) -> None:
    """Refuse an empty choice and one that is too large."""
    if not chosen:
        raise UnseenError(f"{where}: no file of {section.hub} matches {', '.join(section.files)};"
                          " correct files")
    size = sum(entry.size for entry in chosen)
    if size > section.max_bytes:
        raise UnseenError(f"{where}: the files have {size / 2**20:.0f} MiB; choose fewer with "
                          f"{where}.files, or set {where}.max_mib higher if that is right")


def _checked(entry: RepoFile, folder: Path, where: str) -> str:
    """Return a file's SHA-256 if its content is what the hub says of the commit."""
    path = folder / entry.path
    if not path.is_file():
        raise Passing(f"{entry.path} did not come")
    found = file_hash(path)
    said, is_ = ((entry.lfs.sha256, found) if entry.lfs
                 else (entry.blob_id, git_hash(path.read_bytes())))
    if said != is_:
        path.unlink()
        raise UnseenError(f"{where}: {entry.path} came with hash {is_}, but the hub says {said}; "
                          "run it again to fetch it again")
    return found


def _compare(found: Mapping[str, str], wanted: Mapping[str, str], folder: Path, where: str) -> None:
    """Compare with the hashes of params.yaml."""
    for name, sha256 in wanted.items():
        if name not in found:
            raise UnseenError(f"{where}: sha256 names {name}, which is not among the files; "
                              f"they are {', '.join(sorted(found)[:8])}")
        if found[name] != sha256:
            raise UnseenError(f"{where}: {name} has sha256 {found[name]}, not {sha256}; correct "
                              f"{where}.sha256, or choose another revision")
