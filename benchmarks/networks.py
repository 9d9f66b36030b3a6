"""What a frozen network adds: the same blends by every embedded network, and without one.

    python benchmarks/networks.py [--count 100] [--domains digits faces galaxies textures]

The fit images of the last run's domains are inverted by each network to levels 100, 300 and 500.
Two near parents, and four random ones, are put on the shell of the latents (``geometric``) and
denoised. Beside them stand the same blends of pixels, and the local score of the fit images, which
need no network. ``features_imagenet`` judges against all held-out images: kernel distance with its
95 % interval, novelty, and the share of copies with that of held-out images. Nothing is chosen
here; a cell that is picked from the table because it looks best is too good by that choice.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from common import RESULTS, circumstances, context_of, images_of, write_result
from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.denoiser import UNetEps, load_model
from unseen_core.diffusion.transport import denoise, invert
from unseen_core.judging.audit import audit
from unseen_core.judging.extractors import load_extractor
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import kernel_distance
from unseen_core.judging.novelty import novelty
from unseen_core.starts import Geometric, LocalScore, StartContext, StartSampler

NETWORKS = ("shapes32", "natural32")
CALLS = {100: 10, 300: 15, 500: 20}
BLENDS = {"2 near": Geometric(parents=2, near=20, alpha=20.0),
          "4 random": Geometric(parents=4, alpha=20.0)}


def main() -> None:
    """Measure every domain, and write and print one row for each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--domains", nargs="+", default=["digits", "faces", "galaxies", "textures"])
    parser.add_argument("--out", type=Path, default=RESULTS / "networks.json")
    options = parser.parse_args()
    judge = load_extractor("features_imagenet", PATHS.embedded("features_imagenet"))
    models = {name: load_model(PATHS.embedded(name), precision="bf16") for name in NETWORKS}
    ids = [f"{i:05d}" for i in range(options.count)]
    found: dict[str, list[dict[str, object]]] = {}
    for domain in options.domains:
        fit, held_out = images_of(domain)
        seen, real, found[domain] = extract(judge, fit), extract(judge, held_out), []
        for name, images in _cells(models, fit, f"networks/{domain}", ids):
            made = extract(judge, images)
            distance, near = kernel_distance(made, real), audit(made, seen, real).summary()
            new = novelty(made, real, seen)
            found[domain].append({
                "cell": name, "distance": distance.value, "low": distance.low,
                "high": distance.high, "novelty": new, "copies": near["near_duplicates"],
                "copies_held_out": near["near_duplicates_nominal"]})
            print(f"{domain:9} {name:24} {distance.value:7.3f} ({distance.low:.3f} to "
                  f"{distance.high:.3f}), novelty {new:.2f}, copies "
                  f"{near['near_duplicates']:.2f}", flush=True)
    write_result(options.out, {"circumstances": circumstances("cpu"), "count": options.count,
                               "domains": found})


def _cells(
    models: Mapping[str, UNetEps], fit: Tensor, purpose: str, ids: Sequence[str]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of each cell and its images, uint8."""

    def draw(sampler: StartSampler, context: StartContext) -> Tensor:
        return sampler.draw(context, Streams(0, purpose, ids)).x

    yield "fit images", fit
    clean = context_of(to_float(fit), 0, next(iter(models.values())).schedule)
    yield "local score", to_uint8(draw(LocalScore(), clean))
    for kind, sampler in BLENDS.items():
        yield f"pixels, {kind}", to_uint8(draw(sampler, clean))
    for name, model in models.items():
        for level, calls in CALLS.items():
            grid = model.schedule.grid(calls, level)
            latents = context_of(invert(model, to_float(fit), grid), level, model.schedule)
            for kind, sampler in BLENDS.items():
                states = draw(sampler, latents)
                yield f"{name}, {kind}, {level}", to_uint8(denoise(model, states, grid))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
