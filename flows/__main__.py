"""The command line: ``unseen COMMAND``, the same as ``python -m flows COMMAND``."""

import atexit
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from flows.commands import register
from flows.running.warm import hand_over
from unseen_core.errors import UnseenError, refusals_told

__all__ = ["main", "run_command"]

_INTERRUPTED = 130  # what typer returns after Ctrl-C
_Misuse = typer.BadParameter.__bases__[0]  # the UsageError of the click inside typer

app = typer.Typer(pretty_exceptions_enable=False,
                  help="New images of a domain that a frozen diffusion model has never seen.")


def _version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        from importlib.metadata import version

        typer.echo(version("unseen"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """New images of a domain that a frozen diffusion model has never seen."""


@app.command()
def params(
    section: Annotated[str | None, typer.Argument(
        help="A section, such as solver; all by default.")] = None,
) -> None:
    """Print params.yaml, or a section of it, with what each parameter means."""
    from flows.settings.documented import documented

    typer.echo(documented(section))


@app.command()
def findings() -> None:
    """Write docs/findings.md and a page per claim: what the run says of each claim."""
    from flows.report.findings import findings as write

    typer.echo(write())


@app.command()
def check() -> None:
    """Check params.yaml, what it names and what it asks for; list every mistake at once."""
    from flows.commands.check import check_file

    mistakes, asked = check_file(Path("params.yaml"))
    for line in mistakes[:-1]:
        typer.echo(f"error: {line}", err=True)
    if mistakes:
        raise UnseenError(mistakes[-1])
    typer.echo(f"params.yaml is sound: {asked}")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint as it was published.")],
    out: Annotated[Path, typer.Argument(help="The folder to be written.")],
    preset: Annotated[str | None, typer.Option(
        help="What the file does not say, by a known name: afhqdog-p2, iddpm-cifar10 ...")] = None,
    size: Annotated[int | None, typer.Option(help="Side of its images, in pixels.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Number of attention heads.")] = None,
    num_head_channels: Annotated[int | None, typer.Option(
        help="Channels of a head, in place of --num-heads.")] = None,
    use_new_attention_order: Annotated[bool | None, typer.Option(
        help="As the training command had it.")] = None,
    noise_schedule: Annotated[str | None, typer.Option(
        help="Noise schedule: linear or cosine.")] = None,
    diffusion_steps: Annotated[int | None, typer.Option(help="Number of timesteps.")] = None,
    rescale_timesteps: Annotated[bool | None, typer.Option(
        help="As the training command had it.")] = None,
    beta_start: Annotated[float | None, typer.Option(help="First of linear betas.")] = None,
    beta_end: Annotated[float | None, typer.Option(help="Last of linear betas.")] = None,
    sha256: Annotated[str | None, typer.Option(
        help="SHA-256 that the file must have.")] = None,
) -> None:
    """Write a checkpoint of DDPM, improved- or guided-diffusion as a diffusers folder."""
    from flows.loading.checkpoints import convert as write

    found = write(file, out, {
        "preset": preset, "image_size": size, "num_heads": num_heads,
        "num_head_channels": num_head_channels, "noise_schedule": noise_schedule,
        "use_new_attention_order": use_new_attention_order, "diffusion_steps": diffusion_steps,
        "rescale_timesteps": rescale_timesteps, "beta_start": beta_start, "beta_end": beta_end,
    }, sha256=sha256)
    typer.echo(f"{out}: from {file}, sha256 {found}")


@app.command()
def deps() -> None:
    """Write the code that each stage imports into dvc.yaml, after a change of imports."""
    from flows.running.code import ROOT, write_code_deps

    write_code_deps(ROOT / "dvc.yaml")


@app.command()
def run(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages; all by default.")] = None,
    params: Annotated[list[Path] | None, typer.Option(
        help="YAML laid over params.yaml; several are laid over each other.")] = None,
) -> None:
    """Bring the whole pipeline up to date, record it, and say where the results are."""
    from flows.pipeline import run_pipeline

    run_pipeline(params=params or [], targets=targets or [])


@app.command()
def sync() -> None:
    """Record in MLflow the runs that it missed while unreachable, from the metrics files."""
    from flows.mlflow.sync import sync as record
    from flows.pipeline import only_run
    from flows.settings.params import load_params

    load_params()  # so that no lock is left in a folder that is no project
    with only_run(Path.cwd()):  # during a run half of the files are those of the run before
        record(say=typer.echo)


@app.command()
def serve() -> None:
    """Serve the MLflow UI and a Prefect server on this machine until interrupted."""
    from flows.serve import serve as start

    start()


@app.command()
def schedule() -> None:
    """Serve the scheduled pipeline to the Prefect server at PREFECT_API_URL."""
    from flows.schedule.deployments import serve as start
    from flows.settings.params import load_params

    start(cron=load_params().schedule.cron)


register(app)


def run_command() -> int:
    """Run the command line and return its exit code.

    It is 2 for a mistake in the input and 130 after Ctrl-C; a line says which.

    Raises:
        Exception: What a command raises that is no mistake of its user.
    """
    done = hand_over()
    if done is not None:
        return done
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    for noisy in ("httpx", "httpx2", "alembic", "mlflow", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    called = "unseen" if Path(sys.argv[0]).name == "unseen" else "python -m flows"
    try:
        with refusals_told():
            code = app(sys.argv[1:] or ["--help"], called, standalone_mode=False) or 0
        if code == _INTERRUPTED:
            typer.echo("stopped; a stage, run or generate goes on from here when it is given again",
                       err=True)
        return code
    except UnseenError as error:
        message = str(error)
    except _Misuse as error:
        place = error.ctx.command_path if error.ctx else called
        message = f"{error.format_message().rstrip('.')}; see `{place} --help`"
    typer.echo(f"error: {message.replace('python -m flows', called)}", err=True)
    return 2


def main() -> None:
    """Run the command line as this process, and end the process with its exit code.

    Python would take torch and diffusers apart before it ends, object by object, for more than a
    second a command. The handler that ends it at once is the first to be registered, so that it
    is the last to be called.
    """
    code = 1

    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)

    atexit.register(leave)
    code = run_command()


if __name__ == "__main__":
    main()
