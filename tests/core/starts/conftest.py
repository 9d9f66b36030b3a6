"""A closed-form world: images of one Gaussian law, a perfect network that knows another."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import denoise, invert
from unseen_core.laws.blends import fit_law
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.starts import StartContext

SHAPE = (3, 2, 2)
D, N, LEVEL = 12, 400, 500


@dataclass(frozen=True)
class World:
    """The target's images and their latents in a network whose own law is ``source``."""

    source: Gaussian
    target: Gaussian
    images: Tensor  # float64 (N, 3, 2, 2)
    grid: tuple[int, ...]
    model: GaussianEps
    latents: Tensor
    context: StartContext
    pixels: StartContext

    def denoised(self, x: Tensor) -> Tensor:
        """Clean images (n, D) of start states."""
        return denoise(self.model, x.double(), self.grid).flatten(1)

    @property
    def flat(self) -> Tensor:
        """The latents in rows, float64 (N, D)."""
        return self.latents.flatten(1)

    def fitted(self, kind: str) -> Gaussian:
        """The dense law of the latents."""
        return Gaussian.fit(self.flat, kind=kind)

    def streams(self, n: int) -> Streams:
        """Streams of n samples."""
        return Streams(7, "starts", [str(i) for i in range(n)])


def law(seed: int, mean: float, rank: int, remainder: float) -> Gaussian:
    """A law with ``rank`` strong directions."""
    draws = Streams(seed, "law", [str(i) for i in range(D)]).normal(rank + 1)
    return Gaussian(mean + 0.3 * draws[:, 0], 0.5 * draws[:, 1:], torch.tensor(remainder))


def context(
    schedule: Schedule, level: int, references: Tensor, images: Tensor, source: Gaussian
) -> StartContext:
    """What ``sample`` hands to samplers."""
    n, states = len(references), References.of(references)
    priors = {kind: fit_law(states, kind=kind) for kind in ("isotropic", "empirical")}
    order = Streams(0, "order", [str(i) for i in range(n)]).choose(n, n)
    return StartContext(schedule, level, states, priors,
                        Envelope.calibrate(StateJudge.of(references), order, coverage=0.95),
                        images=References.of(images), source=source)


@pytest.fixture(scope="session")
def world() -> World:
    """400 images of the target law at levels 0 and 500."""
    schedule = Schedule.linear()
    source, target = law(0, 0.1, 4, 0.05), law(1, -0.4, 3, 0.1)
    model, grid = GaussianEps(schedule, SHAPE, source), schedule.grid(60, LEVEL)
    images = target.sample(Streams(2, "images", [str(i) for i in range(N)])).reshape(N, *SHAPE)
    latents = invert(model, images, grid)
    both = (context(schedule, level, states, images, source)
            for level, states in ((LEVEL, latents), (0, images)))
    return World(source, target, images, grid, model, latents, *both)
