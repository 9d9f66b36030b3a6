"""DVC as a child process: its lines passed on as they come, its lock waited for, ended with us."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from flows.running.orphan import VARIABLE
from flows.running.registry import UNRECORDED
from flows.running.run import LOG
from unseen_core.errors import UnseenError

__all__ = ["Outcome", "Say", "environment", "pull_or_push", "run_dvc", "stopped_by_sigterm"]

Say = Callable[[str], None]

LOCKED = ("Unable to acquire lock", "is busy, it is being blocked by")
FROZEN = "is frozen. Its dependencies are not going to be reproduced"
LOCK_ATTEMPTS = 3
LOCK_DELAY = 10.0
"""Seconds between attempts while another DVC process holds the repository."""
STOP_SECONDS = 10.0


@dataclass
class Outcome:
    """What a DVC command did: exit code, seconds by stage that ran, whether it was locked out."""

    code: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    locked: bool = False

    def check(self) -> None:
        """Raise unless everything went well.

        Raises:
            UnseenError: If another DVC process kept the repository, or a stage failed.
        """
        if self.locked:
            raise UnseenError(
                "another DVC process works in this repository; wait until it has ended")
        if self.code:
            stage = next(reversed(self.seconds), "")
            where = f" at stage {stage}" if stage else ""
            raise UnseenError(f"the pipeline stopped{where}; the reason stands above")


def run_dvc(words: Sequence[str], root: Path, variables: Mapping[str, str], say: Say) -> Outcome:
    """Run ``dvc <words>``, again while another DVC process holds the lock.

    An exception, such as a signal's, ends DVC and its stages too; parts that are finished stay in
    ``.work``, and the next run goes on from them.

    Args:
        words: The arguments of ``dvc``.
        root: The repository's root.
        variables: The whole environment, see `environment`.
        say: Receives each line of output.
    """
    command = [sys.executable, "-m", "dvc", *words]
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        outcome = _stream(command, root, variables, say)
        if not outcome.locked or attempt == LOCK_ATTEMPTS:
            break
        LOG.warning("another DVC process holds the lock; trying again in %g s", LOCK_DELAY)
        time.sleep(LOCK_DELAY)
    return outcome


def pull_or_push(direction: str, root: Path, say: Say) -> None:
    """Pull from or push to the default remote, what earlier runs computed included.

    Args:
        direction: ``pull`` or ``push``.
        root: The repository's root.
        say: Receives each line of output.

    Raises:
        UnseenError: If DVC has no default remote, or cannot reach it.
    """
    words = [direction, "--run-cache", *(["--allow-missing"] if direction == "pull" else [])]
    outcome = run_dvc(words, root, environment(), say)
    if outcome.code:
        raise UnseenError(f"`dvc {direction}` failed, the reason stands above; a remote is set "
                          "with `dvc remote add -d NAME PLACE`")


def environment() -> dict[str, str]:
    """Return the environment of a DVC process: this one, with this interpreter first.

    Stages below it end with this process.
    """
    # A scheduled flow run's own marks would make a stage believe that it is that run.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT__")}
    tools = str(Path(sys.executable).parent)
    path = os.pathsep.join([tools, kept.get("PATH", os.defpath)])
    return kept | {"PATH": path, "PYTHONUNBUFFERED": "1", VARIABLE: str(os.getpid())}


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, unless somebody else handles it."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stream(
    command: Sequence[str], root: Path, variables: Mapping[str, str], say: Say
) -> Outcome:
    """Run a command, pass its lines on as they come, and read from them what happened."""
    outcome = Outcome()
    stage, since, locked, warned = "", time.monotonic(), False, False
    with _child(command, root, variables) as process:
        for line in process.stdout or ():
            unrecorded = UNRECORDED in line
            # Each stage would repeat the first. The second is intended: `pretrain` made what is
            # shipped.
            if not (unrecorded and warned) and FROZEN not in line:
                say(line.rstrip("\n"))
            warned = warned or unrecorded
            locked = locked or any(sign in line for sign in LOCKED)
            if started := re.match(r"Running stage '([^']+)'", line):
                now = time.monotonic()
                if stage:
                    outcome.seconds[stage] = now - since
                stage, since = started[1], now
                outcome.seconds[stage] = 0.0
    if stage:
        outcome.seconds[stage] = time.monotonic() - since
    outcome.code = process.returncode
    outcome.locked = bool(process.returncode) and locked
    return outcome


@contextmanager
def _child(
    command: Sequence[str], root: Path, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a group of its own, and end the whole group when the block fails."""
    with subprocess.Popen(
        command,
        cwd=root,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[str]) -> None:
    """End a process group: a stage has some seconds to tell Prefect that it was stopped."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
