"""Stage ``plan``: the samplers and cells of params.yaml, checked before anything is computed."""

from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from flows.settings.plan import Plan
from unseen_core.store import write_json

__all__ = ["plan"]


@stage("plan")
def plan(run: Run) -> dict[str, object]:
    """Write data/plan.json: every sampler with its settings, and the cells of a model and domain.

    ``sample`` and ``compare`` take the samplers from there, so that dvc.lock has them once.

    Raises:
        UnseenError: As `Plan.of`.
    """
    made = Plan.of(load_params())
    write_json(PATHS.plan, {
        "samplers": {name: section.model_dump() for name, section in made.samplers.items()},
        "cells": [[cell.level, cell.sampler] for cell in made.cells]})
    run.log.info("%d samplers, %d cells on every model and domain", len(made.samplers),
                 len(made.cells))
    return {"samplers": len(made.samplers), "cells": len(made.cells)}
