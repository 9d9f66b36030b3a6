"""Every latent sampler beside the same sampler on pixels, on the last run: what the network adds.

    python -m flows run --params presets/ablation.yaml && python benchmarks/ablation.py

A twin has the same settings with ``space: pixels`` and needs no network. The difference is that of
the kernel distances, KD(latent) - KD(twin), both against the same resampled held-out images
(``benchmarks/claims.py``): below 0 the network brought the images closer. Novelty, copies and
ghosts of both stand beside it, since distance can be bought with any of them.
"""

import argparse
import json
from pathlib import Path

from common import RESULTS, circumstances, write_result

from flows.loading.judge import first_extractor
from flows.settings.cells import Cell
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.judging.extractors import metric_names
from unseen_core.judging.features import extract
from unseen_core.judging.paired import kernel_difference
from unseen_core.store import read_pictures

_BESIDE = ("novelty", "copies", "ghosts", "high_frequency_distance", "precision", "recall")


def twins(params: Params) -> dict[str, str]:
    """Return latent samplers that have a pixel-space sampler of equal settings, with its name."""
    free = {name: s.settings() for name, s in params.samplers.items() if s.space == "pixels"}
    found = {}
    for name, sampler in params.samplers.items():
        mine = {key: value for key, value in sampler.settings().items()
                if key not in ("eta", "guide")}
        equal = [other for other, settings in free.items() if settings == mine]
        if sampler.space == "latents" and equal:
            found[name] = equal[0]
    return found


def main() -> None:
    """Compare every latent cell with its twin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "ablation.json")
    out = parser.parse_args().out
    params = load_params()
    judge = first_extractor(params)
    kernel, _ = metric_names(judge.name)
    pairs, rows = twins(params), []
    print(f"{'':36}{kernel:>14}{'twin':>8}{'difference (95 %)':>26}{'novelty':>14}{'copies':>14}"
          f"{'ghosts':>14}")
    for path in sorted(PATHS.metrics_folder.glob("*/*.json")):
        model, domain = path.parent.name, path.stem
        cells = {(c["level"], c["sampler"]): c["metrics"]
                 for c in json.loads(path.read_text("utf-8"))["cells"]}
        held_out, _ = read_pictures(PATHS.domain(domain) / "held_out.parquet")
        real = extract(judge, held_out)
        features = {place: extract(judge, read_pictures(
            PATHS.generated(model, domain) / f"{Cell(*place).key}.parquet")[0])
            for place in cells if place[1] in {*pairs, *pairs.values()}}
        for (level, sampler), mine in cells.items():
            if sampler not in pairs:
                continue
            twin = cells[0, pairs[sampler]]
            more = kernel_difference(features[level, sampler], features[0, pairs[sampler]], real,
                                     draws=500)
            rows.append({
                "model": model, "domain": domain, "level": level, "sampler": sampler,
                "twin": pairs[sampler], kernel: mine[kernel], f"{kernel}_twin": twin[kernel],
                "difference": more.value, "low": more.low, "high": more.high,
                **{key: mine[key] for key in _BESIDE},
                **{f"{key}_twin": twin[key] for key in _BESIDE}})
            both = "".join(f"{mine[key]:>8.2f}{twin[key]:>6.2f}"
                           for key in ("novelty", "copies", "ghosts"))
            print(f"{f'{model} {domain} {sampler}@{level}':36}{mine[kernel]:>14.3f}"
                  f"{twin[kernel]:>8.3f}"
                  f"{f'{more.value:.3f} ({more.low:.3f} to {more.high:.3f})':>26}{both}")
    write_result(out, {"benchmark": "ablation", **circumstances("cpu"), "extractor": judge.name,
                       "count": params.sample.count, "rows": rows})


if __name__ == "__main__":
    main()
