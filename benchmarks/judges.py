"""Does a judge see what is wrong with an image? Sensitivity of every extractor to known damage.

    python benchmarks/judges.py                               # measures, writes docs/judges.md
    python benchmarks/judges.py --pack WEIGHTS.pth PHOTOS.parquet    # makes features_imagenet

Real images of a domain are split into two sets. The second is damaged at three strengths. The
kernel distance to the first set must grow with the strength. ``z`` is the growth over the
undamaged images, divided by its standard error (paired bootstrap: both sets meet the same
resampled images). A judge *ranks* a kind of damage on a domain if the distance grows at every
step, and is *blind* to it if even the strongest is less than two standard errors away.

Domains are those of the repository, and image sets in ``../shared/data`` where that folder is.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, circumstances, write_result
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from flows.settings.params import load_params
from flows.settings.paths import PATHS
from flows.stages.fetch import source_of
from unseen_core.judging.extractors import load_extractor
from unseen_core.judging.features import extract
from unseen_core.judging.imagenet import SqueezeFeatures, calibrated
from unseen_core.judging.paired import kernel_difference
from unseen_core.sources import SourceConfig, load
from unseen_core.store import file_hash
from unseen_core.types import FeatureExtractor

SHARED = Path(__file__).parents[2] / "shared/data"
SETS = {"omniglot": "omniglot32.npz", "dogs": "cifar10_dog.npz", "ships": "cifar10_ship.npz",
        "textures64": "dtd_textures64.npz"}
JUDGES = ("features_imagenet", "projections", "pixels")
PHOTOGRAPHS = 3000
PAGE = Path(__file__).parents[1] / "docs/judges.md"


def speckle(x: Tensor, strength: float) -> Tensor:
    """Multiply by 1 + ``strength`` times white noise, and add a tenth of that in grey values."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(x.shape, generator=generator)
    return _bytes(x * (1 + strength * noise) + 25.5 * strength * noise)


def blur(x: Tensor, strength: float) -> Tensor:
    """Blur with a Gaussian of ``strength`` pixels."""
    return _bytes(torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, 0, strength, strength))))


def palette(x: Tensor, strength: float) -> Tensor:
    """Shift red up, green and blue down, by ``strength`` of the range."""
    return _bytes(x + 255 * strength * torch.tensor([1.0, -0.5, -1.0])[:, None, None])


def ghosts(x: Tensor, strength: float) -> Tensor:
    """Mix each image with the next one, whose share is ``strength``."""
    return _bytes((1 - strength) * x + strength * x.roll(1, 0))


def carve(x: Tensor, strength: float) -> Tensor:
    """Go by ``strength`` to the median over 3 x 3 pixels: flat parts with hard edges."""
    carved = torch.from_numpy(ndimage.median_filter(x.numpy(), (1, 1, 3, 3)))
    return _bytes((1 - strength) * x + strength * carved)


DAMAGE: Mapping[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "speckle": (speckle, (0.05, 0.1, 0.2)), "blur": (blur, (0.5, 0.8, 1.2)),
    "palette shift": (palette, (0.04, 0.08, 0.16)), "ghosts": (ghosts, (0.15, 0.3, 0.5)),
    "carved edges": (carve, (0.33, 0.67, 1.0)),
}


