"""How a stage is run: as a plain call, or recorded by a Prefect server."""

import os
from collections.abc import Mapping
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import urlopen

from flows.running.registry import UNRECORDED, find_stage
from flows.running.run import LOG, DirectRun
from unseen_core.errors import refusals_told

__all__ = ["PATIENCE", "prefect_answers", "run_stage"]

PATIENCE = 3.0
"""Seconds that a Prefect server has to answer before a stage begins."""

_SETTINGS = {"PREFECT_API_REQUEST_TIMEOUT": "10", "PREFECT_CLIENT_MAX_RETRIES": "2",
             "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false"}


def run_stage(name: str, targets: Mapping[str, str] | None = None) -> dict[str, object]:
    """Run a stage, recorded when a server answers at ``PREFECT_API_URL``, else as a plain call.

    Args:
        name: A stage; its module is imported when it is not registered yet.
        targets: The stage's keyword arguments: ``{"model": "shapes32", "domain": "faces"}``.

    Returns:
        The small dictionary that the stage returns.

    Raises:
        UnseenError: If the stage is unknown, its input is wrong, or the disk is full or closed.
    """
    fn = find_stage(name)
    targets = dict(targets or {})
    if not prefect_answers():
        with refusals_told():
            return fn(DirectRun(), **targets)
    # A server that stops answering later must not hold the stage up for many minutes.
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    # Prefect takes seconds to import, so only a recorded run pays for it.
    from flows.prefect.runs import run_recorded

    return run_recorded(name, fn, targets)


def prefect_answers() -> bool:
    """Return whether a Prefect server answers at ``PREFECT_API_URL``; warn if it does not.

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
