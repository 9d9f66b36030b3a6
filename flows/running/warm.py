"""Stages that start at once: one process has imported what they need, and forks for each.

Importing torch and diffusers takes seconds, and DVC starts a process for every stage. During a run
of the pipeline that process hands its command to another, which has the libraries in memory and
forks a copy of itself that runs it; the project's own code is imported anew in each copy.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

__all__ = ["VARIABLE", "hand_over", "wait_for_commands", "warm_stages"]

VARIABLE = "UNSEEN_WARM_SOCKET"
"""Names the socket at which commands are taken."""

_LIBRARIES = ("torch", "diffusers.models.unets.unet_2d", "pandas", "pyarrow.parquet",
              "scipy.stats", "safetensors.torch", "PIL.Image", "pydantic", "ruamel.yaml", "tqdm")
_PROGRAM = """
import sys
from flows.running.warm import wait_for_commands
if wait_for_commands(int(sys.argv[1])):
    from flows.__main__ import main
    main()
"""
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")  # CUDA, ROCm
_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_ENDS_WITHIN = 10.0  # seconds; longer than an import takes
_LENGTH = 8  # bytes that hold the length of a request


@contextmanager
def warm_stages() -> Iterator[Mapping[str, str]]:
    """Keep a warm process for the block; yield the variables that tell stages of it.

    They are empty where forking is not safe: beside a GPU's driver, which a fork cannot share, and
    on systems other than Linux.
    """
    if sys.platform != "linux" or any(Path(driver).exists() for driver in _DRIVERS):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/stages"
        listener.bind(path)
        listener.listen()
        command = [sys.executable, "-c", _PROGRAM, str(listener.fileno())]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              pass_fds=[listener.fileno()], start_new_session=True) as process:
            listener.close()  # so that nobody waits at it once that process has ended
            try:
                yield {VARIABLE: path}
            finally:
                assert process.stdin is not None
                process.stdin.close()  # which ends it, and what it still runs
                try:
                    process.wait(_ENDS_WITHIN)
                except subprocess.TimeoutExpired:
                    process.kill()


def hand_over() -> int | None:
    """Let the warm process run this command; return its exit code, or None if there is none.

    Signals are passed on, and the command ends with this process.
    """
    path = os.environ.pop(VARIABLE, "")
    if not path:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            request = json.dumps({"argv": sys.argv, "cwd": str(Path.cwd()),
                                  "path": sys.path, "environment": dict(os.environ)}).encode()
            socket.send_fds(connection, [len(request).to_bytes(_LENGTH, "big")], [0, 1, 2])
            connection.sendall(request)
            answers = connection.makefile("r")
            begun = answers.readline()
        except OSError:
            return None
        if not begun:
            return None

        def forward(number: int, _frame: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(int(begun), number)

        for number in _FORWARDED:
            signal.signal(number, forward)
        try:
            code = int(answers.readline() or 1)
        except OSError:  # the warm process has ended, and the command with it
            code = 1
    return code if code >= 0 else 128 - code


def wait_for_commands(listener: int) -> bool:
    """Fork for each command that comes, until standard input ends.

    Returns:
        In a copy True, with everything set for its command; False in the process itself, at its
        end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=listener) as door, selectors.DefaultSelector() as waiting:
        waiting.register(0, selectors.EVENT_READ)
        waiting.register(door, selectors.EVENT_READ)
        running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: process and its client
        while True:
            for key, _ in waiting.select():
                if key.fileobj == 0:
                    for process, _client in running.values():
                        os.kill(process, signal.SIGKILL)
                    return False
                if key.fileobj is door:
                    if _take(door, waiting, running):
                        return True
                elif key.fd in running:
                    process, client = running.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                    with suppress(OSError):
                        client.sendall(f"{code}\n".encode())
                    waiting.unregister(key.fd)
                    os.close(key.fd)
                    if client in waiting.get_map():
                        waiting.unregister(client)
                    client.close()
                elif key.fileobj in waiting.get_map():  # a client that sends nothing has ended
                    waiting.unregister(key.fileobj)
                    for process, client in running.values():
                        if client is key.fileobj:
                            os.kill(process, signal.SIGKILL)


def _take(
    door: socket.socket, waiting: selectors.BaseSelector,
    running: dict[int, tuple[int, socket.socket]],
) -> bool:
    """Take a command and fork; return whether this is the copy that is to run it."""
    client, _ = door.accept()
    length, files, _, _ = socket.recv_fds(client, _LENGTH, 3)
    with client.makefile("rb") as reader:
        request = reader.read(int.from_bytes(length, "big"))
    if not request:  # it ended before it had asked
        client.close()
        return False
    asked = json.loads(request)
    for name in _LIBRARIES:
        import_module(name)
    process = os.fork()
    if process:
        for file in files:
            os.close(file)
        ended = os.pidfd_open(process)
        running[ended] = process, client
        waiting.register(ended, selectors.EVENT_READ)
        waiting.register(client, selectors.EVENT_READ)
        with suppress(OSError):
            client.sendall(f"{process}\n".encode())
        return False
    for ended, (_, other) in running.items():
        os.close(ended)
        other.close()
    client.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv, sys.path = asked["argv"], asked["path"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "flows"]:
        del sys.modules[name]  # an experiment has code of its own
    return True
