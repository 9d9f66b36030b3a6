"""Where the time of the default run goes: each stage, and how much of it the network answers.

    python benchmarks/run.py

The last commit is cloned into a temporary folder and run there from nothing, as `make repro` does
with the environment in place. In the clone a few lines at the end of the denoiser's file log when
each network call begins and ends; a stage's share of the network is the time in which at least one
call was under way. The clone's results are compared with the committed ones: ``changed`` lists the
tracked files that differ, which should be dvc.lock alone (the denoiser's file is not the same).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import time

from common import RESULTS, circumstances, write_result

ROOT = Path(__file__).resolve().parents[1]
LOGGED = '''

def _logged(answer=UNetEps.__call__):
    def call(self, x, level):
        import os
        import time
        began = time.time()
        noise = answer(self, x, level)
        with open(os.environ["UNSEEN_CALLS"], "a") as log:
            print(began, time.time(), file=log)
        return noise
    return call


UNetEps.__call__ = _logged()
'''


def run(clone: Path, log: Path) -> list[tuple[float, str]]:
    """Run the clone's pipeline; return when it printed each line, with the end's empty one."""
    file = clone / "unseen_core/diffusion/denoiser.py"
    file.write_text(file.read_text("utf-8") + LOGGED, "utf-8")
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("DVC_", "PREFECT_", "MLFLOW_"))}
    bin_folder = str(Path(sys.executable).parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "run"], cwd=clone, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env={**kept, "PYTHONPATH": str(clone), "UNSEEN_CALLS": str(log),
                                       "PATH": f"{bin_folder}:{kept['PATH']}"})
    lines = [(time(), line.rstrip()) for line in process.stdout or ()]
    if process.wait():
        raise SystemExit("\n".join(line for _, line in lines[-20:]))
    return [*lines, (time(), "")]


def answered(log: Path) -> list[tuple[float, float]]:
    """Return when at least one call was under way, as intervals in order."""
    merged: list[tuple[float, float]] = []
    for began, ended in sorted(tuple(map(float, line.split()))  # type: ignore[misc]
                               for line in log.read_text().splitlines()):
        if merged and began <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], ended))
        else:
            merged.append((began, ended))
    return merged


def by_stage(
    lines: list[tuple[float, str]], busy: list[tuple[float, float]]
) -> dict[str, dict[str, float]]:
    """Return seconds of each stage, all its domains together, and those of the network in them."""
    starts = [(at, found[1].partition("@")[0]) for at, line in lines
              if (found := re.match(r"Running stage '(.*)':?", line))]
    ends = [at for at, _ in starts[1:]] + [lines[-1][0]]
    total, network = Counter[str](), Counter[str]()
    for (began, stage), ended in zip(starts, ends, strict=True):
        total[stage] += ended - began
        network[stage] += sum(max(0.0, min(ended, b) - max(began, a)) for a, b in busy)
    return {stage: {"seconds": seconds, "network": network[stage]}
            for stage, seconds in total.most_common()}


def main() -> None:
    """Run once and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "run.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        clone, log = Path(name) / "unseen", Path(name) / "calls"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        began = time()
        lines = run(clone, log)
        busy = answered(log)
        changed = subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, text=True,
                                 capture_output=True).stdout.split()[1::2]
    wall, network = lines[-1][0] - began, sum(b - a for a, b in busy)
    stages = by_stage(lines, busy)
    for stage, took in stages.items():
        print(f"{stage:14} {took['seconds']:7.1f} s, network {took['network']:7.1f}")
    print(f"{wall:.0f} s, {1 - network / wall:.0%} outside the network; changed: {changed}")
    write_result(options.out, {**circumstances("cpu"), "seconds": wall, "network": network,
                               "changed": changed, "stages": stages})


if __name__ == "__main__":
    main()
