"""Stage ``fetch_model``: a checkpoint, checked, and what the pipeline knows of its training."""

import shutil
from pathlib import Path

import torch

from flows.loading.checkpoints import misfits, open_model
from flows.loading.frozen import record_weights
from flows.loading.source_law import write_source
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.basics.images import with_channels
from unseen_core.checkpoints.loading import save_checkpoint
from unseen_core.diffusion.denoiser import load_model
from unseen_core.errors import UnseenError, first_line
from unseen_core.store import read_pictures, write_pictures

__all__ = ["fetch_model"]


@stage("fetch_model")
def fetch_model(run: Run, *, model: str) -> dict[str, object]:
    """Check a checkpoint's hash and shape; store it, and images and law of what it has seen.

    Raises:
        UnseenError: If the checkpoint is unusable, or the domain it has seen was not fetched.
    """
    params = load_params()
    return run.map(lambda name: _fetch(params, name), [model], name=str)[0]


def _fetch(params: Params, model: str) -> dict[str, object]:
    """Bring one checkpoint; see `fetch_model`."""
    section = params.model(model)
    checkpoint, found = open_model(model, section, size=params.images.size)
    for line in misfits(params, model, checkpoint):
        raise UnseenError(line)
    channels = checkpoint.shape[0]
    seen = PATHS.domain(section.seen) / "fit.parquet"
    if not seen.is_file():
        raise UnseenError(f"{seen}: no such file; run `python -m flows fetch --domain "
                          f"{section.seen}` first")
    out = PATHS.model(model)
    shutil.rmtree(out, ignore_errors=True)
    save_checkpoint(checkpoint, out)
    torch.set_num_threads(params.compute.threads)
    _try(model, out)
    record_weights(out)
    images, frame = read_pictures(seen)
    if images.shape[1] == channels:
        shutil.copyfile(seen, out / "seen.parquet")
    else:
        write_pictures(out / "seen.parquet", with_channels(images, channels), frame)
    return {"model": model, "sha256": found,
            "law of": write_source(PATHS.law(model), seen.parent, channels)}


def _try(model: str, folder: Path) -> None:
    """Raise UnseenError unless a stored network answers to a grey image with finite numbers."""
    network = load_model(folder)
    try:
        answer = network(torch.zeros(1, *network.shape), 1)
    except Exception as error:  # a network of foreign settings fails in any way it likes
        raise UnseenError(f"models.{model} does not run: {first_line(error)}") from error
    if not answer.isfinite().all():
        raise UnseenError(f"models.{model} answers to a grey image with numbers that are not "
                          "finite; fetch it again, or take an earlier state of its training")