def main() -> None:
    """Measure, or pack the judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", nargs=2, type=Path, metavar=("WEIGHTS", "PHOTOS"))
    parser.add_argument("--count", type=int, default=400, help="images of a set, at most")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULTS / "judges.json")
    options = parser.parse_args()
    if options.pack:
        pack(*options.pack)
        return
    judges = {name: load_extractor(name, Path(f"data/embedded/{name}") if "features" in name
                                   else None) for name in JUDGES}
    found: dict[str, dict[str, dict[str, object]]] = {}
    for domain, images in domains():
        count = min(options.count, len(images) // 2)
        found[domain] = {name: sensitivity(judge, images[:count], images[count:2 * count],
                                           options.draws) for name, judge in judges.items()}
        print(domain, count, {name: {kind: round(row["z"][0], 1) for kind, row in rows.items()}
                              for name, rows in found[domain].items()}, flush=True)
    write_result(options.out, {"circumstances": circumstances("cpu"), "strengths": {
        kind: strengths for kind, (_, strengths) in DAMAGE.items()}, "domains": found})
    PAGE.write_text(page(found), "utf-8")


def domains() -> list[tuple[str, Tensor]]:
    """Return the sets, uint8 (n, 3, 32, 32) in an order drawn once."""
    params = load_params()
    found = {name: load(source_of(params, name)).images for name in params.domains}
    for name, file in SETS.items():
        if (SHARED / file).is_file():
            with np.load(SHARED / file) as stored:
                images = torch.from_numpy(stored["images"]).permute(0, 3, 1, 2)
            if images.shape[-1] != 32:
                images = _bytes(functional.interpolate(images.float(), (32, 32), mode="bilinear",
                                                       antialias=True))
            found[name] = images
    generator = torch.Generator().manual_seed(0)
    return [(name, images[torch.randperm(len(images), generator=generator)].expand(-1, 3, -1, -1))
            for name, images in found.items()]


def sensitivity(
    judge: FeatureExtractor, first: Tensor, second: Tensor, draws: int
) -> dict[str, dict[str, object]]:
    """Return, per kind of damage, the growth of the distance at each strength and its z."""
    real, sound = extract(judge, first), extract(judge, second)
    rows: dict[str, dict[str, object]] = {}
    for kind, (damage, strengths) in DAMAGE.items():
        grown = [kernel_difference(extract(judge, damage(second.float(), strength)), sound, real,
                                   paired=True, draws=draws) for strength in strengths]
        z = [step.value / max((step.high - step.low) / 3.92, 1e-12) for step in grown]
        values = [step.value for step in grown]
        rows[kind] = {"growth": values, "z": z, "blind": z[-1] < 2,
                      "ranks": all(a < b for a, b in zip([0.0, *values], values, strict=False))}
    return rows


def page(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, object]]]]) -> str:
    """Return docs/judges.md."""
    head = ["domain", "damage", *JUDGES]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * len(JUDGES)]
    ranked, blind = dict.fromkeys(JUDGES, 0), {name: list[str]() for name in JUDGES}
    for domain, rows in found.items():
        for kind in DAMAGE:
            cells = []
            for name in JUDGES:
                row = rows[name][kind]
                ranked[name] += bool(row["ranks"])
                if row["blind"]:
                    blind[name].append(f"{kind} on {domain}")
                weak, _, strong = row["z"]
                cells.append(f"{weak:.1f} to {strong:.1f}" + ("" if row["ranks"] else " ✗"))
            lines.append(f"| {domain} | {kind} | {' | '.join(cells)} |")
    whole = len(found) * len(DAMAGE)
    summary = "\n".join(
        f"* `{name}` ranks {ranked[name]} of {whole} by strength, and is blind to "
        + (f"{len(blind[name])}" if len(blind[name]) > 3 else ", ".join(blind[name]) or "none")
        + "." for name in JUDGES)
    return _PAGE.format(summary=summary, table="\n".join(lines))


_PAGE = """# What each judge sees

Written by `python benchmarks/judges.py`; no figure is typed by hand.

An extractor turns images into features; distances, novelty and copies are taken between features.
Whether one sees what goes wrong with generated images is measured on real ones: half of a domain's
images are damaged at three strengths, and the kernel distance to the other half must grow with the
strength. The figures are z at the weakest and at the strongest damage: the growth of the distance
over its standard error. ✗ marks damage whose three strengths are not in order. A judge is blind to
damage if the strongest moves it by less than two standard errors.

{summary}

`features_imagenet` is SqueezeNet 1.0 trained on ImageNet; it has learnt none of these domains.
`projections` are random weights, `pixels` the image itself.

{table}
"""


def pack(weights: Path, photographs: Path) -> None:
    """Write the model of data/embedded/features_imagenet: half precision, calibrated."""
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network = SqueezeFeatures()
    network.load_state_dict({name: value for name, value in state.items()
                             if name.startswith("features.")})
    images = load(SourceConfig("parquet", "photographs", path=str(photographs), column="image",
                               size=32)).images
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:PHOTOGRAPHS]
    out = PATHS.embedded("features_imagenet")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "model.safetensors"
    save_file(calibrated(network, images[chosen]).state(), file)
    file.chmod(0o644)
    print(f"{file}: sha256 {file_hash(file)}, of weights {file_hash(weights)}; note it in the "
          "README.md beside it")


def _bytes(x: Tensor) -> Tensor:
    """Round to uint8."""
    return x.round().clamp(0, 255).byte()


if __name__ == "__main__":
    main()
