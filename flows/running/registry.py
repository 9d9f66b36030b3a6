"""The registry of stages, and the choice between a direct and a recorded run."""

import importlib
from collections.abc import Callable

from unseen_core.errors import UnseenError

__all__ = ["STAGES", "UNRECORDED", "StageFunction", "find_stage", "stage"]

UNRECORDED = "not recorded in Prefect"
"""Begins the one line that says that a server does not answer."""

StageFunction = Callable[..., dict[str, object]]
"""``fn(run, *, model="…", domain="…")``; a stage takes the keywords it is split by, or none."""

_DATA_FLOW = ("download", "pretrain", "fetch", "invert", "fit", "finetune", "sample", "denoise",
              "select", "evaluate", "analyze", "trajectory", "steer", "applications", "compare")
_FOLDERS = ("generate", "anonymise", "augment", "enhance", "finetune_pipeline")

MODULES = {**{name: f"flows.stages.{name}" for name in _DATA_FLOW},
           **{name: f"flows.folders.{name}" for name in _FOLDERS}}
"""The module of every stage: those of dvc.yaml, and those that work on a user's own folder."""

STAGES: dict[str, StageFunction] = {}
"""Every stage imported so far, by name."""


def stage(name: str) -> Callable[[StageFunction], StageFunction]:
    """Register a plain function as the stage ``name`` and return it unchanged."""

    def register(fn: StageFunction) -> StageFunction:
        STAGES[name] = fn
        return fn

    return register


def find_stage(name: str) -> StageFunction:
    """Return the function of a stage, importing its module on first use.

    Raises:
        UnseenError: If there is no such stage.
    """
    if name not in STAGES:
        if name not in MODULES:
            raise UnseenError(f"unknown stage {name!r}; `python -m flows --help` lists the stages")
        importlib.import_module(MODULES[name])
    return STAGES[name]
