"""The rest of the findings: how to make them again, all cells, and the pictures."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from flows.report.findings.evidence import Evidence, place_of
from flows.report.findings.text import DASH, extent, number, span, table
from flows.report.findings.verdicts import ABSENT
from flows.settings.cells import REAL
from flows.settings.paths import PATHS
from unseen_core.basics.images import png_bytes
from unseen_core.store import write_bytes

__all__ = ["copy_pictures", "regenerate", "tried"]

_LARGEST = 1_000_000  # bytes of a picture that a repository should carry
_MOST = 14  # pictures


def regenerate(evidence: Evidence) -> str:
    """Return the command and the parameters of the run."""
    params = evidence.params
    held_out = {domain: f"{section.fit} / {section.held_out}"
                for domain in dict.fromkeys(evidence.table["domain"])
                if (section := params.domains.get(domain)) is not None}
    made = evidence.table[evidence.table["sampler"] != REAL]["n"]
    counts = extent(made, 0) if len(made) else DASH
    rows = [
        ["levels", ", ".join(map(str, params.levels))],
        ["solver", f"{params.solver.method}, {params.solver.spacing} grid, "
                   f"{params.solver.steps} network calls to the highest level"],
        ["generated images a cell", counts],
        ["judge", f"{next(iter(params.evaluate.extractors))} ({evidence.kernel}; distances also by "
                  f"{', '.join([*params.evaluate.extractors][1:]) or 'no other'}), "
                  "to the half of the held-out images that no cell was picked by, "
                  f"{params.evaluate.draws} bootstrap draws"],
        ["bounds of `compare`", f"in target {params.compare.in_target}, novelty "
                                f"{params.compare.novelty}"],
        ["seed", str(params.seed)],
        *([f"fit / held-out images asked for, {domain}", text]
          for domain, text in held_out.items()),
    ]
    return ("## How to regenerate\n\n```\npython -m flows run\npython -m flows findings\n```\n\n"
            "The first brings the pipeline of `params.yaml` up to date, the second writes these "
            "pages from `data/report`, `data/analysis` and the folders of the stages per model; no "
            "figure is typed by hand.\n\n"
            + table(["parameter", "value"], rows) + "\n")


def tried(evidence: Evidence, model: str) -> str:
    """Return a page of every cell of a model's domains, closest first."""
    parts = [f"# Everything that was tried: {model}"]
    for case, rows in evidence.cases.items():
        if case.partition("/")[0] != model:
            continue
        lines = []
        for _, row in rows.sort_values(evidence.shown).iterrows():
            haunted = evidence.measured(row, "ghosts")
            name = "fit images (the floor)" if row["sampler"] == REAL else place_of(row)
            lines.append([name, span(evidence.distance(row), 3), number(row["in_target"]),
                          number(row["novelty"]), number(row["copies"]),
                          span(haunted) if haunted else ABSENT])
        parts.append(f"## {case}: {len(lines)} cells\n\n" + table(
            ["cell", f"{evidence.shown} (95 %)", "in target", "novelty", "copies", "ghosts"],
            lines))
    return "\n\n".join([*parts, "[All claims](../findings.md)"]) + "\n"


def copy_pictures(evidence: Evidence, folder: Path) -> dict[str, tuple[str, str]]:
    """Copy the pictures that there are into an empty folder.

    At most ``_MOST``, each below 1 MB; a larger one is written in 256 colours, and left out if that
    is too large as well. Of pictures that every domain or model has, the first one is taken.

    Returns:
        Name to the file in the folder, and the case that it is of.
    """
    shutil.rmtree(folder, ignore_errors=True)
    found: dict[str, tuple[str, str]] = {}
    for name, files in _wanted(evidence):
        case, file = next(((case, file) for case, file in files.items() if file.is_file()),
                          ("", None))
        if file is None or len(found) == _MOST:
            continue
        data = file.read_bytes()
        if len(data) >= _LARGEST:
            with Image.open(file) as picture:
                data = png_bytes(picture.convert("RGB").quantize(256))
        if len(data) < _LARGEST:
            target = folder / f"{name.replace('/', '-')}.png"
            write_bytes(target, data)
            found[name] = (target.name, case)
    return found


def _wanted(evidence: Evidence) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield the names of pictures and, per case, where each may lie, the most telling first."""
    cases = {case: case.split("/") for case in evidence.cases}
    yield "front", {"": PATHS.report / "front.png"}
    yield "pairs", {case: PATHS.metrics(*pair, "png") for case, pair in cases.items()}
    yield "selection", {case: PATHS.selection(*pair, "png") for case, pair in cases.items()}
    yield "walks", {case: PATHS.analysis(*pair) / "walks.png" for case, pair in cases.items()}
    for model in evidence.models:
        yield f"analysis/{model}", {case: PATHS.analysis(*pair) / "analysis.png"
                                    for case, pair in cases.items() if pair[0] == model}
    models = evidence.models
    yield "trajectory", {model: PATHS.trajectory(model) / "trajectory.png" for model in models}
    yield "strip", {model: PATHS.trajectory(model) / "strip.png" for model in models}
    yield "steer", {model: PATHS.steer(model) / "steer.png" for model in models}
    yield "applications", {model: PATHS.applications(model) / "applications.png"
                           for model in models}
    yield "training", {"": PATHS.report / "training/training.png"}
