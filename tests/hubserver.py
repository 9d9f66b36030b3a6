"""A web server on this machine that speaks a hub's protocol and fails on demand."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 2000
"""Bytes from which on a repository's file is a large one, known by its SHA-256."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request: an answer with a status, or a body that is cut."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    range: str | None
    condition: str | None


@dataclass
class Site:
    """What is served: plain files by path, and repositories, a mapping of files each.

    A repository is named ``models/owner/name`` or ``datasets/owner/name`` and has one commit,
    which every revision but ``absent`` stands for.
    """

    address: str = ""
    store: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    lengths: bool = True
    log: list[Asked] = field(default_factory=list)

    def asked(self, path: str, method: str = "GET") -> list[Asked]:
        """Return the requests for a path."""
        return [one for one in self.log if (one.path, one.method) == (path, method)]

    def fault(self, path: str) -> Fault | None:
        """Take the next fault that is planned for a path."""
        planned = self.faults.get(path)
        return planned.pop(0) if planned else None


def blob_id(content: bytes) -> str:
    """Return git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers for the ``Site`` that its class carries."""

    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with what is there, unless a fault is planned."""
        path = unquote(urlsplit(self.path).path)
        self.site.log.append(Asked(self.command, path, self.headers["Range"],
                                   self.headers["If-Range"]))
        fault = self.site.fault(path) if self.command == "GET" else None
        if fault is not None and fault.status:
            self.reply(fault.status, b"no", fault.headers)
        elif path in self.site.files:
            self.send(self.site.files[path], {}, fault)
        elif path.startswith("/api/"):
            self.describe(path.split("/")[2:])
        elif "/resolve/" in path:
            self.resolve(path, fault)
        else:
            self.reply(404, b"no", {})

    def describe(self, parts: list[str]) -> None:
        """Answer what the hub says of a repository at a revision, or list its files."""
        name, (question, revision) = "/".join(parts[:3]), parts[3:5]
        if self.missing(name, revision):
            return
        files = self.site.repositories[name]
        if question == "revision":
            said = {"id": "/".join(parts[1:3]), "sha": COMMIT, "tags": [], "private": False,
                    "siblings": [{"rfilename": file} for file in files]}
        else:
            said = [self.entry(*file) for file in files.items()]
        self.reply(200, json.dumps(said).encode(), {"Content-Type": "application/json"})

    @staticmethod
    def entry(path: str, content: bytes) -> dict[str, object]:
        """Return a file as the tree lists it."""
        entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
        if len(content) >= LARGE:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content),
                            "pointerSize": 130}
        return entry

    def resolve(self, path: str, fault: Fault | None) -> None:
        """Answer with a file of a repository; a large one by a redirect to where it lies."""
        place, _, rest = path.lstrip("/").partition("/resolve/")
        name = place if place.startswith("datasets/") else f"models/{place}"
        revision, _, file = rest.partition("/")
        if self.missing(name, revision):
            return
        content = self.site.repositories[name].get(file)
        if content is None:
            self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": COMMIT}
        if len(content) < LARGE:
            self.send(content, headers | {"ETag": f'"{blob_id(content)}"'}, fault)
            return
        digest = hashlib.sha256(content).hexdigest()
        self.site.files.setdefault(f"/store/{digest}", content)
        self.reply(302, b"", headers | {
            "Location": f"{self.site.store}/store/{digest}",
            "X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))})

    def missing(self, name: str, revision: str) -> bool:
        """Answer 404 in the hub's words if a repository or its revision is not there."""
        code = ("RepoNotFound" if name not in self.site.repositories
                else "RevisionNotFound" if revision == "absent" else None)
        if code is not None:
            self.reply(404, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{code}: {name}"})
        return code is not None

    def send(self, content: bytes, headers: Mapping[str, str], fault: Fault | None) -> None:
        """Answer with a file, or the rest of it where that is asked for and it is the same."""
        etag = headers.get("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        found = dict(headers) | ({"ETag": etag} if self.site.validators else {})
        asked, condition = self.headers["Range"], self.headers["If-Range"]
        status, start = 200, 0
        if asked and self.site.ranges and condition in (None, etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            status = 206
            found["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.reply(status, content[start:], found, None if fault is None else fault.cut)

    def reply(
        self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None
    ) -> None:
        """Send an answer; with ``cut``, only that many bytes of the body that is announced."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.site.lengths:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def serve() -> Iterator[Site]:
    """Serve an empty site on two free ports until the block ends.

    Large files lie at the second one: the client takes a redirect to its own port for the hub's.
    """
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    with running(handler) as site.address, running(handler) as site.store:
        yield site


@contextmanager
def running(handler: type[Handler]) -> Iterator[str]:
    """Run a server until the block ends, and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
