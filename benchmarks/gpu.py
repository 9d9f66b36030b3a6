"""Throughput beside a plain diffusers loop at equal calls, precision, memory, the paper's workload.

    python benchmarks/gpu.py [--device auto] [--networks natural32 paper] [--calls 10]

The plain loop is what a user writes: the U-Net in float32 as it is loaded, and DDIMScheduler.step.
Ours are the pipeline's own solver in float32 and in bf16, with the network compiled too where
--compile asks for it (the seconds of compiling stand beside). Both take the same states, batch and
number of calls. Networks: ``natural32``, shipped; ``paper``, the architecture of the paper's
CelebA-HQ, church and bedroom checkpoints (113.7 M parameters, 256 x 256) with random weights, which
decide no time; ``toy`` for tests. On a GPU the batch is probed; on a CPU it is --batch.

The share of peak is the arithmetic of the network's forward pass per second, over that of a large
matrix product in the same precision on this device. The reference workload is projected from the
time per image and call: 1,000 images inverted and 5,000 drawn in 80 calls each, the numbers of the
paper's second release.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from common import RESULTS, circumstances, side_by_side, write_result
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flows.settings.paths import PATHS
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import to_uint8
from unseen_core.basics.scheduler_config import read_schedule
from unseen_core.diffusion.batch import probe_batch
from unseen_core.diffusion.denoiser import Precision, UNetEps
from unseen_core.diffusion.transport import denoise, invert

__all__ = ["measure", "network"]

LEVEL, WORKLOAD_CALLS, INVERTED, DRAWN = 900, 80, 1000, 5000
BATCHES = {"natural32": 50, "paper": 1, "toy": 4}
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02,
            "beta_schedule": "linear"}
PRECISIONS: dict[Precision, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


def network(name: str) -> UNet2DModel:
    """Return a network in float32, as it is loaded."""
    torch.manual_seed(0)
    if name == "toy":
        return UNet2DModel(sample_size=8, block_out_channels=(8, 8), layers_per_block=1,
                           norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
                           up_block_types=("UpBlock2D",) * 2, add_attention=False)
    if name != "paper":
        folder = PATHS.embedded(name) / "unet"
        return UNet2DModel.from_pretrained(folder, torch_dtype=torch.float32,
                                           low_cpu_mem_usage=False)
    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    return UNet2DModel(
        sample_size=256, block_out_channels=(128, 128, 256, 256, 512, 512), layers_per_block=2,
        down_block_types=down, up_block_types=up, attention_head_dim=None, norm_eps=1e-6,
        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1)


@torch.inference_mode()
def plain_loop(unet: UNet2DModel, x: Tensor, calls: int) -> Tensor:
    """Denoise as diffusers' documentation does, in so many calls."""
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False)
    scheduler.set_timesteps(calls)
    for timestep in scheduler.timesteps:
        x = scheduler.step(unet(x, timestep).sample, timestep, x).prev_sample
    return x


