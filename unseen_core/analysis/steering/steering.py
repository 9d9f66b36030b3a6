"""A frozen network whose runs are cut short, or whose start states are given colours."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unseen_core.analysis.steering.colour import (
    Control,
    Prediction,
    linearity,
    predicted_control,
    spread_row,
)
from unseen_core.analysis.steering.teleporting import Jump, jump_law
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.diffusion.teleport import denoise_teleported, landing
from unseen_core.diffusion.transport import Method, denoise
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import kernel_distance
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts.leak import fit_leak
from unseen_core.types import FeatureExtractor, Level

__all__ = ["Controlled", "Steerer"]

_RANK = 6  # lowest frequencies whose joint law the leak has
_SPANS = {"colour": 0.8, "gradient": 0.4}  # amplitudes are set within plus and minus this


@dataclass(frozen=True, eq=False)
class Controlled:
    """Rows of measurements, the amplitudes that were set (n, c), and uint8 images of them."""

    rows: list[dict[str, object]]
    wanted: Tensor
    images: Tensor


@dataclass(frozen=True, eq=False)
class Steerer:
    """Steers one frozen network.

    Attributes:
        network: It.
        batch: States per network call.
        grid: Levels from clean to the noisiest one, on which whole runs go down.
        colour_grid: Levels through all those at which colours are set.
        search_grid: Levels from clean to the noisiest one, through ``search``.
        method: Solver of every run.
        images: Images of the teleport study.
        colours: Images at a level at which colours are set.
        search: Level at which the start state is searched from.
        draws: Bootstrap draws of an interval.
        seed: Of all random numbers.
        extractor: Judges images.
        law: Of the clean images that the network has learnt.
        seen: Some of those images, uint8 (n, 3, h, w).
        held_out: Others that nothing was fitted to.
    """

    network: UNetEps
    batch: int
    grid: tuple[Level, ...]
    colour_grid: tuple[Level, ...]
    search_grid: tuple[Level, ...]
    method: Method
    images: int
    colours: int
    search: Level
    draws: int
    seed: int
    extractor: FeatureExtractor
    law: Gaussian
    seen: Tensor
    held_out: Tensor

    @cached_property
    def leak(self) -> Gaussian:
        """The law that leaks are drawn of, with white pixels above its lowest frequencies."""
        return fit_leak(References.of(self.seen), kind="dct", rank=_RANK)

    @cached_property
    def held_out_features(self) -> Tensor:
        """Features of the held-out images, (n, d)."""
        return extract(self.extractor, self.held_out)

    @cached_property
    def seen_features(self) -> Tensor:
        """Features of the seen images, (n, d)."""
        return extract(self.extractor, self.seen)

    def teleported(self, jump: Jump, skip: float) -> tuple[Level, Tensor]:
        """Return where a run lands that skips a share of its calls, and its images."""
        grid = self.grid
        land, law = landing(grid, skip), jump_law(self.law, jump)
        x = self.noise("teleport", self.images)
        images = [denoise_teleported(self.network, part.to(self.network.device), grid, law=law,
                                     land=land, method=self.method).images.cpu()
                  for part in x.split(self.batch)]
        return land, torch.cat(images)

    def controlled(self, name: str, level: Level) -> Controlled:
        """Set amplitudes in a leak at a level, and measure what comes out.

        The leak is drawn of the seen images' law, what is controlled then overwritten. Noise and
        amplitudes are the same at every level. Images are judged as they are shown, in uint8.
        """
        control = Control.of(name, self.network.shape)
        count, seed = self.colours, self.seed
        streams = Streams(seed, f"steer/{name}", [f"{i:05d}" for i in range(count)])
        leak = self.leak.sample(streams)
        wanted = (2 * streams.uniform(self.network.shape[0]) - 1) * _SPANS[name]
        leak = control.write(leak, wanted)
        schedule = self.network.schedule
        x = schedule.a(level) * leak + schedule.s(level) * streams.normal(leak.shape[1])
        images = self._down(x.reshape(-1, *self.network.shape).float(), level)
        found = control.read(to_float(images))
        _, covariance = control.moments(self.law)
        predictions = predicted_control(schedule, level, covariance, wanted.std().item(),
                                        control.scale)
        distance = kernel_distance(extract(self.extractor, images), self.held_out_features,
                                   draws=self.draws, seed=seed)
        channels = [*(slice(i, i + 1) for i in range(wanted.shape[1])), slice(None)]
        names = [*map(str, range(wanted.shape[1])), "all"]
        rows = [_control_row(name, level, channel, linearity(
                    wanted[:, part], found[:, part], seed=seed).row(), predicted)
                | {"n": count, "span": _SPANS[name], "kernel": distance.value,
                   "kernel_low": distance.low, "kernel_high": distance.high}
                for channel, part, predicted in zip(names, channels, predictions, strict=True)]
        return Controlled(rows, wanted, images)

    def spread(self, level: Level) -> dict[str, object]:
        """Return how much the colours of images from N(0, I) at a level vary."""
        x = self.noise("spread", self.colours)
        found = spread_row(Control.of("colour", self.network.shape),
                           to_float(self._down(x, level)), to_float(self.held_out), self.law,
                           self.network.schedule, level)
        return {"level": level, "n": len(x), "held_out": len(self.held_out), **found}

    def noise(self, purpose: str, count: int) -> Tensor:
        """Return N(0, I), float32 (count, c, h, w)."""
        streams = Streams(self.seed, f"steer/{purpose}", [f"{i:05d}" for i in range(count)])
        return streams.normal(*self.network.shape).float()

    def _down(self, x: Tensor, level: Level) -> Tensor:
        """Return images of states on the grid of colours, uint8."""
        part = self.colour_grid
        part = part[: part.index(level) + 1]
        return to_uint8(torch.cat([
            denoise(self.network, rows.to(self.network.device), part,
                    method=self.method).cpu() for rows in x.split(self.batch)]))


def _control_row(
    name: str, level: Level, channel: str, measured: dict[str, float], predicted: Prediction
) -> dict[str, object]:
    """Return a flat row of a control: measured beside predicted."""
    return {"control": name, "level": level, "channel": channel, **measured,
            "predicted_slope": predicted.slope, "predicted_slope_alone": predicted.alone,
            "predicted_r2": predicted.r2}
