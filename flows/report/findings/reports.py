"""What the stages of the related works left behind: a JSON report and tables for each model."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from flows.loading.reports import MODEL_STAGES, stage_folder
from flows.loading.seconds import read_seconds
from flows.settings.paths import PATHS
from unseen_core.store import read_json

__all__ = ["Report", "load_reports", "load_training"]


@dataclass(frozen=True, eq=False)
class Report:
    """What one stage says of one model.

    Attributes:
        content: The JSON file.
        tables: The CSV files by name.
    """

    content: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def load_reports(models: Iterable[str]) -> dict[str, dict[str, Report]]:
    """Return, by stage and model, the reports that there are."""
    found: dict[str, dict[str, Report]] = {stage: {} for stage in MODEL_STAGES}
    for model in models:
        for stage in MODEL_STAGES:
            file = stage_folder(PATHS.root, stage, model) / f"{stage}.json"
            if file.is_file():
                tables = {path.stem: pd.read_csv(path)
                          for path in sorted(file.parent.glob("*.csv"))}
                found[stage][model] = Report(read_json(file), tables)
    return found


def load_training() -> pd.DataFrame | None:
    """Return the comparison's cells of fine-tuned networks, None where there are none.

    The column ``seconds`` holds what a training took, NaN for what another machine trained.
    """
    file = PATHS.report / "training/training.csv"
    if not file.is_file():
        return None
    table = pd.read_csv(file)
    took = [read_seconds(PATHS.root, row.model, row.domain, "finetune").get(row.network, math.nan)
            for row in table.itertuples()]
    return table.assign(seconds=took) if len(table) else None
