"""The paper's method on a folder of images: invert, fit, choose, draw, denoise, audit.

Images are carried up the frozen network's deterministic trajectory to mixing levels, where they
are x_k = a_k x_0 + s_k eps. Blends of them are put on their shell, kept if their geometry is that
of the images, and carried down again (Zhu et al., arXiv 2310.09213). Level and sampler are chosen
by the images alone, as stage ``select`` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from flows.loading.opened import Opened
from flows.running.run import Run
from flows.settings.cells import Cell
from flows.settings.params import Params
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.transport import Method, invert
from unseen_core.errors import UnseenError
from unseen_core.judging.features import extract
from unseen_core.judging.novelty import nearest
from unseen_core.judging.selection import COPY, Candidate, choose
from unseen_core.laws.blends import fit_law
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.sources import SourceImages
from unseen_core.starts import StartContext, StartSampler, denoise_starts
from unseen_core.store import Scratch, read_tensors, save_tensors
from unseen_core.types import FeatureExtractor

__all__ = ["FEWEST", "Chosen", "UnseenMethod"]

FEWEST = 8
"""Images: below, a blend's parents are most of what it is compared with."""


@dataclass(frozen=True)
class Chosen:
    """A level and a sampler, and why they were chosen.

    Attributes:
        cell: Them.
        reason: One line.
        table: What the images say of every candidate; see `unseen_core.judging.selection.Score`.
    """

    cell: Cell
    reason: str
    table: Sequence[Mapping[str, object]]


