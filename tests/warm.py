"""A `python` for stages that has imported the slow libraries: a process per command, by fork.

Twenty stages start in one test, and each would spend seconds on importing what the last one had
imported. Arguments, folder, environment and streams are the caller's; the project's own code is
imported anew, from the caller's folder.
"""

import json
import os
import runpy
import signal
import socket
import sys
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

CLIENT = """#!{python} -ISE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(link, [len(call).to_bytes(4, "big")], [0, 1, 2])
    link.sendall(call)
    sys.exit(int.from_bytes(link.recv(1) or b"\\1", "big"))
"""


@contextmanager
def warm_python(folder):
    """Start the server and yield the search path on which ``python`` is its client."""
    address = folder / "link"
    client = folder / "bin/python"
    client.parent.mkdir(parents=True)
    client.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    client.chmod(0o755)
    with Popen([sys.executable, str(Path(__file__).resolve()), str(address)],
               stdout=PIPE) as server:
        try:
            assert server.stdout.readline() == b"ready\n"
            yield os.pathsep.join([str(client.parent), os.environ.get("PATH", os.defpath)])
        finally:
            server.terminate()


def serve(address):
    """Fork for each caller, until terminated."""
    import diffusers
    import matplotlib.pyplot
    import mlflow
    import pandas
    import sklearn.svm
    import torch

    assert all((diffusers, matplotlib, mlflow, pandas, sklearn, torch))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        while True:
            link, _ = door.accept()
            if os.fork() == 0:
                answer(link)
            link.close()


def answer(link):
    """Be the caller's process: run its module and tell its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(link, 4, 3)
    call = b""
    while len(call) < int.from_bytes(size, "big"):
        call += link.recv(65536)
    (flag, module, *words), folder, environment = json.loads(call)
    assert flag == "-m"
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0], sys.argv = folder, [module, *words]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        link.sendall(code.to_bytes(1, "big"))
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
