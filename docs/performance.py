"""Write docs/performance.md and its pictures from benchmarks/results.

    make bench                    # measures, then calls this
    python docs/performance.py    # the page alone
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from drawings import draw_calls, draw_growth

__all__ = ["main", "page"]

ROOT = Path(__file__).resolve().parent.parent
Found = Mapping[str, Any]


def page(results: Path) -> str:
    """Return the page, a section for each result that is there."""
    parts = ["# Performance\n\nWritten by `python docs/performance.py` from `benchmarks/results`, "
             "which `make bench` measures. A ratio says how many times as long the other way "
             "takes, in one run, on the same work; times are for orientation. What limits each, "
             "and what was tried: [benchmarks/NOTES.md](../benchmarks/NOTES.md). Precision of the "
             "results themselves: [accuracy.md](accuracy.md)."]
    for title, name, write in _SECTIONS:
        for file in sorted(results.glob(name)):
            found = json.loads(file.read_text("utf-8"))
            parts.append(f"## {title}\n\n{write(found)}\n\n*{_conditions(found, file)}*")
    return "\n\n".join(parts) + "\n"


def _conditions(found: Found, file: Path) -> str:
    """Return where a result was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (f"`benchmarks/results/{file.name}`: {found['device']}, {found['threads']} threads on "
            f"{found['cores']} cores, {versions}.")


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [[*head]]
    lines += [["---"] * len(lines[0])] + [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _seconds(value: float) -> str:
    """Return a time to three digits, in a unit that suits it."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)):
        if value >= size or unit == "ms":
            return f"{value / size:.3g} {unit}"
    raise AssertionError


def _run(found: Found) -> str:
    """Say where the time of the default run goes."""
    rows = [(stage, _seconds(took["seconds"]), f"{took['network'] / took['seconds']:.0%}")
            for stage, took in found["stages"].items()]
    outside = 1 - found["network"] / found["seconds"]
    return (f"`make repro` from nothing, environment in place: **{_seconds(found['seconds'])}**. "
            f"In {1 - outside:.0%} of it the network answers; {outside:.0%} are spent outside it "
            "(`benchmarks/run.py`). "
            "The last stage's time holds the record in MLflow.\n\n"
            + _table(["stage, all domains", "time", "of it in the network"], rows))


def _calls(found: Found) -> str:
    """Say how many calls reach the error of DDIM on every level, and point to the drawing."""
    rows = []
    for network, measured in found["networks"].items():
        for level in sorted({row["level"] for row in measured}):
            for direction in ("up", "down"):
                mine = [row for row in measured
                        if (row["level"], row["direction"]) == (level, direction)]
                mark = next(row["error"] for row in mine if row["way"] == "DDIM, every level")
                rows.append([network, level, direction, f"{mark:.4f}", *(
                    _reached(mine, mark, name) for name in ("unseen", "our grid", "UniPC"))])
    return ("Relative error of latents (up) and of images (down) over network calls, median of "
            f"{found['images']} images that no network has seen, reference by Heun "
            "(`benchmarks/solvers.py`). The fewest measured calls that come within 5 % of the "
            "error of DDIM on every level:\n\n"
            + _table(["network", "level", "", "DDIM, every level", "unseen",
                      "DPM-Solver++ on our grid", "UniPC"], rows)
            + "\n\n![Error over calls](calls.png)")


def _reached(rows: list[Found], mark: float, name: str) -> str:
    """Return the fewest calls of a way within 5 % of an error, else its best and that error."""
    mine = [row for row in rows if name in row["way"]]
    if not mine:
        return ""
    enough = [row["calls"] for row in mine if row["error"] <= 1.05 * mark]
    best = min(mine, key=lambda row: row["error"])
    return str(min(enough)) if enough else f"not by {best['calls']} ({best['error']:.4f})"


def _throughput(found: Found) -> str:
    """Say how fast the network is driven, by precision."""
    rows = [(f"{one['network']} ({one['parameters'] / 1e6:.1f} M, {one['size']} px, batch "
             f"{one['batch']})", row["way"], f"**{row['ratio']:.2f}**",
             _seconds(row["seconds_per_image_and_call"]), f"{row['share_of_peak']:.0%}",
             _seconds(3600 * row["workload_hours"]))
            for one in found["networks"] for row in one["rows"]]
    precision = "; ".join(
        f"{one['network']} {one['bf16_against_float32']['grey_levels']:.2f} grey levels of 256 and "
        f"{one['bf16_against_float32']['latent_error']:.4f} of the latent"
        for one in found["networks"])
    return ("Beside a plain diffusers loop in float32, at equal calls (`benchmarks/gpu.py`; the "
            "paper's network has random weights). The share of peak is that of a large matrix "
            "product in the same precision. The workload is projected: 1,000 images inverted and "
            "5,000 drawn in 80 calls each.\n\n"
            + _table(["network", "way", "times as fast", "an image and call", "share of peak",
                      "workload"], rows)
            + f"\n\n**Precision.** States are float64 whatever the network computes in. bf16 is "
              f"for denoising, whose images are kept in 8 bits; latents are inverted in float32. "
              f"What bf16 changes: {precision}.")


def _gaussian(found: Found) -> str:
    """Say what fits, draws and densities cost."""
    small, large = found["small"], found["large"]
    words = {"fit": "Ledoit-Wolf fit", "draw": f"{small['draws']} draws",
             "density": "log-density of 200"}
    rows = [(words[kind], name, _seconds(took["median"]),
             f"**{took['median'] / ways['unseen']['median']:.3g}**")
            for kind, ways in small["seconds"].items() for name, took in ways.items()
            if name != "unseen"]
    differs = ", ".join(f"{name} {value:.1e}" for name, value in small["difference"].items())
    took, pca = large["seconds"], large["scikit-learn PCA"]
    size = large["latent_bytes"]
    return (f"{found['references']:,} latents of 3 x 32 x 32 (`benchmarks/gaussian.py`); "
            f"differences: {differs}:\n\n"
            + _table(["work", "other way", "its time", "times ours"], rows)
            + f"\n\nAt {large['size']} x {large['size']} ({3 * large['size']**2:,} dimensions) "
              f"from a store on disk: fit {_seconds(took['fit'])}, {large['draws']:,} draws "
              f"{_seconds(took['draw'])}, log-density of {large['tested']} "
              f"{_seconds(took['density'])}; peak memory **{large['peak_bytes'] / size:.2f} "
              f"times** the latents' {size / 1e9:.2f} GB in float32. scikit-learn's PCA, the one "
              f"of its estimators that can run there: {_seconds(pca['seconds'])}, "
              f"{pca['peak_bytes'] / size:.1f} times.")


def _distances(found: Found) -> str:
    """Compare the distances with those of other libraries."""
    rows = [(row["distance"], f"{row['n']:,}", row["way"], f"**{row['ratio']:.3g}**",
             _seconds(row["seconds"]["median"]), f"{row['difference']:.1e}")
            for row in found["rows"] if row["way"] != "unseen"]
    return (f"Equal float64 features of {found['width']:,} numbers (`benchmarks/distances.py`):\n\n"
            + _table(["distance", "images a side", "library", "times ours", "its time",
                      "relative difference"], rows))


def _store(found: Found) -> str:
    """Compare the latent store with other formats."""
    ways = list(found["ways"]["write"])
    rows = [(kind, *(f"{took[way]['ratio']:.2f}" if way in took else "" for way in ways))
            for kind, took in found["ways"].items()]
    return (f"{found['latents']} latents of 3 x 256 x 256 in float32 "
            f"({found['bytes'] / 1e6:.0f} MB), times the fastest (`benchmarks/store.py`). Writes "
            "end with fsync. Only the store compares checksums of all it reads, a part's when the "
            f"part is first opened; `gather` is {found['gathered']} rows in random order:\n\n"
            + _table(["", *ways], rows))


def _growth(found: Found) -> str:
    """Say how the stages grow, and point to the drawing."""
    series = found["series"]
    rows = []
    for stage in series["images"]["exponents"]:
        cells = []
        for name in ("images", "pixels"):
            exponent, last = series[name]["exponents"][stage], series[name]["runs"][-1][stage]
            cells += [_seconds(last["seconds"]), f"{last['peak_bytes'] / 1e9:.2f} GB",
                      "" if exponent is None else f"{exponent:.2f}"]
        rows.append((stage, *cells))
    return ("A narrow network and two solver steps, each stage a process of its own "
            "(`benchmarks/growth.py`); 100 images are drawn. The exponent is that of the time "
            "above the smallest run's, between the two largest points: 1 is a straight line; it is "
            "left out where less than a second was added.\n\n"
            + _table(["stage", f"{series['images']['along'][-1]:,} images of 32 px", "peak",
                      "exponent over images",
                      f"100 images of {series['pixels']['along'][-1]**0.5:.0f} px", "peak",
                      "exponent over pixels"], rows)
            + "\n\n![Time and memory over images and pixels](growth.png)")


def _memory(found: Found) -> str:
    """Say what the stages need at the paper's size."""
    rows = [(stage, _seconds(took["seconds"]), f"{took['peak_bytes'] / 1e9:.2f} GB")
            for stage, took in found["stages"].items()]
    return (f"{found['images']:,} images of 256 x 256, {found['count']} drawn by each of "
            f"{found['samplers']} samplers, a narrow network, two solver steps "
            "(`benchmarks/memory.py`). What a wide network adds depends on the batch.\n\n"
            + _table(["stage", "time", "peak memory"], rows))


def _shape(found: Found) -> str:
    """Say how long the shape of the work at the paper's size takes."""
    total = sum(took["seconds"] for took in found["stages"].values())
    return (f"`python benchmarks/memory.py --images 16 --count 16` takes a narrow network at 256 x "
            f"256 and 16 images through every stage in **{_seconds(total)}**: a way to try the "
            f"shape of the work before renting a GPU. Peak memory {found['peak_bytes'] / 1e9:.1f} "
            "GB.")


def _geometry(found: Found) -> str:
    """Compare candidates in coordinates with those in full dimension."""
    rows = [(kind, f"**{row['ratio']:.0f}**", f"{row['naive_ms']:.3g} ms",
             f"{row['coordinates_ms']:.3g} ms", f"{row['lifting_ms']:.3g} ms")
            for kind, row in found["priors"].items()]
    return (f"A candidate of geometric sampling, drawn and tested against {found['references']} "
            f"references of {found['dimension']:,} dimensions, in coordinates beside the "
            "vectorised test in full dimension; only accepted candidates are lifted "
            "(`benchmarks/sampling.py`).\n\n"
            + _table(["prior", "times as fast", "in full dimension", "in coordinates",
                      "lifting one"], rows))


def _startup(found: Found) -> str:
    """Say what starting a command costs."""
    rows = [(name, f"**{cost['ratio']:.2f}**", _seconds(cost["seconds"]))
            for name, cost in found["costs"].items()]
    return ("Beside importing torch (`benchmarks/startup.py`):\n\n"
            + _table(["command", "times as long", "time"], rows))


_SECTIONS: tuple[tuple[str, str, Callable[[Found], str]], ...] = (
    ("The default run", "run.json", _run),
    ("Calls to accuracy", "solvers.json", _calls),
    ("Throughput", "throughput-*.json", _throughput),
    ("Candidates", "sampling.json", _geometry),
    ("Gaussians", "gaussian.json", _gaussian),
    ("Distances", "distances.json", _distances),
    ("The latent store", "store.json", _store),
    ("Growth", "growth.json", _growth),
    ("Memory at the paper's size", "memory.json", _memory),
    ("The paper's size, in minutes", "shape.json", _shape),
    ("Starting", "startup.json", _startup),
)
_PICTURES = {"solvers.json": ("calls.png", draw_calls), "growth.json": ("growth.png", draw_growth)}


def main() -> None:
    """Write the page and draw the pictures."""
    results = ROOT / "benchmarks/results"
    (ROOT / "docs/performance.md").write_text(page(results), "utf-8")
    for name, (picture, draw) in _PICTURES.items():
        if (results / name).is_file():
            draw(json.loads((results / name).read_text("utf-8")), ROOT / "docs" / picture)


if __name__ == "__main__":
    main()
