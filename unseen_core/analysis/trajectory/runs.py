"""The network time of stage ``trajectory``: recorded runs, noised images, perturbed states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.analysis.trajectory import (
    Misfit,
    Spectrum,
    Trajectory,
    closed_form,
    cosines,
    explained,
    kick,
    misfit,
    record,
    record_inversion,
    residuals,
)
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.batch import naming_memory
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import Method
from unseen_core.judging.features import extract
from unseen_core.types import EpsModel, FeatureExtractor, Level

__all__ = ["STRIP", "Runs"]

STRIP = 12
"""Predicted images of a run that are shown."""
_FIRST = 4  # Runs that are shown.


@dataclass(frozen=True, eq=False)
class Runs:
    """Everything that takes the network's time, a part at a time; tensors have one row per run.

    Attributes:
        network: The frozen network, in the precision of inversion.
        quick: The same in the precision of denoising, for differences of images.
        batch: States per call of ``network``.
        quick_batch: States per call of ``quick``.
        grid: Levels from 0 to the last one.
        method: Solver of every run.
        kept_levels: Levels at which states of the first runs are kept, to be perturbed.
        kicked_runs: Runs that are perturbed.
        kick_size: Length of the perturbation.
        seed: Of all random numbers.
        spectrum: Modes of the seen domain.
        groups: Indices of modes that are measured together.
        others: Closed forms by name, ``gaussian`` among them.
        extractor: Judges how far a picture is from the final one.
    """

    network: UNetEps
    quick: UNetEps
    batch: int
    quick_batch: int
    grid: tuple[Level, ...]
    method: Method
    kept_levels: Sequence[Level]
    kicked_runs: int
    kick_size: float
    seed: int
    spectrum: Spectrum
    groups: Sequence[range]
    others: Mapping[str, EpsModel]
    extractor: FeatureExtractor

    def starts(self, rows: range) -> Tensor:
        """Return starts at the last level, N(0, I), float32 (n, c, h, w)."""
        streams = Streams(self.seed, "trajectory/start", [str(i) for i in rows])
        return streams.normal(*self.network.shape).float()

    def recorded(self, rows: range) -> dict[str, Tensor]:
        """Return what the measures say of some runs, and of closed forms from the same starts."""
        x, method = self.starts(rows), self.method
        with naming_memory("invert.batch", self.batch):
            run = record(self.network, x.to(self.network.device), self.grid, method=method)
        found: dict[str, Tensor] = {}
        for name, other in self.others.items():
            near = (closed_form(other, x, self.grid) if isinstance(other, GaussianEps)
                    else record(other, x, self.grid, method=method))
            for what in ("states", "clean"):
                true, guess = (getattr(t, what).double() for t in (run, near))
                found[f"{what}/{name}"] = (true - guess).square().sum(2).T
                found[f"{what}/whole"] = true.square().sum(2).T
            if name == "gaussian":
                found |= {f"{key}_predicted": value for key, value in self._of(near).items()}
                found["strip_predicted"] = self._strip(near, rows)
        found |= self._of(run)
        pictures = self._pictures(run.clean)
        features = extract(self.extractor, pictures.flatten(0, 1)).unflatten(
            0, pictures.shape[:2])
        found["distance"] = (features - features[-1]).norm(dim=2).T.double()
        found["features"], found["strip"] = features[-1], self._strip(run, rows)
        nodes = [run.levels.index(level) for level in self.kept_levels]
        chosen = [i for i, row in enumerate(rows) if row < self.kicked_runs]
        found["kept"] = run.states[nodes][:, chosen].transpose(0, 1)
        return found

    def inverted(self, images: Tensor) -> dict[str, Tensor]:
        """Return the residuals of uint8 images carried up to the last level."""
        parts = []
        with naming_memory("invert.batch", self.batch):
            for x in to_float(images).split(self.batch):
                states = record_inversion(self.network, x.to(self.network.device), self.grid,
                                          method=self.method)
                parts.append(residuals(states, self.grid[::-1], self.network.schedule))
        return {name: torch.cat([getattr(part, name) for part in parts], 1).T
                for name in ("rotation", "plane")}

    def noised(self, images: Tensor, level: Level) -> dict[str, Misfit]:
        """Return what closed forms miss of the network's view of noised uint8 images."""
        streams = Streams(self.seed, "trajectory/noise",
                          [str(i) for i in range(len(images))])
        a, s = self.network.schedule.a(level), self.network.schedule.s(level)
        x = (a * to_float(images) + s * streams.normal(*self.network.shape)).float()
        parts = []
        with naming_memory("invert.batch", self.batch):
            for part in x.split(self.batch):
                parts.append(misfit(self.network, self.others, part, level))
        return {name: Misfit(torch.cat([p[name].noise for p in parts], 1),
                             torch.cat([p[name].clean for p in parts], 1))
                for name in self.others}

    def kicked(self, level: Level, states: Tensor, modes: Sequence[int]) -> dict[str, Tensor]:
        """Return gains of modes and of one direction off their span, for states at ``level``.

        Args:
            level: A level of the grid.
            states: States of runs there, float32 (n, d).
            modes: Indices of modes.
        """
        count = len(states)
        streams = Streams(self.seed, "trajectory/off", [str(i) for i in range(count)])
        off = self.spectrum.off_span(streams.normal(states[0].numel()))
        along = self.spectrum.directions[:, list(modes)].T.expand(count, -1, -1)
        x = states.reshape(count, *self.network.shape).to(self.quick.device)
        with naming_memory("denoise.batch", self.quick_batch):
            found = kick(self.quick, x, self.grid[: self.grid.index(level) + 1],
                         torch.cat([along, off[:, None]], 1), size=self.kick_size,
                         batch=self.quick_batch, method=self.method)
        plain, moved = (extract(self.extractor, self._pictures(x))
                        for x in (found.plain, found.moved.flatten(0, 1)))
        moved = moved.unflatten(0, found.gain.shape)
        return {"gain": found.gain, "response": found.response,
                "distance": (moved - plain[:, None]).norm(dim=2).double()}

    def _of(self, run: Trajectory) -> dict[str, Tensor]:
        """Return the measures of some runs."""
        found = residuals(run.states, run.levels, self.network.schedule)
        measures = {name: getattr(found, name).T
                    for name in ("plane", "rotation", "size", "pair", "span", "norm")}
        for name, points in (("states", run.states), ("differences", run.states.diff(dim=0)),
                             ("noise", run.noise)):
            measures[f"explained/{name}"] = explained(points)
        for lag, values in cosines(run.states).items():
            measures[f"cosine/{lag}"] = values
        energy = self.spectrum.coordinates(run.clean).square()
        measures["energy"] = torch.stack(
            [energy[..., list(group)].sum(2) for group in self.groups], 2).transpose(0, 1)
        left = (run.clean.double() - run.clean[-1].double()).square().sum(2)
        measures["pixels"] = left.T.sqrt()
        return measures

    def _strip(self, run: Trajectory, rows: range) -> Tensor:
        """Return predicted images of the first runs, evenly spread over the grid, uint8."""
        shown = [i for i, row in enumerate(rows) if row < _FIRST]
        nodes = torch.linspace(0, len(run.levels) - 1, min(STRIP, len(run.levels))).long()
        return self._pictures(run.clean[nodes][:, shown]).transpose(0, 1)

    def _pictures(self, x: Tensor) -> Tensor:
        """Return flat images as uint8 (..., c, h, w)."""
        return to_uint8(x.reshape(-1, *self.network.shape)).reshape(
            *x.shape[:-1], *self.network.shape)
