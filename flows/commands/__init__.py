"""The commands of the stages, and those on the user's own folders."""

import typer

from flows.commands.folders import (
    anonymise,
    anywhere,
    augment,
    enhance,
    finetune_pipeline,
    generate,
)
from flows.commands.stages import stage_command
from flows.running.registry import DATA_FLOW

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add every command to the command line."""
    for name, does in DATA_FLOW.items():
        app.command(name.replace("_", "-"), help=does,
                    rich_help_panel="Stages of the pipeline")(stage_command(name))
    for command in (generate, anonymise, augment, enhance, finetune_pipeline):
        app.command(rich_help_panel="On your own folders")(anywhere(command))
