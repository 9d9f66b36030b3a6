"""What batches and threads change of a result: latents to level 900, and images from level 300.

    python benchmarks/determinism.py [--count 50]

Fit images of the last run's domains are inverted (float32) and denoised again (bf16) with the
embedded network, once in the way of one batch and one thread and then in others. A difference in
latents is the largest of any number, in images it is counted in pictures that differ in any pixel,
with the largest difference in grey levels of 256. Parts (`part_size`) bound batches and nothing
else. The processor is another cause: kernels for other instructions sum in another order.
"""

import argparse
from pathlib import Path

import torch
from common import RESULTS, circumstances, images_of, write_result
from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.transport import denoise, invert

CALLS = {900: 32, 300: 12}
WAYS = {"batches of 7": (7, 1), "one by one": (1, 1), "two threads": (None, 2)}


def carried(model: UNetEps, x: Tensor, level: int, batch: int | None, *, up: bool) -> Tensor:
    """Return states (n, c, h, w) carried between level 0 and another, in batches."""
    carry, levels = invert if up else denoise, model.schedule.grid(CALLS[level], level)
    return torch.cat([carry(model, part, levels) for part in x.split(batch or len(x))])


def main() -> None:
    """Compare every way with the first, print and write what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--domains", nargs="+", default=["faces", "galaxies"])
    parser.add_argument("--out", type=Path, default=RESULTS / "determinism.json")
    options = parser.parse_args()
    precise, fast = (load_model(PATHS.embedded("natural32"), precision=kind)
                     for kind in ("float32", "bf16"))
    clean = to_float(torch.cat([images_of(name)[0][: options.count] for name in options.domains]))
    torch.set_num_threads(1)
    where = circumstances("cpu")
    latents = carried(precise, clean, 900, None, up=True)
    start = carried(precise, clean, 300, None, up=True)
    images = to_uint8(carried(fast, start, 300, None, up=False))
    found = {}
    for name, (batch, threads) in WAYS.items():
        torch.set_num_threads(threads)
        states = carried(precise, clean, 900, batch, up=True)
        made = to_uint8(carried(fast, start, 300, batch, up=False))
        off = (made.int() - images.int()).abs().flatten(1).amax(1)
        found[name] = {"latents": (states - latents).abs().max().item(),
                       "images": int((off > 0).sum()), "grey_levels": int(off.max())}
        print(name, found[name])
    write_result(options.out, {**where, "count": len(clean), "ways": found})


if __name__ == "__main__":
    main()
