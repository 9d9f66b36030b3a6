"""What one candidate of geometric sampling costs: in full dimension, and in coordinates.

    python benchmarks/sampling.py [--size 256] [--references 256]

Prior draws are judged by synthetic references, a Gaussian domain with as many dimensions as an
image. In full dimension (naive) a batch is drawn, multiplied with all references in one matrix
product, in float32, and its statistics follow from the inner products. In coordinates
(``unseen_core.laws.span``, float64) the same statistics come from short vectors, one random stream
per row. Making the coordinates is a one-time cost per level and prior; lifting is a cost of the
few candidates that are kept. The acceptance of both ways is recorded: they draw the same law.
Times are CPU times of one thread, so that other work on the machine does not count.
"""

import argparse
import resource
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import torch
from common import RESULTS, circumstances, write_result
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.laws.blends import BlendGaussian
from unseen_core.laws.gaussian import Gaussian, Kind
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.span import Span

__all__ = ["compare"]

KINDS: tuple[Kind, ...] = ("isotropic", "shrunk")
BATCH = {"naive": 64, "coordinates": 512}
REPEATS = 7


@dataclass(frozen=True)
class Cost:
    """CPU seconds per candidate, median over repeats, and the share accepted."""

    seconds: float
    acceptance: float


def domain(count: int, dimension: int) -> Tensor:
    """Return references of a domain with a mean and 20 strong directions, float32 (N, d)."""
    generator = torch.Generator().manual_seed(0)
    strong = torch.randn(20, dimension, generator=generator) / 8
    x = torch.randn(count, dimension, generator=generator)
    return x.addmm_(torch.randn(count, 20, generator=generator), strong).add_(0.2)


def cost(candidates: Callable[[int], Tensor], envelope: Envelope, batch: int) -> Cost:
    """Time ``candidates``, which returns the statistics of a batch of fresh ones."""
    candidates(0)  # warm
    seconds, inside = [], []
    for repeat in range(REPEATS):
        began = process_time()
        inside.append(envelope.accept(candidates(repeat + 1)))
        seconds.append((process_time() - began) / batch)
    return Cost(statistics.median(seconds), torch.cat(inside).double().mean().item())


def compare(x: Tensor, judge: StateJudge, envelope: Envelope, kind: Kind) -> dict[str, object]:
    """Return the cost of draws of one kind of prior, both ways."""
    law, total = Gaussian.fit(x, kind=kind), len(x)
    generator = torch.Generator().manual_seed(1)
    # One scale of the remainder and float32 throughout: the fastest that the naive way can be.
    mean, factor, scale = law.mean.float(), law.factor.T.float(), law.diagonal.sqrt().item()

    def naive(repeat: int) -> Tensor:
        batch = BATCH["naive"]
        z = torch.randn(batch, x.shape[1], generator=generator).mul_(scale).add_(mean)
        if len(factor):
            z.addmm_(torch.randn(batch, len(factor), generator=generator), factor)
        order = torch.stack([torch.randperm(total, generator=generator) for _ in range(batch)])
        square = torch.linalg.vecdot(z, z).double()
        return judge.from_products((z @ x.T).double(), square, order)

    full = cost(naive, envelope, BATCH["naive"])
    began = process_time()
    span = Span.of(judge.references, BlendGaussian.fit(judge.references, kind=kind))
    small = StateJudge.of(span.references, neighbours=judge.neighbours)
    making = process_time() - began

    def coordinates(repeat: int) -> Tensor:
        streams = Streams(2, f"{kind} {repeat}", [str(i) for i in range(BATCH["coordinates"])])
        states = span.draw(streams)
        return small.statistics(states, streams.choose(total, total))

    short = cost(coordinates, envelope, BATCH["coordinates"])
    streams = Streams(3, kind, [str(i) for i in range(16)])
    states = span.draw(streams)
    began = process_time()
    span.lift(states, streams)
    lifting = (process_time() - began) / len(states)
    return {
        "naive_ms": 1e3 * full.seconds, "coordinates_ms": 1e3 * short.seconds,
        "ratio": full.seconds / short.seconds,
        "acceptance": {"naive": full.acceptance, "coordinates": short.acceptance},
        "making_s": making, "lifting_ms": 1e3 * lifting, "rank": span.basis.shape[1],
    }


def main() -> None:
    """Measure both kinds of prior and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="image size in pixels")
    parser.add_argument("--references", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS / "sampling.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    x = domain(given.references, 3 * given.size**2)
    judge = StateJudge.of(x)
    order = Streams(0, "order", [str(i) for i in range(len(x))]).choose(len(x), len(x))
    envelope = Envelope.calibrate(judge, order)
    found = {}
    for kind in KINDS:
        found[kind] = compare(x, judge, envelope, kind)
        print(kind, {key: value if isinstance(value, dict) else round(value, 4)
                     for key, value in found[kind].items()})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.1f} GiB")
    write_result(given.out, {
        **circumstances("cpu"), "dimension": x.shape[1], "references": len(x),
        "batch": BATCH, "repeats": REPEATS, "peak_memory_gib": peak, "priors": found})


if __name__ == "__main__":
    main()
