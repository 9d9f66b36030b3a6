"""A stage ends with the run that started it, also where that was killed."""

import os
import signal
import time
from threading import Thread

__all__ = ["VARIABLE", "end_with_run"]

VARIABLE = "UNSEEN_RUN_PROCESS"
"""Names the process of the run, which DVC and a shell stand between."""

_EVERY = 1.0  # seconds


def end_with_run() -> None:
    """Let this process end, as by SIGTERM, once the run that `VARIABLE` names has ended.

    Without one nothing is done: a stage by itself, or below a bare ``dvc repro``.
    """
    run = os.environ.get(VARIABLE, "")
    if run.isdecimal():
        Thread(target=_watch, args=(int(run),), daemon=True).start()


def _watch(run: int) -> None:
    """Look for a process until it is gone, then end this one."""
    while True:
        try:
            os.kill(run, 0)
        except PermissionError:  # it is there, and somebody else's
            pass
        except OSError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(_EVERY)
