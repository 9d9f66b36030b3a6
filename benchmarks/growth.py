"""How time and memory of the stages grow with the number of images and with their size.

    python benchmarks/growth.py [--counts 100 1000 3000] [--sizes 32 64 128 256]

The project of memory.py, a narrow network and two solver steps, so that what is not the network
shows: with 100, 1,000 and 3,000 fit images of 32 x 32, and with 100 images of 32 to 256 pixels a
side; 100 images are drawn each time. Each stage is a process of its own. The exponent is that of
the seconds above the shortest run's, between the two largest points: 1 is a straight line.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import RESULTS, circumstances, write_result
from memory import Stage, make_project, run_stages

STAGES = ("invert", "fit", "sample", "denoise", "evaluate")
COUNT, SIZE, DRAWN = 100, 32, 100


def point(images: int, size: int) -> dict[str, Stage]:
    """Return what the stages take on a project of its own."""
    print(f"{images} images of {size} x {size}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        make_project(Path(name), images, DRAWN, size)
        return run_stages(Path(name), STAGES)


def exponents(along: Sequence[float], runs: Sequence[dict[str, Stage]]) -> dict[str, float | None]:
    """Return for each stage the slope of log seconds over log size; None where nothing grew."""
    found: dict[str, float | None] = {}
    for stage in runs[0]:
        first, *_, before, last = (run[stage].seconds for run in runs)
        grown = last - first > 1 and before > first  # a second is beyond the noise of a start
        found[stage] = (math.log((last - first) / (before - first))
                        / math.log(along[-1] / along[-2]) if grown else None)
    return found


def main() -> None:
    """Measure both series and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[COUNT, 1000, 3000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[SIZE, 64, 128, 256])
    parser.add_argument("--out", type=Path, default=RESULTS / "growth.json")
    options = parser.parse_args()
    if min(len(options.counts), len(options.sizes)) < 3:
        raise SystemExit("--counts and --sizes need three values or more, for an exponent")
    first = point(COUNT, SIZE)
    series = {}
    for name, values, made in (
            ("images", options.counts, lambda count: point(count, SIZE)),
            ("pixels", options.sizes, lambda size: point(COUNT, size))):
        runs = [first if value == (COUNT if name == "images" else SIZE) else made(value)
                for value in values]
        along = [value if name == "images" else value**2 for value in values]
        series[name] = {"along": along, "exponents": exponents(along, runs), "runs": [
            {stage: took.model_dump() for stage, took in run.items()} for run in runs]}
        print(name, series[name]["exponents"])
    write_result(options.out, {**circumstances("cpu"), "drawn": DRAWN, "series": series})


if __name__ == "__main__":
    main()
