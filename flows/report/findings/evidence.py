"""What a finished run left behind, as the sections of the findings read it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from flows.report.choice import qualified
from flows.report.findings.reports import Report, load_reports, load_training
from flows.settings.cells import REAL
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from flows.settings.plan import Plan
from unseen_core.errors import UnseenError
from unseen_core.judging.extractors import metric_names, reported
from unseen_core.judging.metrics import Interval
from unseen_core.starts import StartSampler
from unseen_core.store import read_json

__all__ = ["NOT_HERE", "Analysis", "Evidence", "levels_of", "load_evidence", "place_of"]

Analysis = Mapping[str, Any]
NOT_HERE = "not measured in this run"


def case_of(model: str, domain: str) -> str:
    """Return the name of a model with a domain: ``shapes32/digits``."""
    return f"{model}/{domain}"


def place_of(row: pd.Series) -> str:
    """Return the name of a cell: ``geometric@500``, or the sampler alone without a level."""
    return f"{row['sampler']}@{int(row['level'])}" if row["level"] else str(row["sampler"])


@dataclass(frozen=True, eq=False)
class Evidence:
    """The artifacts of a run.

    Attributes:
        params: The parameters.
        table: data/report/compare.csv.
        selection: data/report/selection.csv, or None.
        analyses: Case to its analysis.json, where there is one.
        pictures: Name to the path of a picture, relative to the page, and the case it shows.
        reports: Stage to model to what the stages of the related works found.
        training: data/report/training/training.csv, or None without fine-tuned networks.
    """

    params: Params
    table: pd.DataFrame
    selection: pd.DataFrame | None
    analyses: Mapping[str, Analysis]
    pictures: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    reports: Mapping[str, Mapping[str, Report]] = field(default_factory=dict)
    training: pd.DataFrame | None = None

    @cached_property
    def kernel(self) -> str:
        """Name of the kernel distance under the first extractor."""
        return metric_names(next(iter(self.params.evaluate.extractors)))[0]

    @cached_property
    def shown(self) -> str:
        """Name of what `distance` returns."""
        return reported(self.kernel)[0]

    @cached_property
    def built(self) -> dict[str, StartSampler]:
        """Every sampler of the parameters."""
        return Plan(self.params.samplers, ()).built

    @cached_property
    def cases(self) -> dict[str, pd.DataFrame]:
        """Case to its rows of the table, in the table's order."""
        groups = self.table.groupby(["model", "domain"], sort=False)
        return {case_of(model, domain): rows for (model, domain), rows in groups}

    @property
    def models(self) -> list[str]:
        """The models of the table."""
        return list(dict.fromkeys(self.table["model"]))

    def in_space(self, rows: pd.DataFrame, space: str) -> pd.DataFrame:
        """Return the rows of samplers in ``latents`` or ``pixels`` that make new images.

        Those of the frozen network alone, as in ``compare``.
        """
        names = [name for name, section in self.params.samplers.items() if section.space == space
                 and section.network is None and not self.built[name].control]
        return rows[rows["sampler"].isin(names)]

    def qualified(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that keep to the bounds of ``compare``."""
        return qualified(rows, self.params)

    def nearest(self, rows: pd.DataFrame) -> pd.Series | None:
        """Return the row nearest to one half of the held-out images, or None of no rows."""
        return rows.loc[rows[f"{self.kernel}_first"].idxmin()] if len(rows) else None

    def best(self, case: str) -> pd.Series | None:
        """Return the closest latent cell that qualifies."""
        return self.nearest(self.qualified(self.in_space(self.cases[case], "latents")))

    def floor(self, case: str) -> pd.Series | None:
        """Return the row of the fit images themselves."""
        rows = self.cases[case]
        return self.nearest(rows[rows["sampler"] == REAL])

    def distance(self, row: pd.Series) -> Interval:
        """Return a row's kernel distance to the other half, which no choice has seen."""
        return Interval(*(float(row[name]) for name in reported(self.kernel)))

    def measured(self, row: pd.Series, name: str) -> Interval | None:
        """Return a figure with its interval; None where the table has no such column or value."""
        names = [name, f"{name}_low", f"{name}_high"]
        if not set(names) <= set(row.index) or row[names].isna().any():
            return None
        return Interval(*(float(row[key]) for key in names))

    def analysed(self, *keys: str) -> tuple[dict[str, Analysis], list[tuple[str, str]]]:
        """Return the analyses that have these parts, not empty, and why the other cases do not."""
        found: dict[str, Analysis] = {}
        missing = []
        for case in self.cases:
            analysis = self.analyses.get(case)
            if analysis is None:
                missing.append((case, f"{NOT_HERE}; `python -m flows run analyze` does it"))
            elif not analysis["levels"]:
                missing.append((case, f"{NOT_HERE}, as {analysis['images']} images are too few; "
                                "raise `fit` in params.yaml, then `python -m flows run analyze`"))
            elif not all(analysis.get(key) for key in keys):
                missing.append((case, f"{NOT_HERE}; `python -m flows run analyze` adds "
                                f"{' and '.join(keys)} to the analysis"))
            else:
                found[case] = analysis
        return found, missing

    def reported(self, stage: str, *keys: str) -> tuple[dict[str, Report], list[tuple[str, str]]]:
        """Return the models' reports of a stage that have these parts, and why others do not."""
        found: dict[str, Report] = {}
        missing = []
        for model in self.models:
            report = self.reports.get(stage, {}).get(model)
            if report is None:
                missing.append((model, f"{NOT_HERE}; `python -m flows run {stage}` does it"))
            elif not all(report.content.get(key) for key in keys):
                missing.append((model, f"{NOT_HERE}, as {stage}.json has no {' and '.join(keys)}; "
                                "with more images of the seen domain, `python -m flows run "
                                f"{stage}` adds them"))
            else:
                found[model] = report
        return found, missing

    def picture(self, name: str, text: str) -> str:
        """Return a picture with its caption, or nothing where there is none."""
        if name not in self.pictures:
            return ""
        file, case = self.pictures[name]
        caption = f"{text}, {case}" if case else text
        return f"\n\n![{caption}]({file})\n\n*{caption}.*"


def levels_of(analysis: Analysis) -> Iterator[tuple[int, Analysis]]:
    """Yield the levels of an analysis with their tables, lowest first."""
    for level in sorted(analysis["levels"], key=int):
        yield int(level), analysis["levels"][level]


def load_evidence() -> Evidence:
    """Read what a run left in the working directory.

    Raises:
        UnseenError: If there is no report, or it was made with other extractors.
    """
    params, file = load_params(), PATHS.report / "compare.csv"
    if not file.is_file():
        raise UnseenError(f"{file}: no such file; run the pipeline first, `python -m flows run`")
    table = pd.read_csv(file)
    found = Evidence(params, table, None, {})
    if found.kernel not in table:
        raise UnseenError(f"{file}: has no {found.kernel}, which params.yaml asks for; run "
                          "`python -m flows run` again")
    chosen = PATHS.report / "selection.csv"
    files = {case: PATHS.analysis(*case.split("/")) / "analysis.json" for case in found.cases}
    return Evidence(params, table, pd.read_csv(chosen) if chosen.is_file() else None,
                    {case: read_json(path) for case, path in files.items() if path.is_file()},
                    reports=load_reports(found.models), training=load_training())
