"""The commands of the stages, made of the stages themselves."""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated

import typer

from flows.running.registry import targets_of

__all__ = ["stage", "stage_command"]

_TARGETS = {"model": "A model of params.yaml.", "domain": "A domain of params.yaml.",
            "name": "An entry of downloads in params.yaml."}


def stage(name: str, /, **targets: str | None) -> None:
    """Run a stage on what was named; paths are made of names that params.yaml defines only.

    Args:
        name: The stage, a module of ``flows``.
        targets: Names under ``model``, ``domain`` or ``name`` (a download); None is left out.

    Raises:
        UnseenError: If params.yaml does not define a name.
    """
    from flows.dispatch import run_stage
    from flows.running.orphan import end_with_run
    from flows.settings.params import load_params

    end_with_run()
    named = {key: value for key, value in targets.items() if value is not None}
    params = load_params()
    known = {"model": params.model, "domain": params.domain, "name": params.download}
    for key, value in named.items():
        known[key](value)
    run_stage(name, named)


def stage_command(name: str) -> Callable[..., None]:
    """Return the command of a stage of dvc.yaml: the stage's keywords are its options."""

    def command(**targets: str | None) -> None:
        stage(name, **targets)

    words = [Parameter(key, Parameter.KEYWORD_ONLY, default=Parameter.empty if needed else None,
                       annotation=Annotated[str if needed else str | None, typer.Option(
                           help=_TARGETS[key])])
             for key, needed in targets_of(name).items()]
    command.__signature__ = Signature(words)  # type: ignore[attr-defined]
    command.__annotations__ = {word.name: word.annotation for word in words}
    return command
