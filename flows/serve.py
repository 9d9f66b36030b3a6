"""``python -m flows serve``: the MLflow UI and a Prefect server on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from flows.mlflow.provenance import store_label, store_uri
from unseen_core.errors import UnseenError

__all__ = ["serve"]

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0

Server = tuple[str, int, list[str]]


def serve(
    *,
    root: Path | None = None,
    mlflow_port: int | None = None,
    prefect_port: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve both on 127.0.0.1 until Ctrl-C or SIGTERM, then stop both.

    Args:
        root: The repository's root; the working directory by default.
        mlflow_port: By default ``UNSEEN_MLFLOW_PORT``, else 5000.
        prefect_port: By default ``UNSEEN_PREFECT_PORT``, else 4200.
        say: Receives the addresses once both answer.

    Raises:
        UnseenError: If a port is taken or no port, or a server ends by itself.
    """
    root = (root or Path.cwd()).resolve()
    servers: list[Server] = []
    uri = store_uri(root)
    if uri.startswith(("http:", "https:")):
        say(f"MLflow   {store_label(root)}  (MLFLOW_TRACKING_URI, served elsewhere)")
    else:
        port = _port("UNSEEN_MLFLOW_PORT", mlflow_port, 5000)
        servers.append(("MLflow", port, _mlflow(root, uri, port)))
    port = _port("UNSEEN_PREFECT_PORT", prefect_port, 4200)
    servers.append(("Prefect", port, _module("prefect", "server", "start", port=port)))

    with _stopped_by_signals(), _children(servers, port) as children:
        for (name, port, _), child in zip(servers, children, strict=True):
            _await(name, port, child)
            say(f"{name:8} http://{HOST}:{port}")
        say(f"To record stages:  export PREFECT_API_URL=http://{HOST}:{port}/api")
        say("Ctrl-C stops both.")
        with suppress(KeyboardInterrupt):
            while True:
                for (name, _, _), child in zip(servers, children, strict=True):
                    if child.poll() is not None:
                        raise UnseenError(f"the {name} server ended; its reason stands above")
                time.sleep(0.5)


def _mlflow(root: Path, uri: str, port: int) -> list[str]:
    """Return the command of the MLflow server; artifacts of runs keep their own place."""
    home = Path(os.environ.get("DVC_ROOT") or root)
    places = ["--backend-store-uri", uri, "--artifacts-destination", str(home / "mlartifacts")]
    return _module("mlflow", "server", "--workers", "1", *places, port=port)


def _module(*words: str, port: int) -> list[str]:
    """Return the command that runs a server's module on the loopback address."""
    return [sys.executable, "-m", *words, "--host", HOST, "--port", str(port)]


def _port(variable: str, given: int | None, default: int) -> int:
    """Return the port to use, free at this moment."""
    text = str(given if given is not None else os.environ.get(variable) or default)
    port = int(text) if text.isdecimal() else 0
    if not 0 < port < 65536:
        raise UnseenError(f"{variable}={text} is not a valid port; give a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UnseenError(
                f"port {port} on {HOST} is not free; set {variable} to another one"
            ) from error
    return port


@contextmanager
def _children(
    servers: Sequence[Server], prefect_port: int
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the servers, each with its process group, and stop them whatever happens."""
    # MLflow's job runner starts further processes that a viewer has no use for.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("PREFECT_API_URL", None)
    # Prefect's pages ask port 4200 unless this names another.
    environment["PREFECT_UI_API_URL"] = f"http://{HOST}:{prefect_port}/api"
    children: list[subprocess.Popen[bytes]] = []
    try:
        for _, _, command in servers:
            children.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
        yield children
    finally:
        for child in children:
            _signal(child, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, end - time.monotonic()))
            # What is left of the group, such as a worker that outlived its parent.
            _signal(child, signal.SIGKILL)
            child.wait()


def _signal(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a child's process group, which may be gone."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _await(name: str, port: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until a server accepts connections."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if child.poll() is not None:
            raise UnseenError(f"the {name} server did not start; its reason stands above")
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.1)
    raise UnseenError(f"the {name} server did not answer on port {port} in {START_SECONDS:g} s")


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
