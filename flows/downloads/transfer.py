"""One file over HTTPS: resumed, capped and hashed. The file is never opened here."""

import ipaddress
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from flows.downloads.retries import Passing, patiently, retry_after
from flows.running.run import LOG
from unseen_core.errors import UnseenError
from unseen_core.store import file_hash, read_json, write_json

__all__ = ["check_url", "transfer"]

_TIMEOUT = 30.0


def check_url(url: str, where: str) -> None:
    """Refuse an address that is not https, or carries a password.

    Plain http is allowed to this machine alone, for a mirror that runs on it.

    Raises:
        UnseenError: The address is refused.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise UnseenError(f"{where}: {url!r} is not of the form https://host/path; a file "
                          "on this machine needs no download, name it where it is used")
    if parts.username or parts.password:
        raise UnseenError(f"{where}: the address carries a user or a password; leave them out, "
                          "params.yaml is public")
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(host)):
        raise UnseenError(f"{where}: {url!r} is refused; only https is allowed, and http to this "
                          "machine itself")


def _loopback(host: str) -> bool:
    """Say whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def transfer(url: str, folder: Path, *, sha256: str | None, max_bytes: int, where: str) -> Path:
    """Bring a file to ``folder/body`` and return that path once its hash is right.

    What has come survives a failure or a kill. The next call asks for the rest with Range and
    If-Range (RFC 9110, 13.1.5 and 14.2), so that a file which has changed in between is sent
    anew, as it is by a server that knows no ranges. A whole file whose hash is not given, or is
    another, stays too: with the right hash set, the next call takes it without the network.

    Args:
        url: An https address; redirects may not leave https.
        folder: Scratch of this file alone; made when missing.
        sha256: The hash that the file must have; None is an error that names the computed one.
        max_bytes: The largest size that is taken.
        where: The parameter of the file, for messages.

    Raises:
        UnseenError: The address is refused or answers with an error, the file is too large, its
            hash is not given or another, or the connection failed again and again.
    """
    check_url(url, where)
    folder.mkdir(parents=True, exist_ok=True)
    body, record = folder / "body", folder / "state.json"
    finished = _recall(record, url).get("sha256")
    if not body.is_file() or finished is None or sha256 not in (None, finished):
        if finished is not None:  # it was refused before
            body.unlink(missing_ok=True)
        with _client(url, where) as client:
            patiently(lambda: _go_on(client, url, body, record, max_bytes, where), where)
    found = file_hash(body)
    write_json(record, {"url": url, "sha256": found})
    if sha256 is None:
        raise UnseenError(f"{where}: no sha256 is given; the file that came has {found}: compare "
                          f"it with what its publisher says and set {where}.sha256")
    if found != sha256:
        raise UnseenError(f"{where}: the file that came has sha256 {found}, not {sha256}; correct "
                          f"{where}.sha256, or run it again to fetch the file again")
    return body


def _recall(record: Path, url: str) -> dict[str, str | None]:
    """Return what is known of an unfinished file; nothing if it came from another address."""
    try:
        state = read_json(record)
    except UnseenError:
        return {}
    return state if state.get("url") == url else {}


def _client(url: str, where: str) -> httpx2.Client:
    """Return a client that follows redirects, but never out of https."""

    def guard(request: httpx2.Request) -> None:
        target = str(request.url)
        check_url(target, where)
        if url.startswith("https:") and request.url.scheme != "https":
            raise UnseenError(f"{where}: {url} redirects to {target}, out of https; refused")

    return httpx2.Client(follow_redirects=True, timeout=_TIMEOUT, event_hooks={"request": [guard]})


def _go_on(
    client: httpx2.Client, url: str, body: Path, record: Path, max_bytes: int, where: str
) -> None:
    """Ask for what is missing of ``body`` and append it; from the beginning where it must be."""
    validator = _recall(record, url).get("validator")
    have = body.stat().st_size if validator and body.is_file() else 0
    headers = {"Accept-Encoding": "identity"}
    if validator and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        with client.stream("GET", url, headers=headers) as response:
            sent = response.headers.get("content-range", "")
            status = response.status_code
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and sent == f"bytes */{have}":
                return  # the last try was stopped after the last byte
            if status == HTTPStatus.OK:
                have = 0
                body.unlink(missing_ok=True)  # before the record says that it is of this file
                write_json(record, {"url": url, "validator": _validator(response.headers)})
            elif status != HTTPStatus.PARTIAL_CONTENT or not sent.startswith(f"bytes {have}-"):
                _refuse(response, body, where)
            _save(response, body, have, max_bytes, where)
    except httpx2.TransportError as error:
        raise Passing(f"{url}: {error or type(error).__name__}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = " ".join(str(error).split())
        raise UnseenError(f"{where}: {url}: {reason}; correct the address") from error


def _validator(headers: Mapping[str, str]) -> str | None:
    """Return what proves later that a file is still the same; a weak ETag does not."""
    etag = headers.get("etag", "")
    return etag if etag.startswith('"') else headers.get("last-modified")


def _refuse(response: httpx2.Response, body: Path, where: str) -> None:
    """Raise what an answer without the wanted bytes means."""
    status, url = response.status_code, response.request.url
    said = f"{url} answers {status} {response.reason_phrase}".rstrip()
    if status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        body.unlink(missing_ok=True)  # the next try begins anew
        raise Passing(f"{said} for another range")
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
        raise Passing(said, retry_after(response.headers))
    raise UnseenError(f"{where}: {said}; correct the address, or see whether it needs a login")


def _save(response: httpx2.Response, body: Path, have: int, max_bytes: int, where: str) -> None:
    """Append a response to the first ``have`` bytes of ``body``, and show how far it is."""
    length = response.headers.get("content-length", "")
    total = have + int(length) if length.isdecimal() else None
    if total is None or total <= max_bytes:
        with body.open("ab" if have else "wb") as file, _shown(where, have, total) as show:
            for block in response.iter_raw():  # as it comes: a cut loses nothing that came
                file.write(block)
                have += len(block)
                show(have)
                if have > max_bytes:
                    break
    if max(have, total or 0) > max_bytes:
        raise UnseenError(f"{where}: the file is larger than {max_bytes / 2**20:g} MiB; set "
                          f"{where}.max_mib higher if that is right")


@contextmanager
def _shown(label: str, have: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function of the bytes so far: a bar on a terminal, else a line for each tenth."""
    terminal = sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), DownloadColumn(), TimeRemainingColumn())
    reported = 10 * have // total if total else 0
    with Progress(*columns, console=Console(stderr=True), transient=True,
                  disable=not terminal) as progress:
        bar = progress.add_task(label, total=total, completed=have)

        def show(done: int) -> None:
            nonlocal reported
            progress.update(bar, completed=done)
            if total and not terminal and 10 * done // total > reported:
                reported = 10 * done // total
                LOG.info("%s: %.1f of %.1f MiB", label, done / 2**20, total / 2**20)

        yield show
