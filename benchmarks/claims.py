"""Is the best cell closer to held-out images than its peers? Paired bootstrap on the last run.

The intervals in compare.csv each hold the chance of the held-out images, which all cells share.
Here both cells of a pair are measured against the same resampled held-out images, so that chance
cancels: the interval is that of KD(peer) - KD(best) on the features that judge the run, and it
excludes 0 where the difference is more than chance. Best cell and peers were picked by one half of
the held-out images; the difference is measured on the other. The wider intervals are Bonferroni's:
with a chance of 95 % they hold all differences to rivals that need no model at once.
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

_DRAWS = 10_000  # of the bootstrap
_MISSED = 0.05  # chance that an interval misses, or that any of the wider ones does


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
    chosen = json.loads((PATHS.report / "best.json").read_text())
    peers = {}
    for key, best in chosen.items():
        model, _, domain = key.partition("/")
        rows = table[(table["model"] == model) & (table["domain"] == domain)]
        peers[key] = _peers(params, rows, kernel, best["novelty"])
    free = sum(cell.level == 0 for cells in peers.values() for cell in cells)
    found: dict[str, object] = {}
    for key, best in chosen.items():
        model, _, domain = key.partition("/")

        def features(cell: Cell, model: str = model, domain: str = domain) -> Tensor:
            return extract(judge, read_pictures(
                PATHS.generated(model, domain) / f"{cell.key}.parquet")[0])

        held_out, _ = read_pictures(PATHS.domain(domain) / "held_out.parquet")
        _, real = halves(extract(judge, held_out))
        mine = Cell(best["level"], best["sampler"])
        print(f"{key}: {mine.key}")
        found[key] = {"best": mine.key, "peers": {}}
        for peer in peers[key]:
            sets = features(peer), features(mine), real
            more = kernel_difference(*sets, draws=_DRAWS, level=1 - _MISSED)
            entry = {"difference": more.value, "low": more.low, "high": more.high}
            if peer.level == 0:
                wide = kernel_difference(*sets, draws=_DRAWS, level=1 - _MISSED / free)
                entry |= {"low_of_all": wide.low, "high_of_all": wide.high}
            found[key]["peers"][peer.key] = entry
            print(f"  {kernel} of {peer.key} less its own: {more.value:.3f} ({more.low:.3f} to "
                  f"{more.high:.3f})")
    write_result(out, {**circumstances("cpu"), "kernel": kernel, "differences to no model": free,
                       "pairs": found})


if __name__ == "__main__":
    main()
