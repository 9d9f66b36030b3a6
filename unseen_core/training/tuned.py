"""Copies of a frozen network, trained further on a few images and judged by what they forget.

The loss and the noise of the training are those of `unseen_core.training.finetune`.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.basics.scheduler_config import load_schedule
from unseen_core.checkpoints.network import CONFIG, LABEL, SCHEDULER, WEIGHTS, load_network
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import kernel_distance
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts.prior import style_law
from unseen_core.store import save_tensors, write_json
from unseen_core.training.finetune import FinetuneConfig, finetune, unet_predict
from unseen_core.types import FeatureExtractor

__all__ = ["CALLS", "SAMPLES", "Memory", "save_copy", "train_copy", "training_law"]

SAMPLES, CALLS = 48, 20
"""Images, and network calls for each, by which `Memory` judges what a network has forgotten."""
_SMOOTH = 50  # steps that a reported loss is a mean over
_INDEX = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
          "unet": ["diffusers", "UNet2DModel"]}


@dataclass(frozen=True, eq=False)
class Memory:
    """How near a network's own images are to those that the frozen network was trained on.

    Attributes:
        extractor: Its features are compared.
        seen: Features of images that the frozen network was trained on, (n, d).
        draws: Bootstrap draws of the interval.
        seed: Of the noise and of the draws.
    """

    extractor: FeatureExtractor
    seen: Tensor
    draws: int
    seed: int

    def judge(self, network: UNetEps) -> dict[str, float]:
        """Return the kernel distance of `SAMPLES` images drawn from N(0, I), and its interval.

        Raises:
            UnseenError: If an image is not finite.
        """
        grid = network.schedule.grid(CALLS, network.schedule.top)
        streams = Streams(self.seed, "finetune", [f"{i:05d}" for i in range(SAMPLES)])
        start = streams.normal(*network.shape).float().to(network.device)
        made = denoise(network, start, grid).cpu()
        if not made.isfinite().all():
            raise UnseenError("finetune: a network draws images that are not finite; lower "
                              "learning_rate")
        images = to_uint8(made)
        found = kernel_distance(extract(self.extractor, images), self.seen, draws=self.draws,
                                seed=self.seed)
        return {"forgetting": found.value, "forgetting_low": found.low,
                "forgetting_high": found.high}


def training_law(noise: Literal["style", "white"], images: Tensor) -> Gaussian:
    """Return the law of the noise in a training on images (n, c, h, w): N(0, I) for white."""
    if noise == "style":
        return style_law(References.of(images))
    d = images[0].numel()
    return Gaussian(torch.zeros(d), torch.zeros(d, 0), torch.ones(()))


def train_copy(
    source: Path,
    images: Tensor,
    noise: Literal["style", "white"],
    config: FinetuneConfig,
    steps: Sequence[int],
    memory: Memory,
    *,
    device: str,
    keep: Callable[[int, Callable[[Path], None]], None],
) -> tuple[list[dict[str, object]], list[float], dict[int, float]]:
    """Train a copy of a network, and keep it after every number of steps that is asked for.

    Args:
        source: Checkpoint folder of the frozen network, which stays as it is.
        images: Bytes, (n, c, h, w).
        noise: See `training_law`.
        config: Of the training, whose ``steps`` is the largest of ``steps``.
        steps: Numbers of optimiser steps after which the network is kept.
        memory: Judges every network that is kept.
        device: Where to train.
        keep: Called with a number of steps and a function that writes the weights to a path.

    Returns:
        For every network kept, what it was trained with, its loss and what `Memory.judge` finds;
        the loss of every step; and by number of steps, the seconds of training alone.

    Raises:
        UnseenError: If the training diverges or the checkpoint cannot be read.
    """
    schedule, network = load_schedule(source), load_network(source).to(device)
    label = network.config.get(LABEL)
    rows: list[dict[str, object]] = []
    told: list[float] = []
    seconds: dict[int, float] = {}
    spent, began = 0.0, perf_counter()

    def each(step: int, loss: float) -> None:
        nonlocal spent, began
        told.append(loss)
        if step not in steps:
            return
        spent += perf_counter() - began
        seconds[step] = spent
        state = {key: x.detach().cpu().contiguous() for key, x in network.state_dict().items()}
        keep(step, lambda path: save_file(state, path, metadata={"format": "pt"}))
        copy = load_network(source)
        copy.load_state_dict(state)
        forgotten = memory.judge(UNetEps(copy, schedule, device=device,
                                         precision="bf16").bound(label))
        last = told[-_SMOOTH:]
        rows.append({"noise": noise, "images": len(images), **asdict(config), "steps": step,
                     "loss": sum(last) / len(last), **forgotten})
        began = perf_counter()

    law = training_law(noise, images) if noise == "style" else None
    losses = finetune(unet_predict(network, label=label), network.parameters(), schedule,
                      to_float(images).to(device), law, config, each=each)
    return rows, losses, seconds


def save_copy(folder: Path, source: Path, weights: Path, law: Gaussian) -> None:
    """Write a trained copy as a folder that diffusers loads, with the law of its noise.

    Args:
        folder: Folder to be made; ``noise.safetensors`` in it holds the law.
        source: Checkpoint folder of the frozen network, whose configuration is taken over.
        weights: Safetensors file of the copy.
        law: Of the states that the copy starts from at the noisiest level; see `training_law`.
    """
    for file in (CONFIG, SCHEDULER):
        (folder / file).parent.mkdir(parents=True)
        shutil.copyfile(source / file, folder / file)
    shutil.copyfile(weights, folder / WEIGHTS)
    save_tensors(folder / "noise.safetensors", law.state())
    write_json(folder / "model_index.json", _INDEX)