def measure(name: str, device: str, calls: int, batch: int, *, compiled: bool = False,
            repeats: int = 3) -> dict[str, object]:
    """Return throughput, ratios, errors, memory and the projected workload of a network.

    Args:
        name: One of ``BATCHES``.
        device: As for torch.
        calls: Network calls of each way.
        batch: States at a time; 0 lets the batch be probed.
        compiled: Whether bf16 is also measured with ``torch.compile``.
        repeats: Of each way.
    """
    schedule = read_schedule(SCHEDULE)
    plain = network(name).to(device).eval()
    models = {precision: UNetEps(network(name), schedule, device=device, precision=precision)
              for precision in PRECISIONS}
    batch = batch or probe_batch(models["bf16"], device)
    x = torch.randn(batch, *models["bf16"].shape, generator=torch.Generator().manual_seed(0))
    x, grid = x.to(device), schedule.grid(calls, LEVEL)
    ways: dict[str, Callable[[], Tensor]] = {"diffusers, float32": lambda: _finished(
        plain_loop(plain, x, len(grid) - 1))}
    for precision, model in models.items():
        ways[f"unseen, {precision}"] = lambda model=model: _finished(denoise(model, x, grid))
    compiling = None
    if compiled:
        unet = network(name)
        unet.compile()
        fast = UNetEps(unet, schedule, device=device, precision="bf16")
        began = perf_counter()
        fast(x, LEVEL)
        compiling = perf_counter() - began
        ways["unseen, bf16, compiled"] = lambda: _finished(denoise(fast, x, grid))
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    seconds, images = side_by_side(ways, repeats)
    # The latent of the same states, carried up: what fits and geometry would see.
    latents = {p: invert(model, x.clamp(-1, 1), grid) for p, model in models.items()}
    memory = torch.cuda.max_memory_allocated() if device.startswith("cuda") else None
    peaks = {precision: _peak(device, dtype) for precision, dtype in PRECISIONS.items()}
    work, theirs = _operations(plain, x), seconds["diffusers, float32"]["median"]
    rows = []
    for way, took in seconds.items():
        per_call = took["median"] / batch / (len(grid) - 1)
        peak = peaks["bf16" if "bf16" in way else "float32"]
        rows.append({
            "way": way, "seconds": took, "ratio": theirs / took["median"],
            "seconds_per_image_and_call": per_call, "operations_per_second": work / per_call,
            "share_of_peak": work / per_call / peak,
            "workload_hours": (INVERTED + DRAWN) * WORKLOAD_CALLS * per_call / 3600})
    return {
        "network": name, "parameters": sum(p.numel() for p in plain.parameters()),
        "size": x.shape[-1], "batch": batch, "calls": len(grid) - 1,
        "operations_per_image_and_call": work, "gpu_memory_bytes": memory,
        "compile_seconds": compiling, "rows": rows, "bf16_against_float32": {
            "grey_levels": _grey_levels(images["unseen, float32"], images["unseen, bf16"]),
            "latent_error": ((latents["bf16"] - latents["float32"]).norm()
                             / latents["float32"].norm()).item()}}


def _finished(x: Tensor) -> Tensor:
    """Return images once the device has made them."""
    return x.cpu()


def _grey_levels(x: Tensor, y: Tensor) -> float:
    """Return the mean difference of images in grey levels of 256."""
    return (to_uint8(x).float() - to_uint8(y).float()).abs().mean().item()


def _operations(unet: UNet2DModel, x: Tensor) -> float:
    """Return multiplications and additions of a call for one image."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        unet(x[:1], torch.tensor([1], device=x.device))
    return float(counter.get_total_flops())


def _peak(device: str, dtype: torch.dtype) -> float:
    """Return operations per second of a large matrix product."""
    size = 8192 if device.startswith("cuda") else 1536
    a = torch.randn(size, size, device=device, dtype=dtype)
    took = []
    for _ in range(7):
        began = perf_counter()
        b = a @ a
        b[0, 0].item()
        took.append(perf_counter() - began)
    return 2 * size**3 / statistics.median(took)


def main() -> None:
    """Measure the networks and write the result of this kind of device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--networks", nargs="+", default=["natural32", "paper"], choices=BATCHES)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--batch", type=int, help="default: probed on a GPU, else 50, 1 or 4")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, help="default: results/throughput-cpu.json, or -cuda")
    options = parser.parse_args()
    device = pick_device(options.device)
    kind, found = device.partition(":")[0], []
    for name in options.networks:
        batch = options.batch or (BATCHES[name] if kind == "cpu" else 0)
        # A call of the paper's network takes seconds on a CPU.
        slow = name == "paper" and kind == "cpu"
        found.append(measure(name, device, 2 if slow else options.calls, batch,
                             compiled=options.compile, repeats=1 if slow else 3))
        for row in found[-1]["rows"]:
            print(f"{name:10} {row['way']:24} {row['ratio']:5.2f} times the plain loop, "
                  f"{row['share_of_peak']:.0%} of peak, workload {row['workload_hours']:.2f} h",
                  flush=True)
    write_result(options.out or RESULTS / f"throughput-{kind}.json",
                 {**circumstances(device), "networks": found})


if __name__ == "__main__":
    main()
