"""Stage ``pretrain``: the embedded network of shapes, or a network of any domain."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from diffusers import DDPMPipeline

from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import png_bytes, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.basics.sheets import sheet
from unseen_core.checkpoints.network import load_network
from unseen_core.diffusion.denoiser import load_model
from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.sources.shapes import draw_shapes
from unseen_core.store import (
    file_hash,
    read_json,
    read_pictures,
    write_bytes,
    write_json,
    write_pictures,
)
from unseen_core.training.denoiser import DenoiserConfig, train_denoiser

__all__ = ["pretrain"]

_EPOCH = 16_384
_ENOUGH = 100
_SAMPLE_STEPS = 250
_OWN, _OWN_CALLS = 600, 40


@stage("pretrain")
def pretrain(run: Run, *, domain: str | None = None) -> dict[str, object]:
    """Train ``shapes32`` on drawn shapes and write it, with its card, to data/embedded.

    With a domain that was fetched: train a network on what it neither fits nor holds out, beside
    what it fits, and write it to data/trained. A training goes on from its last saved step.

    Raises:
        UnseenError: If a source is unusable, or training diverges.
    """
    params = load_params()
    torch.set_num_threads(params.compute.threads)
    if domain is None:
        return _train_on_shapes(params, run)
    return run.map(lambda name: _train_on(params, name, run), [domain], name=str)[0]


def _train_on_shapes(params: Params, run: Run) -> dict[str, object]:
    """Train the U-Net on shapes alone, drawn anew in every epoch."""
    seed = params.pretrain.seed

    def images(epoch: int) -> torch.Tensor:
        # Seeds far from that of the domain `shapes`, whose images are never trained on.
        drawn = draw_shapes(_EPOCH, seed=(seed + 1) * 10_000 + epoch)
        return torch.from_numpy(drawn).permute(0, 3, 1, 2)

    return _train_network(
        params, run, "shapes32", images, PATHS.embedded("shapes32"),
        "a small DDPM that has seen nothing but drawn shapes",
        f"procedurally drawn shapes, {_EPOCH} new ones an epoch, mirrored at random")


def _train_on(params: Params, domain: str, run: Run) -> dict[str, object]:
    """Train the same U-Net on a domain, all but the images that only ``evaluate`` may read."""
    folder = PATHS.domain(domain)
    sides = [folder / "fit.parquet", folder / "rest.parquet"]
    # A domain without a rest has no such file; one that was not fetched has none of the two.
    known = torch.cat([read_pictures(side)[0] for side in sides
                       if side.exists() or side is sides[0]])
    if len(known) < params.pretrain.batch:
        raise UnseenError(f"domains.{domain}: {len(known)} images are too few to train on; lower "
                          "pretrain.batch or give more images")
    return _train_network(
        params, run, f"{domain}-{file_hash(sides[0])[:8]}", lambda epoch: known,
        PATHS.trained(domain), f"a small DDPM that has seen nothing but {domain}",
        f"{len(known)} images of {domain}, mirrored at random; those held out are not among them")


def _train_network(
    params: Params,
    run: Run,
    name: str,
    images: Callable[[int], torch.Tensor],
    out: Path,
    title: str,
    data: str,
) -> dict[str, object]:
    """Train a U-Net, save it with its card, draw its own samples."""
    section = params.pretrain
    config = DenoiserConfig(**{**section.model_dump(exclude={"start"}),
                               "channels": tuple(section.channels)})
    start = load_network(Path(section.start)) if section.start else None
    before = {"steps before": 0, "begun from": "random weights"}
    if section.start:
        known = read_json(Path(section.start) / "card.json")
        before = {"steps before": known["training"]["steps"] + known.get("steps before", 0),
                  "begun from": known["sha256"]}
        name += f"-{known['sha256'][:8]}"
    device = pick_device(params.compute.device)

    def observe(step: int, loss: float) -> None:
        if step % 100 == 0:
            run.log.info("%s: step %d of %d, loss %.4f", name, step, config.steps, loss)

    network, scheduler, loss = train_denoiser(
        images, config, scratch=PATHS.work / "pretrain" / f"{name}.pt", start=start,
        device=device, observe=observe)
    with tempfile.TemporaryDirectory() as folder:
        # In half precision a network of 6 million weights still fits into a git repository.
        DDPMPipeline(network.cpu().half(), scheduler).save_pretrained(folder)
        for file in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json",
                     "unet/diffusion_pytorch_model.safetensors"):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(folder) / file, out / file)
    _forget_path(out / "unet/config.json")
    weights = file_hash(out / "unet/diffusion_pytorch_model.safetensors")
    write_bytes(out / "samples.png", png_bytes(sheet(_samples(out, device), columns=8, scale=3)))
    ids = [f"own-{i:05d}" for i in range(_OWN)]
    write_pictures(out / "own.parquet", _own_images(out, ids, device),
                   pd.DataFrame({"id": ids, "label": -1}))
    _write_card(out, f"{out.name}: {title}", {
        "data": data,
        "training": asdict(config), **before, "loss": loss, "sha256": weights,
        "parameters": sum(p.numel() for p in network.parameters()),
        "schedule": "linear beta 1e-4 to 0.02, T = 1000; the network predicts v",
    }, f"""![64 samples](samples.png)

Drawn from N(0, I) at level 1000 by diffusers' `DDPMPipeline`, {_SAMPLE_STEPS} ancestral steps with
clipping. The network predicts the velocity v = a noise - s x_0 (arXiv 2202.00512) and not the
noise: at equal cost, one that predicted the noise left some of it in a third of its samples.

`own.parquet` holds {_OWN} more of its images, by this project's solver in {_OWN_CALLS} calls. They
stand for what it has seen where its training images are not at hand.
""")
    return {out.name: weights, "loss": loss}


def _write_card(
    out: Path, title: str, content: Mapping[str, object], more: str = ""
) -> None:
    """Write card.json for programs and README.md for people."""
    write_json(out / "card.json", content)
    rows = "".join(f"| {key} | {value} |\n" for key, value in content.items())
    text = (f"# {title}\n\nMade by `python -m flows pretrain`.\n\n| | |\n|---|---|\n{rows}\n{more}")
    write_bytes(out / "README.md", text.encode())


def _samples(folder: Path, device: str) -> torch.Tensor:
    """Draw 64 images with the library's own pipeline, uint8 (64, 3, h, w)."""
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True,
                                            low_cpu_mem_usage=False).to(device)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator(device).manual_seed(0)
    found = pipeline(64, generator, num_inference_steps=_SAMPLE_STEPS, output_type="np").images
    return to_uint8(torch.from_numpy(found).permute(0, 3, 1, 2) * 2 - 1)


def _own_images(folder: Path, ids: Sequence[str], device: str) -> torch.Tensor:
    """Draw an image for each id from noise at the last level, uint8 (n, 3, h, w)."""
    model = load_model(folder, device=device)
    levels = model.schedule.grid(_OWN_CALLS, model.schedule.top)
    noise = Streams(0, "own images", ids).normal(*model.shape).float()
    return torch.cat([to_uint8(denoise(model, part.to(device), levels).cpu())
                      for part in noise.split(50)])


def _forget_path(config: Path) -> None:
    """Remove the folder a network was loaded from, which diffusers writes into its config."""
    content = json.loads(config.read_text())
    content.pop("_name_or_path", None)
    write_json(config, content)
