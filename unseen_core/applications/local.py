"""Local samples: images noised part of the way, and denoised by a frozen network."""

from collections.abc import Sequence

import torch
from scipy.stats import t as student
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule, Spacing
from unseen_core.diffusion.transport import Method, ancestral, denoise
from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import Codec, EpsModel, Level

__all__ = ["boomerang", "expected_move", "grid_through", "level_of", "mean_interval"]


def level_of(fraction: float, schedule: Schedule) -> Level:
    """Return the level that lies a fraction of the way from clean images to noise.

    Args:
        fraction: p = k / T, in [0, 1].
        schedule: Gives T.

    Raises:
        UnseenError: If the fraction is out of range.
    """
    if not 0 <= fraction <= 1:
        raise UnseenError(f"fraction {fraction}: use a number between 0 (the image itself) and 1 "
                          "(a sample that has nothing of it)")
    return round(fraction * schedule.top)


def grid_through(
    schedule: Schedule, levels: Sequence[Level], *, steps: int, spacing: Spacing
) -> tuple[Level, ...]:
    """Return one grid from clean to noise that has every one of some levels as a node.

    Noising at a level that is not a node, and denoising from the node below, gives the network a
    wrong amount of noise.

    Args:
        schedule: Gives T, where the grid ends.
        levels: Of 0..T; in any order.
        steps: Network calls from T down to 0.
        spacing: As in ``Schedule.grid``.

    Raises:
        UnseenError: If a level is out of range, or the steps are too few for so many levels.
    """
    inner = sorted({level for level in levels if level not in (0, schedule.top)})
    return schedule.grid(steps, schedule.top, spacing=spacing, through=inner)


def boomerang(
    network: EpsModel,
    codec: Codec,
    images: Tensor,
    level: Level,
    grid: Sequence[Level],
    *,
    eta: float,
    method: Method,
    streams: Streams,
    batch: int,
    passes: int = 1,
) -> Tensor:
    """Return local samples around images (Luzi et al. 2022, arXiv 2210.12100, algorithm 1).

    The states x of the images are noised to a x + s noise and denoised again: with fresh noise
    for ``eta`` > 0 (1 is the published, ancestral sampler), else along the deterministic
    trajectory. A further pass begins where the one before ended, with noise of its own.

    Args:
        network: The frozen network.
        codec: Between the images and its states.
        images: (n, 3, H, W) in [-1, 1].
        level: Where they are noised to; 0 returns the images as they are.
        grid: Increasing levels from 0, ``level`` among them; see ``grid_through``.
        eta: Share of fresh noise on the way down, 0..1.
        method: The solver, for ``eta`` = 0.
        streams: One per image; advanced by every pass.
        batch: Images at a time.
        passes: How often it is done, >= 1.

    Returns:
        Images (n, 3, H, W), dtype of ``images``, on their device; not clipped.

    Raises:
        UnseenError: If the level is not a node of the grid, or a number is out of range.
    """
    if passes < 1 or batch < 1 or len(streams) != len(images):
        raise UnseenError(f"local samples: {passes} passes in batches of {batch}, {len(streams)} "
                          f"streams for {len(images)} images; use at least 1, and a stream each")
    if level == 0:
        return images
    if level not in grid:
        raise UnseenError(f"local samples: level {level} is not on the grid; use grid_through")
    down = tuple(grid)[: tuple(grid).index(level) + 1]
    a, s = network.schedule.a(level).item(), network.schedule.s(level).item()

    def once(x: Tensor, rows: Streams) -> Tensor:
        noised = (a * x.double() + s * rows.normal(*x.shape[1:]).to(x.device)).to(x.dtype)
        if eta > 0:
            return ancestral(network, noised, down, eta=eta, streams=rows)
        return denoise(network, noised, down, method=method)

    done = []
    for i in range(0, len(images), batch):
        x = codec.encode(images[i : i + batch])
        for _ in range(passes):
            x = once(x, streams[i : i + batch])
        done.append(codec.decode(x).to(images))
    return torch.cat(done)


def expected_move(
    law: Gaussian, images: Tensor, schedule: Schedule, level: Level, eta: float
) -> Tensor:
    """Return how far local samples lie from their images if the network has learnt a Gaussian law.

    Along a direction of variance lambda, with kappa = a^2 lambda / (a^2 lambda + s^2) and a fine
    grid, the share kappa^((1 + eta^2) / 2) of an image's deviation from the mean is kept, and
    variance lambda (1 - kappa^(1 + eta^2)) is drawn anew.

    Args:
        law: Of the images that the network has learnt, over flattened images in [-1, 1], with
            the same remainder everywhere.
        images: (n, ...) in [-1, 1].
        schedule: Of the network.
        level: 0..T.
        eta: Share of fresh noise, 0..1.

    Returns:
        Expected squared difference per number, shape (n,), float64.

    Raises:
        UnseenError: If the law has a remainder for each coordinate.
    """
    if law.diagonal.ndim:
        raise UnseenError("expected move: the law has a remainder per coordinate; fit it low-rank")
    axes, energies = law.modes()
    floor = law.diagonal
    variances = torch.cat([energies + floor, floor[None]])
    a, s = schedule.a(level), schedule.s(level)
    signal = a**2 * variances
    kappa = signal / (signal + s**2) if level else torch.ones_like(variances)
    kept = kappa ** ((1 + eta**2) / 2)
    deviation = images.flatten(1).double() - law.mean
    along = (deviation @ axes).square()
    rest = (deviation.square().sum(1) - along.sum(1)).clamp_min(0)
    count = torch.ones_like(variances)
    count[-1] = len(law.mean) - len(energies)
    squares = torch.cat([along, rest[:, None]], dim=1)
    fresh = (count * variances * (1 - kept**2)).sum()
    return (squares @ (1 - kept) ** 2 + fresh) / len(law.mean)


def mean_interval(values: Tensor, level: float = 0.95) -> Interval:
    """Return the mean of independent values with Student's interval.

    Args:
        values: Shape (n,), n >= 2.
        level: Coverage asked for, in (0, 1).

    Raises:
        UnseenError: If there are fewer than two values.
    """
    if values.ndim != 1 or len(values) < 2:
        raise UnseenError(f"an interval of {len(values)} values; it takes two or more")
    wide = values.double()
    half = float(student.ppf((1 + level) / 2, len(wide) - 1)) * wide.std().item() / len(wide)**0.5
    mean = wide.mean().item()
    return Interval(mean, mean - half, mean + half)
