"""Control of colour and layout by what is set in a leak, measured beside the closed form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import Interval
from unseen_core.laws.frequency import low_frequencies
from unseen_core.laws.gaussian import Gaussian
from unseen_core.types import Level

__all__ = ["CONTROLS", "Control", "Linearity", "Prediction", "best_level", "linearity",
           "predicted_control", "spread_row"]

_DRAWS = 1000
_ENDS = torch.tensor([0.025, 0.975]).double()
_GOOD = 0.95  # R² of a control that is called good


@dataclass(frozen=True, eq=False)
class Control:
    """Low-frequency coefficients that are set, one for each channel.

    Amplitudes are in grey values of [-1, 1]: a coefficient of the orthonormal DCT over
    sqrt(h w). That of the lowest frequency is the channel's mean; of the others, the root mean
    square of the wave.

    Attributes:
        name: ``"colour"`` or ``"gradient"``.
        basis: Orthonormal columns, a channel each, float64 (c h w, c).
        scale: sqrt(h w).
    """

    name: str
    basis: Tensor
    scale: float

    @classmethod
    def of(cls, name: str, shape: Sequence[int]) -> "Control":
        """Return a control of images (c, h, w).

        ``"colour"`` sets the mean of each channel, ``"gradient"`` half a wave from left to right.

        Raises:
            UnseenError: If the control is unknown.
        """
        if name not in CONTROLS:
            raise UnseenError(f"control {name!r} is not one of {', '.join(CONTROLS)}")
        channels, height, width = shape
        first = CONTROLS[name] * channels
        basis = low_frequencies(CONTROLS[name] + 1, shape)[:, first : first + channels]
        return cls(name, basis, (height * width) ** 0.5)

    def read(self, images: Tensor) -> Tensor:
        """Return the amplitudes of images (n, c, h, w) or (n, c h w), float64 (n, c)."""
        return images.flatten(1).double() @ self.basis / self.scale

    def write(self, images: Tensor, amplitudes: Tensor) -> Tensor:
        """Return flat images (n, d) with these amplitudes, (n, c), and all else as it was."""
        change = amplitudes.double() - self.read(images)
        return images + (self.scale * change @ self.basis.T).to(images.dtype)

    def moments(self, law: Gaussian) -> tuple[Tensor, Tensor]:
        """Return mean (c,) and covariance (c, c) of the coefficients, not divided by the scale."""
        inner = self.basis.T @ law.factor
        rest = law.diagonal.expand(len(law.mean))
        return self.basis.T @ law.mean, inner @ inner.T + self.basis.T @ (rest[:, None]
                                                                          * self.basis)


CONTROLS: Mapping[str, int] = {"colour": 0, "gradient": 1}
"""The place of a control's frequency among the lowest ones."""


@dataclass(frozen=True)
class Prediction:
    """What the closed form says of a control.

    Attributes:
        alone: Slope as if channels were independent, sqrt(κ).
        slope: Slope by the joint law of the channels.
        r2: By the joint law.
    """

    alone: float
    slope: float
    r2: float


@dataclass(frozen=True)
class Linearity:
    """Least squares of what came out on what was set: slope and R², with 95 % intervals."""

    slope: Interval
    r2: Interval

    def row(self) -> dict[str, float]:
        """Return both with their ends, flat."""
        return {f"{name}{end}": value for name, found in (("slope", self.slope), ("r2", self.r2))
                for end, value in (("", found.value), ("_low", found.low), ("_high", found.high))}


def linearity(wanted: Tensor, found: Tensor, *, seed: int = 0, draws: int = _DRAWS) -> Linearity:
    """Regress what came out on what was set; images are resampled whole for the intervals.

    Several columns are pooled, each about its own mean, so that they share a slope.

    Args:
        wanted: Amplitudes that were set, (n, c), n >= 3.
        found: Those of the images, same shape.
        seed: Seed of the bootstrap.
        draws: Bootstrap draws.

    Raises:
        UnseenError: If the shapes differ, images are too few, or nothing was varied.
    """
    if wanted.shape != found.shape or wanted.ndim != 2 or len(wanted) < 3:
        raise UnseenError(f"linearity: set values {tuple(wanted.shape)} and found ones "
                          f"{tuple(found.shape)} must be (n, c) both, n at least 3")
    picks = torch.cat([torch.arange(len(wanted))[None], _picks(len(wanted), draws, seed)])
    x, y = (table.double()[picks] for table in (wanted, found))  # (draws + 1, n, c)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    xx, xy, yy = (product.sum((1, 2)) for product in (x * x, x * y, y * y))
    if (xx[0] <= 0) or (yy[0] <= 0):
        raise UnseenError("linearity: all images have one value; set different ones")
    intervals = []
    for values in (xy / xx, xy.square() / (xx * yy)):
        low, high = values[1:][values[1:].isfinite()].quantile(_ENDS).tolist()
        intervals.append(Interval(values[0].item(), low, high))
    return Linearity(*intervals)


