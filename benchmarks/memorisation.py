"""How often blends copy, against the number of fit images and of parents.

    python benchmarks/memorisation.py [--level 300] [--count 100]

The latents, the network and the domains are those of the last run of the pipeline. Of N fit
images alone, blends of p random parents are put on the shell of those N (``geometric`` without
its test, which no ten images could calibrate) and denoised. A copy is nearer to one of the N than
99 % of held-out images are, by features and by pixels; new images of the domain are so at the
nominal rate. One parent is a fit image at another length: the ceiling.
"""

import argparse
from pathlib import Path

import torch
from common import RESULTS, circumstances, write_result

from flows.loading.fitted import references_at
from flows.loading.frozen import load_frozen
from flows.loading.grid import grid_of
from flows.loading.judge import first_extractor
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.images import to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.transport import denoise
from unseen_core.judging.audit import audit
from unseen_core.judging.extractors import metric_names
from unseen_core.judging.features import Pixels, extract
from unseen_core.judging.metrics import kernel_distance
from unseen_core.judging.novelty import novelty
from unseen_core.laws.geometry import Envelope
from unseen_core.laws.references import References
from unseen_core.starts import Geometric, StartContext
from unseen_core.store import read_pictures

SIZES = (10, 25, 50, 100)
PARENTS = (1, 2, 4, 8)


def main() -> None:
    """Draw, denoise and audit every pair of sizes, per model and domain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--level", type=int, default=300)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS / "memorisation.json")
    options = parser.parse_args()
    params = load_params()
    torch.set_num_threads(params.compute.threads)
    judge = first_extractor(params)
    kernel, _ = metric_names(judge.name)
    rows = []
    print(f"{'domain':12}{'N':>5}{'parents':>9}{'copies (95 %)':>22}{'nominal':>9}"
          f"{'by pixels':>11}{'novelty':>9}{kernel:>16}")
    for model in params.pipeline.models:
        network = load_frozen(model, device="cpu", precision=params.denoise.precision,
                              batch=params.denoise.batch).network
        grid = grid_of(network, params)
        part = grid[: grid.index(options.level) + 1]
        for domain in params.pipeline.domains:
            latents, _ = references_at(model, domain, options.level)
            pictures, _ = read_pictures(PATHS.domain(domain) / "fit.parquet")
            held_out, _ = read_pictures(PATHS.domain(domain) / "held_out.parquet")
            known = [extract(e, pictures) for e in (judge, Pixels())]
            real = [extract(e, held_out) for e in (judge, Pixels())]
            for size in [n for n in SIZES if n <= latents.count]:
                unbounded = Envelope(torch.full((5,), -torch.inf), torch.full((5,), torch.inf), 1.0)
                chosen = References.of(latents.rows(range(size)))
                context = StartContext(network.schedule, options.level, chosen, {}, unbounded)
                for parents in PARENTS:
                    streams = Streams(params.seed, f"memorisation/{domain}/{size}",
                                      [str(i) for i in range(options.count)])
                    starts = Geometric(parents=parents, alpha=20.0, tested=False).draw(
                        context, streams)
                    images = to_uint8(torch.cat([
                        denoise(network, x, part, method=params.solver.method)
                        for x in starts.x.split(params.denoise.batch)]))
                    made = [extract(e, images) for e in (judge, Pixels())]
                    found = [audit(m, k[:size], r) for m, k, r in zip(made, known, real,
                                                                      strict=True)]
                    copies = found[0].summary()
                    distance = kernel_distance(made[0], real[0], draws=100)
                    row = {
                        "model": model, "domain": domain, "N": size, "parents": parents,
                        "copies": copies["near_duplicates"], "low": copies["near_duplicates_low"],
                        "high": copies["near_duplicates_high"],
                        "nominal": copies["near_duplicates_nominal"],
                        "copies_pixels": found[1].summary()["near_duplicates"],
                        "novelty": novelty(made[0], real[0], known[0][:size]),
                        kernel: distance.value,
                    }
                    rows.append(row)
                    print(f"{domain:12}{size:>5}{parents:>9}{row['copies']:>8.2f} ({row['low']:.2f}"
                          f" to {row['high']:.2f}){row['nominal']:>9.3f}"
                          f"{row['copies_pixels']:>11.2f}{row['novelty']:>9.2f}{row[kernel]:>16.3f}",
                          flush=True)
    write_result(options.out, {
        "benchmark": "memorisation", **circumstances("cpu"), "level": options.level,
        "count": options.count, "extractor": judge.name, "rows": rows})


if __name__ == "__main__":
    main()