@dataclass(frozen=True, eq=False)
class UnseenMethod:
    """The method on one folder of images; every step that takes the network's time is resumable.

    Attributes:
        params: The parameters.
        precise: The network in the precision of inversion.
        opened: The same in the precision of denoising.
        source: The images.
        samplers: By name.
        cells: Candidates, their samplers among ``samplers``.
        method: Solver.
        extractor: Judges images.
        grid: Levels from 0 up to the highest candidate's, through all of theirs.
        seed: Of all random numbers.
        device: Where the network computes.
        work: Holds what is finished.
    """

    params: Params
    precise: Opened
    opened: Opened
    source: SourceImages
    samplers: Mapping[str, StartSampler]
    cells: Sequence[Cell]
    method: Method
    extractor: FeatureExtractor
    grid: tuple[int, ...]
    seed: int
    device: str
    work: Scratch

    @cached_property
    def features(self) -> Tensor:
        """Features of the images, (N, d)."""
        return extract(self.extractor, self.source.images)

    @cached_property
    def clean(self) -> References:
        """The images as states of the network."""
        return self.opened.states_of(self.source.images)

    @cached_property
    def apart(self) -> Tensor:
        """Distance of each image to its nearest other, (N,)."""
        rows = torch.arange(len(self.features))
        return torch.stack([nearest(self.features[i : i + 1], self.features[rows != i])[0][0]
                            for i in rows])

    def invert(self, run: Run, workers: int) -> None:
        """Carry the images up to the level of every candidate, a part at a time."""
        levels = {cell.level for cell in self.cells}
        if levels == {0}:  # pixel space: the images themselves
            return
        size = self.precise.batch

        def carry(part: int) -> None:
            if self.work.has(_latents(part)):
                return
            kept: dict[str, Tensor] = {}

            def observe(level: int, states: Tensor) -> None:
                if level in levels:
                    kept[str(level)] = states.cpu().contiguous()

            states = self.precise.codec.encode(to_float(
                self.source.images[part * size : (part + 1) * size])).to(self.device)
            invert(self.precise.network, states, self.grid, method=self.method,
                   observe=observe)
            self.work.add(_latents(part), lambda path: save_tensors(path, kept))

        run.map(carry, self._parts, workers=workers,
                name=lambda part: f"images carried up, {_latents(part)}")

    def choose(self, run: Run, workers: int) -> Chosen:
        """Make trial images of every candidate, and choose by the images alone.

        Raises:
            UnseenError: If no candidate finds a start state.
        """
        if len(self.cells) == 1:
            return Chosen(self.cells[0], "the only candidate", ())
        count = self.params.sample.count
        by_level = sorted(self.cells, key=lambda cell: -cell.level)  # the longest first
        tried = dict(zip(by_level, run.map(
            lambda cell: self._try(run, cell, count), by_level, workers=workers,
            name=lambda cell: f"trial images, {cell.key}"), strict=True))
        found = {cell: tried[cell] for cell in self.cells if tried[cell] is not None}
        if not found:
            raise UnseenError("no sampler finds a start state among these images; give more "
                              "images, or others with --sampler and --level")
        section = self.params.select
        choice = choose([Candidate(cell.key, cell.level, features, parents,
                                   self.grid.index(cell.level))
                         for cell, (features, parents) in found.items()],
                        self.features, novelty=section.novelty, diversity=section.diversity,
                        draws=section.draws, seed=self.seed)
        least = min(choice.scores, key=lambda score: score.criterion)
        if choice.chosen is None:
            run.log.warning("%s; taken instead: %s, the nearest to the images", choice.reason,
                            least.name)
        name = choice.chosen or least.name
        cell = next(cell for cell in found if cell.key == name)
        return Chosen(cell, choice.reason, [asdict(score) for score in choice.scores])

    def draw(self, cell: Cell, purpose: str, ids: Sequence[str]) -> dict[str, Tensor]:
        """Return new images of a cell, uint8 (n, c, h, w), their parents and candidates drawn.

        Args:
            cell: Level and sampler.
            purpose: Tells random numbers apart.
            ids: A name for each image; its random numbers depend on it and the seed alone.
        """
        streams = Streams(self.seed, f"generate/{purpose}", list(ids))
        sampler = self.samplers[cell.sampler]
        starts = sampler.draw(self._context(cell), streams)
        fresh = Streams(self.seed, f"generate/{purpose}/denoise", list(ids))
        levels = self.grid[: self.grid.index(cell.level) + 1]
        made = []
        for first in range(0, len(ids), self.opened.batch):
            rows = slice(first, first + self.opened.batch)
            down = denoise_starts(sampler, self.opened.network, starts.rows(rows, self.device),
                                  levels, images=self.clean, streams=fresh[rows],
                                  method=self.method)
            made.append(to_uint8(self.opened.codec.decode(down).cpu()))
        return {"images": torch.cat(made).contiguous(), "parents": starts.parents.contiguous(),
                "proposed": torch.tensor(starts.proposed)}

    def audit(self, images: Tensor) -> tuple[dict[str, float], Tensor, Tensor]:
        """Return what is measured of new images, and of each its distance and nearest given image.

        ``novelty``: their median distance to the nearest given image, over that of a given image
        to its nearest other. ``near_copies``: the share nearer than all but 1 % of the given
        images are to their nearest other.
        """
        distance, rows = nearest(extract(self.extractor, images), self.features)
        limit = self.apart.quantile(COPY).item()
        figures = {"novelty": (distance.quantile(0.5) / self.apart.quantile(0.5)).item(),
                   "near_copies": (distance < limit).double().mean().item(),
                   "near_copy_distance": limit}
        return figures, distance, rows

    @property
    def _parts(self) -> range:
        """Parts in which images are carried up."""
        return range(-(-len(self.source) // self.precise.batch))

    def _context(self, cell: Cell) -> StartContext:
        """Return what a sampler sees: the images at its level, and their geometry."""
        references = self.clean if cell.level == 0 else References.of(torch.cat([
            read_tensors(self.work.path(_latents(part)))[str(cell.level)]
            for part in self._parts]))
        judge = StateJudge.of(references, neighbours=self.params.fit.neighbours)
        streams = Streams(self.seed, f"generate/envelope/L{cell.level:04d}", self.source.ids)
        order = streams.choose(references.count, references.count)
        envelope = Envelope.calibrate(judge, order, coverage=self.params.fit.coverage)
        kind = self.samplers[cell.sampler].prior
        priors = {} if kind is None else {kind: fit_law(references, kind=kind)}
        return StartContext(self.opened.network.schedule, cell.level, references, priors, envelope,
                            self.params.fit.neighbours, self.clean)

    def _try(self, run: Run, cell: Cell, count: int) -> tuple[Tensor, Tensor] | None:
        """Return features and parents of trial images; None where no start state is found."""
        file = f"trial-{cell.key}.safetensors"
        if not self.work.has(file):
            try:
                made = self.draw(cell, "trial", [f"{i:05d}" for i in range(count)])
            except UnseenError as error:
                run.log.warning("%s is left out: %s", cell.key, error)
                return None
            self.work.add(file, lambda path: save_tensors(path, made))
        made = read_tensors(self.work.path(file))
        return extract(self.extractor, made["images"]), made["parents"]


def _latents(part: int) -> str:
    """Return the scratch file of some images' latents."""
    return f"latents-{part:05d}.safetensors"
