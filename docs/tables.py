"""Bring the last run into the documents: the tables of README.md and docs/results.md, two pictures.

A table is found by its first cells, and everything around it stays. Figures come from
data/report and from what benchmarks/claims.py and guidance.py wrote, which run before.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

__all__ = ["main", "rewrite"]

ROOT = Path(__file__).resolve().parent.parent
_ROWS = {  # of the README: what it says of a row of summary.md
    "noise": "plain noise: falls back to the seen domain",
    "paper-v2": "the paper's released code, refitted",
    "prior-empirical": "a Gaussian fitted to the latents",
    "**": "the best sampler of the frozen model",
    ", no model": "no model: the closest way about as new",
}


def rewrite(root: Path = ROOT) -> dict[Path, str]:
    """Return README.md and docs/results.md of a folder with the tables of its last run."""
    claims = root / "benchmarks/results/claims.json"
    comparison, choice = (root / "data/report/summary.md").read_text("utf-8").split("\n\n")[:2]
    table = pd.read_csv(root / "data/report/compare.csv")
    paired = _paired(json.loads(claims.read_text("utf-8"))["pairs"], table)
    guided = json.loads((root / "benchmarks/results/guidance.json").read_text("utf-8"))["rows"]
    readme, results = root / "README.md", root / "docs/results.md"
    return {
        readme: _replaced(readme, _short(comparison)),
        results: _replaced(results, comparison, choice, paired, _guided(guided)),
    }


def _replaced(page: Path, *tables: str) -> str:
    """Return a page with each table in the place of the one that begins with the same cells."""
    text = page.read_text("utf-8")
    for table in tables:
        begin = "|".join(table.partition("\n")[0].split("|")[:3])
        pattern = rf"^{re.escape(begin)}.*\n(?:\|.*\n?)*"
        text, found = re.subn(pattern, table.strip() + "\n", text, flags=re.M)
        if found != 1:
            raise SystemExit(f"{page}: {found} tables begin with {begin!r}; one was expected")
    return text


def _short(comparison: str) -> str:
    """Return five rows of the comparison, a column for each domain."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in comparison.strip().splitlines()[2:]]
    domains = list(dict.fromkeys(domain for domain, *_ in cells))
    found = {label: {domain: distance for domain, sampler, _, distance, *_ in cells
                     if (sampler == key if key in ("noise", "paper-v2", "prior-empirical")
                         else key in sampler)}
             for key, label in _ROWS.items()}
    return _lines(["start state", *domains],
                  [[label, *(row[domain] for domain in domains)] for label, row in found.items()])


def _paired(pairs: Mapping[str, dict], table: pd.DataFrame) -> str:
    """Return the table of paired differences between the best cells and their model-free peers."""
    kernel = next(name for name in table if name.startswith("kd_") and name.endswith("_second"))
    rows = []
    for key, pair in pairs.items():
        model, _, domain = key.partition("/")
        of = table[(table["model"] == model) & (table["domain"] == domain)]

        def cell(name: str, of: pd.DataFrame = of) -> tuple[str, float]:
            level, _, sampler = name.removeprefix("L").partition("-")
            row = of[(of["level"] == int(level)) & (of["sampler"] == sampler)].iloc[0]
            place = f"{sampler}@{int(level)}" if int(level) else sampler
            distance = _interval(*(row[f"{kernel}{end}"] for end in ("", "_low", "_high")))
            return f"{place}: {distance}", row["novelty"]

        best, new = cell(pair["best"])
        peers = {name: more for name, more in pair["peers"].items() if name.startswith("L0000-")}
        for place, (name, more) in enumerate(peers.items()):
            text, novelty = cell(name)
            rows.append([domain, *([best, f"{new:.2f}"] if place == 0 else ["", ""]),
                         f"as new, {text}" if len(peers) > 1 and place == 0 else text,
                         f"{novelty:.2f}",
                         _interval(more["difference"], more["low"], more["high"]),
                         f"{more['low_of_all']:.3f} to {more['high_of_all']:.3f}"])
    return _lines(["domain", "frozen cell", "novelty", "without a network", "novelty",
                   "paired difference", "all at once"], rows)


def _guided(rows: list[dict]) -> str:
    """Return the table of what guides best: distance, novelty and copies, a column a domain."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row["blend"], row["guided by"]), []).append(
            f"{row['distance']:.2f}, {row['novelty']:.2f}, {row['copies']:.2f}")
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    return _lines(["blend of", "guided by", *domains],
                  [[*names, *cells] for names, cells in found.items()])


def _interval(value: float, low: float, high: float) -> str:
    """Return a figure with its 95 % interval."""
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _lines(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    first, *rest = ("|" + "".join(f" {cell} |" if cell else " |" for cell in row)
                    for row in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *rest])


def main() -> None:
    """Write both pages and copy the pictures."""
    for page, text in rewrite().items():
        page.write_text(text, "utf-8")
    for name in ("overview.png", "front.png"):
        shutil.copyfile(ROOT / "data/report" / name, ROOT / "docs" / name)


if __name__ == "__main__":
    main()
