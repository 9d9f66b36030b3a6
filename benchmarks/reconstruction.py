"""What comes back of an unseen image: up to level 900 and down again, by both embedded networks.

    python benchmarks/reconstruction.py [--count 16] [--domains digits faces ...]

Fit images of the last run's domains go up and down on the default's grid, 32 calls each way, in
float32. The peak signal-to-noise ratio is that of an image in [0, 1], before it is rounded:
10 log10(1 / mean squared error). Rounding to 8 bits alone costs 58.9 dB. Beside it stands the
largest error of any pixel after rounding, in grey levels of 256.
"""

import argparse
import statistics
from pathlib import Path

from common import RESULTS, circumstances, images_of, write_result
from torch import Tensor

from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.transport import denoise, invert

LEVEL = 900
NETWORKS = ("natural32", "shapes32")


def came_back(model: UNetEps, images: Tensor, calls: int) -> dict[str, list[float]]:
    """Return the ratio in dB and the largest error in grey levels of each image, uint8 (n, …)."""
    levels = model.schedule.grid(calls, LEVEL)
    clean = to_float(images)
    back = denoise(model, invert(model, clean, levels), levels)
    square = ((back - clean) / 2).square().flatten(1).mean(1)
    off = (to_uint8(back).int() - images.int()).abs().flatten(1).amax(1)
    return {"decibel": (-10 * square.log10()).tolist(), "grey_levels": off.tolist()}


def said(ratios: list[float]) -> str:
    """Return median and minimum of ratios in words."""
    return f"{statistics.median(ratios):.1f} dB, the worst {min(ratios):.1f} dB"


def main() -> None:
    """Measure every domain by both networks, print the medians and the worst, and write all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--domains", nargs="+", default=["digits", "faces", "galaxies", "textures"])
    parser.add_argument("--out", type=Path, default=RESULTS / "reconstruction.json")
    options = parser.parse_args()
    calls = load_params().solver.steps
    models = {name: load_model(PATHS.embedded(name)) for name in NETWORKS}
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for domain in options.domains:
        images = images_of(domain)[0][: options.count]
        found[domain] = {name: came_back(model, images, calls) for name, model in models.items()}
        for name, row in found[domain].items():
            print(f"{domain:10} {name:10} {said(row['decibel'])}, off by "
                  f"{max(row['grey_levels'])} grey levels at most")
    for name in NETWORKS:
        every = [x for row in found.values() for x in row[name]["decibel"]]
        print(f"{'all':10} {name:10} {said(every)}")
    write_result(options.out, {**circumstances("cpu"), "level": LEVEL, "calls": calls,
                               "count": options.count, "domains": found})


if __name__ == "__main__":
    main()
