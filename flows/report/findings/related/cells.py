"""The cells of the related works' samplers in the comparison."""

from collections.abc import Sequence

import pandas as pd

from flows.report.findings.evidence import NOT_HERE, Evidence, place_of
from flows.report.findings.text import DASH, number, span
from unseen_core.starts import StartSampler

__all__ = ["ASK", "cell_text", "nearest_of", "starts_of"]

ASK = f"{NOT_HERE}; `python -m flows run --params presets/related.yaml` adds the samplers"


def starts_of(evidence: Evidence, *kinds: type[StartSampler]) -> list[str]:
    """Return the samplers of some kinds that start the frozen network."""
    return [name for name, section in evidence.params.samplers.items()
            if section.space == "latents" and section.network is None
            and isinstance(evidence.built[name], kinds)]


def nearest_of(evidence: Evidence, case: str, names: Sequence[str]) -> pd.Series | None:
    """Return the closest cell of some samplers, or None."""
    rows = evidence.cases[case]
    return evidence.nearest(rows[rows["sampler"].isin(names)])


def cell_text(evidence: Evidence, row: pd.Series | None) -> str:
    """Return a cell's place, distance, novelty and share in the target domain."""
    if row is None:
        return DASH
    return (f"{place_of(row)}: {span(evidence.distance(row), 3)}, {number(row['novelty'])}, "
            f"{number(row['in_target'])}")
