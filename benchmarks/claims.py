"""Is the best cell closer to held-out images than its peers? Paired bootstrap on the last run.

The intervals in compare.csv each hold the chance of the held-out images, which all cells share.
Here both cells of a pair are measured against the same resampled held-out images, so that chance
cancels: the interval is that of KD(peer) - KD(best) on the features that judge the run, and it
excludes 0 where the difference is more than chance. Best cell and peers were picked by one half of
the held-out images; the difference is measured on the other.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from common import RESULTS, circumstances, write_result
from torch import Tensor

from flows.loading.judge import first_extractor
from flows.report.choice import qualified
from flows.settings.cells import Cell
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.judging.extractors import metric_names
from unseen_core.judging.features import extract
from unseen_core.judging.judges import halves
from unseen_core.judging.paired import kernel_difference
from unseen_core.store import read_pictures

__all__ = ["main"]

_DRAWS = 2000  # of the bootstrap


def _peers(params: Params, rows: pd.DataFrame, kernel: str, new: float) -> list[Cell]:
    """Return each plain sampler's closest cell, and the closest model-free ones.

    Of these one is at least as new as the best cell, and one keeps to the bounds that it keeps.
    """
    plain = [name for name, s in params.samplers.items() if s.sampler in ("noise", "prior")
             and s.space == "latents"]
    free = rows[rows["sampler"].isin(
        [name for name, s in params.samplers.items() if s.space == "pixels"])]
    groups = [*(rows[rows["sampler"] == name] for name in plain), free[free["novelty"] >= new],
              qualified(free, params)]
    closest = [group.loc[group[f"{kernel}_first"].idxmin()] for group in groups if len(group)]
    return list(dict.fromkeys(Cell(int(row["level"]), row["sampler"]) for row in closest))


def main() -> None:
    """Compare every best cell of data/report/best.json with its peers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "claims.json")
    out = parser.parse_args().out
    params = load_params()
    judge = first_extractor(params)
    kernel, _ = metric_names(judge.name)
    table = pd.read_csv(PATHS.report / "compare.csv")
    found: dict[str, object] = {}
    for key, best in json.loads((PATHS.report / "best.json").read_text()).items():
        model, _, domain = key.partition("/")

        def features(cell: Cell, model: str = model, domain: str = domain) -> Tensor:
            return extract(judge, read_pictures(
                PATHS.generated(model, domain) / f"{cell.key}.parquet")[0])

        held_out, _ = read_pictures(PATHS.domain(domain) / "held_out.parquet")
        _, real = halves(extract(judge, held_out))
        rows = table[(table["model"] == model) & (table["domain"] == domain)]
        mine = Cell(best["level"], best["sampler"])
        print(f"{key}: {mine.key}")
        found[key] = {"best": mine.key, "peers": {}}
        for peer in _peers(params, rows, kernel, best["novelty"]):
            more = kernel_difference(features(peer), features(mine), real, draws=_DRAWS)
            found[key]["peers"][peer.key] = {"difference": more.value, "low": more.low,
                                             "high": more.high}
            print(f"  {kernel} of {peer.key} less its own: {more.value:.3f} ({more.low:.3f} to "
                  f"{more.high:.3f})")
    write_result(out, {**circumstances("cpu"), "kernel": kernel, "pairs": found})


if __name__ == "__main__":
    main()