def predicted_control(
    schedule: Schedule, level: Level, covariance: Tensor, amplitude: float, scale: float
) -> list[Prediction]:
    """Return what a perfect network of one Gaussian law would show: per channel, then pooled.

    Of an amplitude set in a x + s ε at level k the image keeps G = a (C (a² C + s² I)⁻¹)^½, C the
    covariance of the coefficients, and the noise adds s² G² / a² to their covariance. The
    slope of a channel on what was set in it is on G's diagonal; of one channel alone, of variance
    λ, it is sqrt(κ), κ = a² λ / (a² λ + s²). All other frequencies are taken as independent of
    these; where they are not, the true slope is a little smaller.

    Args:
        schedule: Gives a and s.
        level: k.
        covariance: C under the network's law, (c, c).
        amplitude: Standard deviation of the amplitudes, which are set independently.
        scale: Coefficient over amplitude.
    """
    a, s = schedule.a(level), schedule.s(level)
    values, axes = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    kept = (axes * (a.square() * values / (a.square() * values + s.square())).sqrt()) @ axes.T
    own = covariance.diagonal()
    alone = (a.square() * own / (a.square() * own + s.square())).sqrt()
    signal = (amplitude * scale) ** 2
    total = signal * kept.square().sum(1) + (s / a).square() * (kept @ kept).diagonal()
    slopes = kept.diagonal()
    shares = signal * slopes.square() / total
    pooled = signal * slopes.sum().square() / (len(own) * total.sum())
    return [Prediction(*row) for row in zip(
        [*alone.tolist(), alone.mean().item()], [*slopes.tolist(), slopes.mean().item()],
        [*shares.tolist(), pooled.item()], strict=True)]


def spread_row(
    control: Control, images: Tensor, real: Tensor, law: Gaussian, schedule: Schedule, level: Level
) -> dict[str, float]:
    """Compare the spread of amplitudes from pure noise N(0, I) at a level with the real one.

    A perfect network's has 1 / sqrt(a² λ + s²) of it per mode: pure noise lacks what is left of
    the images at the level, so that colours come out too much alike. ``sd`` is the root mean
    square over channels, ``sd_ratio`` that over the real images' with a 95 % bootstrap interval;
    ``shift`` the distance of the mean amplitudes from the real ones' (root mean square).

    Args:
        control: What is read.
        images: Made from N(0, I) at ``level``, (n, c, h, w) in [-1, 1].
        real: Real images of the network's domain, same form.
        law: That of its clean images.
        schedule: Gives a and s.
        level: Where the noise was put.
    """
    a, s = schedule.a(level), schedule.s(level)
    mean, covariance = control.moments(law)
    values, axes = torch.linalg.eigh(covariance)
    left = values / (a.square() * values + s.square())
    # The map to clean coefficients is sqrt(left) along each axis, applied to noise of variance 1
    # and to the offset -a μ that the noise lacks.
    offset = axes @ (left.sqrt() * (axes.T @ (a * mean)))
    made, true = control.read(images), control.read(real)
    low, high = (_drawn_sd(made, 0) / _drawn_sd(true, 1)).quantile(_ENDS).tolist()
    return {
        "sd": _sd(made), "sd_real": _sd(true), "sd_ratio": _sd(made) / _sd(true),
        "sd_ratio_low": low, "sd_ratio_high": high,
        "predicted_sd_ratio": (left.sum() / values.sum()).sqrt().item(),
        "shift": _length(made.mean(0) - true.mean(0)),
        "predicted_shift": _length(offset) / control.scale,
    }


def best_level(rows: Sequence[Mapping[str, float]]) -> tuple[Level, Level | None]:
    """Return the level where a control works best, and the highest where it works well.

    The best has the largest R²; of those that the intervals do not separate from it, the one whose
    slope is nearest to 1. At low levels that is nearly a copy of what was set, so the second is
    the more telling: the highest level of an R² of at least 0.95, where the network decides most.

    Args:
        rows: Pooled rows with ``level``, ``slope``, ``r2`` and ``r2_high``.
    """
    first = max(rows, key=lambda row: row["r2"])
    equal = [row for row in rows if row["r2_high"] >= first["r2"]]
    best = min(equal, key=lambda row: abs(row["slope"] - 1))
    good = [int(row["level"]) for row in rows if row["r2"] >= _GOOD]
    return int(best["level"]), max(good, default=None)


def _sd(values: Tensor) -> float:
    """Return the root mean square of the columns' standard deviations."""
    return values.var(0).mean().sqrt().item()


def _drawn_sd(values: Tensor, seed: int) -> Tensor:
    """Return that of bootstrap draws of the rows, (draws,)."""
    return values[_picks(len(values), _DRAWS, seed)].var(1).mean(1).sqrt()


def _picks(count: int, draws: int, seed: int) -> Tensor:
    """Return the rows of every bootstrap draw, (draws, count)."""
    return torch.from_numpy(np.random.default_rng(seed).integers(count, size=(draws, count)))


def _length(values: Tensor) -> float:
    """Return the root mean square of some numbers."""
    return values.square().mean().sqrt().item()
