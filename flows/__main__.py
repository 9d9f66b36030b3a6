"""The command line: ``python -m flows <stage>``, and ``run``, ``serve``, ``schedule`` ..."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from unseen_core.errors import UnseenError

__all__ = ["main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="New images of a domain that a frozen diffusion model has never seen.")
Model = Annotated[str, typer.Option(help="A model of params.yaml.")]
Domain = Annotated[str, typer.Option(help="A domain of params.yaml.")]


def _stage(name: str, **targets: str | None) -> None:
    """Run a stage on what was named; paths are made of names that params.yaml defines only."""
    from flows.params import load_params
    from flows.stage import run_stage

    named = {key: value for key, value in targets.items() if value is not None}
    params = load_params()
    for key, value in named.items():
        params.model(value) if key == "model" else params.domain(value)
    run_stage(name, named)


@app.command()
def pretrain(
    domain: Annotated[str | None, typer.Option(
        help="A fetched domain: train a network on it, into data/trained.")] = None,
) -> None:
    """Train the embedded network and extractor from nothing, or a network on a domain."""
    _stage("pretrain", domain=domain)


@app.command()
def fetch(
    model: Annotated[str | None, typer.Option(help="A model of params.yaml.")] = None,
    domain: Annotated[str | None, typer.Option(help="Or a domain of params.yaml.")] = None,
) -> None:
    """Bring one checkpoint or one domain into data/source."""
    _stage("fetch", model=model, domain=domain)


@app.command()
def invert(
    model: Model,
    domain: Annotated[str | None, typer.Option(
        help="A domain of params.yaml; without it, the images that the model has seen.")] = None,
) -> None:
    """Carry a domain's fit images to every mixing level."""
    _stage("invert", model=model, domain=domain)


@app.command()
def fit(model: Model, domain: Domain) -> None:
    """Fit priors and envelopes to the latents."""
    _stage("fit", model=model, domain=domain)


@app.command()
def sample(model: Model, domain: Domain) -> None:
    """Draw start states with every sampler."""
    _stage("sample", model=model, domain=domain)


@app.command()
def denoise(model: Model, domain: Domain) -> None:
    """Turn start states into images."""
    _stage("denoise", model=model, domain=domain)


@app.command()
def select(model: Model, domain: Domain) -> None:
    """Choose mixing level and sampler by the fit images alone."""
    _stage("select", model=model, domain=domain)


@app.command()
def evaluate(model: Model, domain: Domain) -> None:
    """Measure the images against held-out ones."""
    _stage("evaluate", model=model, domain=domain)


@app.command()
def analyze(model: Model, domain: Domain) -> None:
    """Test the claims of the paper on a domain's latents."""
    _stage("analyze", model=model, domain=domain)


@app.command()
def compare() -> None:
    """Write the table over models, domains, levels and samplers, and mirror it to MLflow."""
    _stage("compare")


@app.command()
def findings() -> None:
    """Write docs/findings.md: what the run says of every claim of the paper."""
    from flows.findings import findings as write

    typer.echo(write())


@app.command()
def check() -> None:
    """Check params.yaml, samplers included, without running anything."""
    from flows.cells import each_cell, every_sampler
    from flows.params import load_params

    params = load_params()
    every_sampler(params)
    typer.echo(f"params.yaml is sound: {len(list(each_cell(params)))} cells a domain")


@app.command()
def deps() -> None:
    """Write the code that each stage imports into dvc.yaml, after a change of imports."""
    from flows.graph import ROOT, write_code_deps

    write_code_deps(ROOT / "dvc.yaml")


@app.command()
def run(
    targets: Annotated[list[str] | None, typer.Argument(help="Stages; all by default.")] = None,
    params: Annotated[Path | None, typer.Option(help="YAML laid over params.yaml.")] = None,
) -> None:
    """Bring the whole pipeline up to date, record it, and tell where the results are."""
    from flows.pipeline import run_pipeline

    run_pipeline(params=params, targets=targets or [])


@app.command()
def serve() -> None:
    """Serve the MLflow UI and a Prefect server on this machine until interrupted."""
    from flows.serve import serve as start

    start()


@app.command()
def schedule() -> None:
    """Serve the scheduled pipeline to the Prefect server at PREFECT_API_URL."""
    from flows.params import load_params
    from flows.pipeline import serve_schedule

    serve_schedule(cron=load_params().schedule.cron)


def main() -> None:
    """Run the command line; a mistake in the input is one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    for noisy in ("httpx", "alembic", "mlflow", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except UnseenError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
