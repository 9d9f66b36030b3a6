"""The registry of stages, and the choice between a direct and a recorded run."""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path

from unseen_core.errors import UnseenError

__all__ = ["DATA_FLOW", "MODULES", "STAGES", "UNRECORDED", "StageFunction", "find_stage", "stage",
           "targets_of"]

UNRECORDED = "not recorded in Prefect"
"""Begins the one line that says that a server does not answer."""

StageFunction = Callable[..., dict[str, object]]
"""``fn(run, *, model="…", domain="…")``; a stage takes the keywords it is split by, or none."""

DATA_FLOW = {
    "download": "Bring a file, or files of a hub repository, into data/downloads.",
    "pretrain": "Train the embedded network and extractor from nothing, or a network on a fetched "
                "--domain, into data/trained.",
    "fetch": "Bring the images of a domain into data/source.",
    "fetch_model": "Bring a checkpoint into data/source, with the law of what it has seen.",
    "plan": "Check params.yaml and list the samplers and cells of a run.",
    "invert": "Carry a domain's fit images to every mixing level; without --domain, the images "
              "that the model has seen.",
    "fit": "Fit priors and envelopes to the latents.",
    "finetune": "Train copies of the network on a few fit images: the trained baseline.",
    "sample": "Draw start states with every sampler.",
    "denoise": "Turn start states into images.",
    "select": "Choose mixing level and sampler by the fit images alone.",
    "evaluate": "Measure the images against held-out ones.",
    "analyze": "Test the claims of the paper on a domain's latents.",
    "trajectory": "Compare the network's trajectories with those of a Gaussian model in closed "
                  "form.",
    "steer": "Skip calls in closed form, set colours, vary and search the images of a network.",
    "applications": "Measure Boomerang's three applications on domains of params.yaml.",
    "compare": "Write the table over models, domains, levels and samplers; mirror it to MLflow.",
}
"""The stages of dvc.yaml in the order of the data, modules of ``flows.stages``: what each does."""
_FOLDERS = ("generate", "anonymise", "augment", "enhance", "finetune_pipeline")

MODULES = {**{name: f"flows.stages.{name}" for name in DATA_FLOW},
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


def targets_of(name: str) -> dict[str, bool]:
    """Return the keywords that a stage takes, and whether each must be given.

    They are read from the stage's file: importing all stages would take seconds.
    """
    file = Path(__file__).resolve().parents[2] / f"{MODULES[name].replace('.', '/')}.py"
    function = next(node for node in ast.parse(file.read_text("utf-8")).body
                    if isinstance(node, ast.FunctionDef) and node.name == name)
    return {word.arg: default is None for word, default
            in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)}


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
