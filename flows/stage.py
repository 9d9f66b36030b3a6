"""The registry of stages, and the choice between a direct and a recorded run."""

import importlib
import os
from collections.abc import Callable, Mapping
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

from flows.run import LOG, DirectRun
from unseen_core.errors import UnseenError

__all__ = ["STAGES", "UNRECORDED", "StageFunction", "find_stage", "prefect_answers", "run_stage",
           "stage"]

UNRECORDED = "not recorded in Prefect"
"""Begins the one line that tells of a server that is away."""
PATIENCE = 3.0
"""Seconds that a Prefect server has to answer before a stage begins."""
_SETTINGS = {"PREFECT_API_REQUEST_TIMEOUT": "10", "PREFECT_CLIENT_MAX_RETRIES": "2",
             "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}

StageFunction = Callable[..., dict[str, object]]
"""``fn(run, *, model="…", domain="…")``; a stage takes the keywords it is split by, or none."""

STAGES: dict[str, StageFunction] = {}
"""Every stage imported so far, by name."""


def stage(name: str) -> Callable[[StageFunction], StageFunction]:
    """Register a plain function as the stage ``name`` and return it unchanged."""

    def register(fn: StageFunction) -> StageFunction:
        STAGES[name] = fn
        return fn

    return register


def run_stage(name: str, targets: Mapping[str, str] | None = None) -> dict[str, object]:
    """Run a stage, recorded when a server answers at ``PREFECT_API_URL``, else as a plain call.

    Args:
        name: A stage; its module ``flows.<name>`` is imported when it is not registered yet.
        targets: The stage's keyword arguments: ``{"model": "shapes32", "domain": "faces"}``.

    Returns:
        The small dictionary that the stage returns.

    Raises:
        UnseenError: If the stage is unknown or its input is wrong.
    """
    fn = find_stage(name)
    targets = dict(targets or {})
    if not prefect_answers():
        return fn(DirectRun(), **targets)
    # A server that stops answering later must not hold the stage up for many minutes.
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    # Prefect takes seconds to import, so only a recorded run pays for it.
    from flows.recorded import run_recorded

    return run_recorded(name, fn, targets)


def prefect_answers() -> bool:
    """Tell whether a Prefect server answers at ``PREFECT_API_URL``, and warn of one that is away.

    A server that answers with an error of ours, such as a missing password, is there.
    """
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return False
    try:
        with urlopen(f"{address.rstrip('/')}/health", timeout=PATIENCE):
            return True
    except HTTPError as error:
        reason = f"answers {error.code}"
        if error.code < 500:
            return True
    except (OSError, ValueError, HTTPException):
        reason = "does not answer"
    LOG.warning("%s: the server at PREFECT_API_URL=%s %s", UNRECORDED, address, reason)
    return False


def find_stage(name: str) -> StageFunction:
    """Return the function of a stage, importing its module on first use.

    Raises:
        UnseenError: If there is no such stage.
    """
    if name not in STAGES and name.isidentifier():
        try:
            importlib.import_module(f"flows.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"flows.{name}":
                raise
    if name not in STAGES:
        raise UnseenError(f"unknown stage {name!r}; `python -m flows --help` lists the stages")
    return STAGES[name]
