"""Time and peak memory of every stage on images of 3 x 256 x 256: are 1,000 of them below 6 GB?

    python benchmarks/memory.py [--images 1000] [--count 200]
    python benchmarks/memory.py --images 16 --count 16   # the shape of the work, in minutes

A project is made in a temporary folder: smooth random pictures, a narrow network of random
weights, two solver steps. What a wide network takes depends on the batch and not on the set, so
it is left out; everything that grows with the number of images is at full size. 200 images per
cell are four parts of start states, of which two are in memory at once; ``denoise`` and
``evaluate`` hold a cell's images as bytes, 0.2 MB with each more.

Each stage is a process of its own; its peak is the kernel's (``ru_maxrss``), with libraries and
pages of mapped files. Parts are
worked on as ``params.yaml`` says, two at a time on the CPU. Exits with 1 if a stage fails or
needs more than 6 GB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from common import RESULTS, circumstances, write_result
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from ruamel.yaml import YAML
from torch.nn import functional

from flows.settings.sections import Section

ROOT = Path(__file__).resolve().parents[1]
LEVEL, HELD_OUT = 100, 200
LIMIT = 6e9  # bytes
MODEL, DOMAIN, SEEN = "narrow", "smooth", "seen"
SAMPLERS = {
    "prior-empirical": {"sampler": "prior", "kind": "empirical"},
    "prior-shrunk": {"sampler": "prior", "kind": "shrunk"},
    "geometric": {"sampler": "geometric", "parents": 3, "near": 20, "alpha": 20.0},
    "geometric-shrunk": {"sampler": "geometric", "proposal": "shrunk"},
    "pixel-gaussian": {"sampler": "prior", "kind": "empirical", "space": "pixels"},
}


# A process begins its peak with what the one that starts it holds, so a small one does.
_STARTER = """
import os, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Stage(Section):
    """What one process took: bytes at the peak, and seconds."""

    peak_bytes: int
    seconds: float


def pictures(count: int, size: int, seed: int) -> np.ndarray:
    """Return smooth random pictures, uint8 (count, size, size, 3)."""
    generator = torch.Generator().manual_seed(seed)
    found = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        grid = torch.rand(1, 3, 9, 9, generator=generator)
        image = functional.interpolate(grid, (size, size), mode="bicubic", align_corners=True)
        found[i] = (image[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()
    return found


def make_project(folder: Path, images: int, count: int, size: int = 256) -> None:
    """Write pictures, checkpoint and params.yaml."""
    held_out = min(images, HELD_OUT)
    np.savez(folder / "fit.npz", images=pictures(images + held_out, size, 0))
    np.savez(folder / "seen.npz", images=pictures(2 * held_out, size, 1))
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=size, block_out_channels=(4, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
        add_attention=False)
    DDPMPipeline(network, DDPMScheduler(clip_sample=False)).save_pretrained(folder / "checkpoint")
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
    params["pipeline"] = {"models": [MODEL], "domains": [DOMAIN]}
    params["levels"] = [LEVEL]
    params["models"] = {MODEL: {"path": "checkpoint", "seen": SEEN}}
    params["domains"] = {
        DOMAIN: {"source": "npz", "path": "fit.npz", "fit": images, "held_out": held_out},
        SEEN: {"source": "npz", "path": "seen.npz", "fit": held_out, "held_out": held_out}}
    params["compute"]["device"] = "cpu"
    params["images"]["size"] = size
    params["solver"] |= {"method": "ddim", "steps": 2}
    params["invert"] |= {"batch": 10, "part_size": 50}
    params["fit"]["kinds"] = ["isotropic", "empirical", "shrunk", "diagonal"]
    params["sample"] = {"count": count, "part_size": 50}
    near = min(SAMPLERS["geometric"]["near"], images // 2)
    params["samplers"] = SAMPLERS | {"geometric": {**SAMPLERS["geometric"], "near": near}}
    params["denoise"] |= {"precision": "float32", "batch": 10}
    params["evaluate"]["extractors"] = {"projections": {}, "pixels": {}}
    params["analyze"] |= {"steps": [2], "images": 4, "etas": [0.0, 1.0], "paths": 2}
    with (folder / "params.yaml").open("w", encoding="utf-8") as stream:
        YAML().dump(params, stream)


def measure(folder: Path, *words: str) -> Stage:
    """Run one stage in a process and return its peak and time.

    Raises:
        SystemExit: If it fails.
    """
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("DVC_", "PREFECT_", "MLFLOW_"))}
    with tempfile.NamedTemporaryFile("r", encoding="ascii") as peak:
        began = perf_counter()
        process = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _STARTER, peak.name, sys.executable, "-m", "flows",
             *words], cwd=folder, check=False,
            env={**kept, "PYTHONPATH": str(ROOT), "UNSEEN_PARENT_RUN": ""})
        if process.returncode:
            raise SystemExit(f"python -m flows {' '.join(words)}: exit code {process.returncode}")
        unit = 1 if sys.platform == "darwin" else 1024
        found = Stage(peak_bytes=int(peak.read()) * unit, seconds=perf_counter() - began)
    print(f"{' '.join(words):50} {found.peak_bytes / 1e9:6.2f} GB {found.seconds:8.1f} s",
          flush=True)
    return found


def run_stages(folder: Path, stages: Sequence[str]) -> dict[str, Stage]:
    """Fetch, invert the seen images, and run stages of the domain; return what each took."""
    fetched = {
        "fetch domain": measure(folder, "fetch", "--domain", DOMAIN),
        "fetch seen": measure(folder, "fetch", "--domain", SEEN),
        "fetch model": measure(folder, "fetch-model", "--model", MODEL),
        "plan": measure(folder, "plan"),
        "invert seen": measure(folder, "invert", "--model", MODEL)}
    return fetched | {stage: measure(folder, stage, "--model", MODEL, "--domain", DOMAIN)
                      for stage in stages}


def main() -> None:
    """Run every stage on the project and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder, given.images, given.count)
        found = run_stages(folder, ("invert", "fit", "sample", "denoise", "select", "evaluate",
                                    "analyze"))
        bytes_on_disk = {part.name: sum(file.stat().st_size for file in part.rglob("*")
                                        if file.is_file())
                         for part in sorted((folder / "data").iterdir())}
    peak = max(stage.peak_bytes for stage in found.values())
    write_result(given.out, {
        "benchmark": "memory", **circumstances("cpu"), "images": given.images, "size": 256,
        "count": given.count, "samplers": len(SAMPLERS), "limit_bytes": int(LIMIT),
        "peak_bytes": peak, "stages": {name: stage.model_dump() for name, stage in found.items()},
        "bytes_on_disk": bytes_on_disk})
    if peak > LIMIT:
        raise SystemExit(f"peak {peak / 1e9:.2f} GB is above {LIMIT / 1e9:.0f} GB")


if __name__ == "__main__":
    main()
