"""The registry of stages, and the choice between a direct and a recorded run."""

import importlib
import os
from collections.abc import Callable, Mapping

from flows.run import DirectRun
from unseen_core.errors import UnseenError

__all__ = ["STAGES", "StageFunction", "run_stage", "stage"]

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
    """Run a stage, recorded when ``PREFECT_API_URL`` is set, otherwise as a plain call.

    Args:
        name: A stage; its module ``flows.<name>`` is imported when it is not registered yet.
        targets: The stage's keyword arguments: ``{"model": "shapes32", "domain": "faces"}``.

    Returns:
        The small dictionary that the stage returns.

    Raises:
        UnseenError: If the stage is unknown or its input is wrong, or, for a recorded run, if no
            Prefect server answers.
    """
    fn = _find(name)
    targets = dict(targets or {})
    if not os.environ.get("PREFECT_API_URL"):
        return fn(DirectRun(), **targets)
    # Prefect takes seconds to import, so only a recorded run pays for it.
    from flows.recorded import run_recorded

    return run_recorded(name, fn, targets)


def _find(name: str) -> StageFunction:
    """Return the function of a stage, importing its module on first use."""
    if name not in STAGES and name.isidentifier():
        try:
            importlib.import_module(f"flows.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"flows.{name}":
                raise
    if name not in STAGES:
        raise UnseenError(f"unknown stage {name!r}; `python -m flows --help` lists the stages")
    return STAGES[name]
