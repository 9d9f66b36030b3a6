"""What the paper's networks cost at 256 x 256, measured with random weights of the real width.

    python benchmarks/scale.py [--device auto] [--steps 2] [--images 1]

A network of the architecture of the CelebA-HQ, church and bedroom checkpoints (113.7 M parameters)
is carried through the pipeline's own solver, up and down, in float32 and in bf16. Time is
proportional to network calls, so a few steps are measured and the rest is projected: N = 1,000
images inverted in 80 calls, 5,000 denoised in 80, the second release's numbers (method, arXiv
2310.09213). Weights decide no time; images here mean nothing. On a GPU the batch is probed, on the
CPU it is what --images says, and one image is slow enough to be a warning by itself.
"""

import argparse
import resource
from pathlib import Path
from time import perf_counter

import torch
from common import RESULTS, circumstances, write_result
from diffusers import UNet2DModel
from torch import Tensor

from unseen_core.basics.device import pick_device
from unseen_core.basics.scheduler_config import read_schedule
from unseen_core.diffusion.batch import probe_batch
from unseen_core.diffusion.denoiser import Precision, UNetEps
from unseen_core.diffusion.transport import denoise, invert

__all__ = ["measure"]

LEVEL, CALLS, INVERTED, GENERATED = 900, 80, 1000, 5000
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


def network() -> UNet2DModel:
    """Return the architecture of ``celeba_hq.ckpt``, ``church_outdoor.ckpt``, ``bedroom.ckpt``."""
    torch.manual_seed(0)
    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    return UNet2DModel(
        sample_size=256, block_out_channels=(128, 128, 256, 256, 512, 512), layers_per_block=2,
        down_block_types=down, up_block_types=up, attention_head_dim=None, norm_eps=1e-6,
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1)


def measure(unet: UNet2DModel, device: str, precision: Precision, steps: int,
            images: int) -> dict[str, object]:
    """Return seconds per image and call of both directions, peak memory, and projected hours."""
    schedule = read_schedule({"num_train_timesteps": 1000, "beta_start": 1e-4,
                              "beta_end": 0.02, "beta_schedule": "linear"})
    model = UNetEps(unet, schedule, device=device, precision=precision)
    cuda = device.startswith("cuda")
    batch = probe_batch(model, device) if cuda else images
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    grid = schedule.grid(steps, LEVEL)
    x = torch.zeros(batch, *model.shape, device=device)
    model(x, LEVEL)  # warm
    seconds: dict[str, float] = {}
    for name, carry in (("invert", invert), ("denoise", denoise)):
        began = perf_counter()
        _finished(carry(model, x, grid))
        seconds[name] = (perf_counter() - began) / batch / (len(grid) - 1)
    peak = (torch.cuda.max_memory_allocated() if cuda
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    return {
        "precision": precision, "batch": batch, "steps": len(grid) - 1,
        "seconds_per_image_and_call": seconds, "peak_memory_gib": peak / 2**30,
        "images_per_second": {name: 1 / (took * CALLS) for name, took in seconds.items()},
        "projected_hours": {
            f"invert {INVERTED} in {CALLS} calls": seconds["invert"] * INVERTED * CALLS / 3600,
            f"denoise {GENERATED} in {CALLS} calls": seconds["denoise"] * GENERATED * CALLS / 3600,
        },
    }


def _finished(x: Tensor) -> float:
    """Wait for the device."""
    return x.sum().item()


def main() -> None:
    """Measure both precisions and write benchmarks/results/scale.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    asked = parser.parse_args()
    device = pick_device(asked.device)
    unet = network()
    parameters = sum(p.numel() for p in unet.parameters())
    rows = [measure(unet, device, precision, asked.steps, asked.images)
            for precision in PRECISIONS]
    for row in rows:
        print(row["precision"], "batch", row["batch"], row["seconds_per_image_and_call"],
              row["projected_hours"])
    write_result(asked.out, {**circumstances(device), "parameters": parameters, "rows": rows})


if __name__ == "__main__":
    main()
