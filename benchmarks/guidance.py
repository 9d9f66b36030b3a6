"""What guides a frozen network best: the local score of whom, how strongly, where, how local.

    python benchmarks/guidance.py [--count 96] [--domains digits faces galaxies textures]

The fit images of the last run's domains are inverted by ``natural32`` to levels 100 and 300. Blends
of three near parents, and of four random ones, are denoised by (1 - w) eps + w eps_local in each
of these ways. ``features_imagenet`` judges by the first half of the held-out images, that on which
cells are picked: kernel distance with its 95 % interval, novelty, copies and ghosts.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from common import RESULTS, circumstances, context_of, images_of, write_result
from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.denoiser import load_model
from unseen_core.diffusion.guided import GuidedEps
from unseen_core.diffusion.local_score import LocalEps
from unseen_core.diffusion.transport import denoise, invert
from unseen_core.judging.audit import audit
from unseen_core.judging.extractors import load_extractor
from unseen_core.judging.features import extract
from unseen_core.judging.judges import GhostJudge, halves
from unseen_core.judging.metrics import kernel_distance
from unseen_core.judging.novelty import novelty
from unseen_core.starts import Geometric
from unseen_core.types import EpsModel, Level

BLENDS = {"3 near, level 100": (100, 10, Geometric(parents=3, near=20, alpha=20.0)),
          "4 random, level 300": (300, 15, Geometric(parents=4, alpha=20.0))}
Weight = Callable[[float], float]
"""Of the local score, by sigma, the noise's length over the signal's."""


@dataclass(frozen=True)
class Way:
    """How a network is guided: by whose local score, how much, with which patches."""

    weight: Weight
    everyone: bool = False
    patches: tuple[int, int] = (5, 31)


def low_noise(weight: float) -> Weight:
    """Return a weight that is full up to sigma = 0.1 and falls to 0 at sigma = 1."""
    return lambda sigma: weight * min(max(-math.log10(sigma), 0.0), 1.0)


def high_noise(weight: float) -> Weight:
    """Return what `low_noise` leaves."""
    low = low_noise(weight)
    return lambda sigma: weight - low(sigma)


WAYS: Mapping[str, Way] = {
    "not guided": Way(lambda _: 0.0),
    **{f"its parents, w = {w}": Way(lambda _, w=w: w) for w in (0.1, 0.2, 0.4, 1.0)},
    **{f"all fit images, w = {w}": Way(lambda _, w=w: w, everyone=True) for w in (0.1, 0.2, 0.4)},
    "its parents, w = 0.2, patches of 3 to 11": Way(lambda _: 0.2, patches=(3, 11)),
    "its parents, w = 0.3 at low noise": Way(low_noise(0.3)),
    "its parents, w = 0.3 at high noise": Way(high_noise(0.3)),
}


def guided(network: EpsModel, local: LocalEps, weight: Weight) -> GuidedEps:
    """Return the network, its noise mixed with the local score's by a weight."""

    def change(eps: Tensor, x: Tensor, level: Level) -> Tensor:
        w = weight(network.schedule.sigma(max(level, 1)).item())
        return eps if w == 0 else (1 - w) * eps + w * local(x, level)

    return GuidedEps(network, change)


def main() -> None:
    """Measure every domain, and write and print one row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--domains", nargs="+", default=["digits", "faces", "galaxies", "textures"])
    parser.add_argument("--out", type=Path, default=RESULTS / "guidance.json")
    options = parser.parse_args()
    judge = load_extractor("features_imagenet", PATHS.embedded("features_imagenet"))
    network = load_model(PATHS.embedded("natural32"), precision="bf16")
    ids = [f"{i:05d}" for i in range(options.count)]
    rows: list[dict[str, object]] = []
    for domain in options.domains:
        fit, held_out = images_of(domain)
        clean, seen, real = to_float(fit), extract(judge, fit), extract(judge, held_out)
        first, _ = halves(real)
        ghosts = GhostJudge.of(fit, held_out, 0)
        for blend, (level, calls, sampler) in BLENDS.items():
            grid = network.schedule.grid(calls, level)
            context = context_of(invert(network, clean, grid), level, network.schedule)
            starts = sampler.draw(context, Streams(0, f"guidance/{domain}", ids))
            for name, way in WAYS.items():
                whose = clean if way.everyone else clean[starts.parents]
                local = LocalEps(network.schedule, whose, *way.patches)
                images = to_uint8(denoise(guided(network, local, way.weight), starts.x, grid))
                made = extract(judge, images)
                distance, near = kernel_distance(made, first), audit(made, seen, real).summary()
                row = {"domain": domain, "blend": blend, "guided by": name,
                       "distance": distance.value, "low": distance.low, "high": distance.high,
                       "novelty": novelty(made, real, seen), "copies": near["near_duplicates"],
                       "ghosts": ghosts.judge(images, 200, 0)[0]["ghosts"]}
                rows.append(row)
                print(f"{domain:9} {blend}, {name:42} {distance.value:6.3f} ({distance.low:.3f} to "
                      f"{distance.high:.3f}), novelty {row['novelty']:.2f}, copies "
                      f"{row['copies']:.2f}, ghosts {row['ghosts']:.2f}", flush=True)
    write_result(options.out, {**circumstances("cpu"), "count": options.count, "rows": rows})


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
