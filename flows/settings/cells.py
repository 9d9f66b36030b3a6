"""The cells of a model and domain: one per level and sampler."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.settings.params import Params, Sampler
from unseen_core.errors import UnseenError
from unseen_core.starts import STARTS, StartSampler, build_sampler
from unseen_core.store import read_json

__all__ = ["COSTS", "REAL", "Cell", "candidate_cells", "each_cell", "every_sampler", "load_cost",
           "load_training"]

REAL = "real"
"""The row of the fit images themselves: the floor of the distances, and no novelty at all."""
COSTS = ("calls", "training_steps", "training_images")
"""What a cell cost; a frozen network has not been trained for it."""


@dataclass(frozen=True)
class Cell:
    """A sampler at a level; pixel-space samplers start, and end, at level 0."""

    level: int
    sampler: str

    @property
    def key(self) -> str:
        """The cell's name in files and logs: ``L0500-geometric``."""
        return f"L{self.level:04d}-{self.sampler}"


def each_cell(params: Params) -> Iterator[Cell]:
    """Yield the cells in the order of params.yaml.

    Raises:
        UnseenError: If a sampler asks for a level that is not inverted to, or for a fine-tuned
            network that is not there or that it cannot start.
    """
    for name, sampler in params.samplers.items():
        if sampler.network is not None:
            yield from (Cell(level, name) for level in _own_levels(params, name, sampler))
            continue
        if sampler.space == "pixels":
            yield Cell(0, name)
            continue
        levels = params.levels if sampler.levels is None else sampler.levels
        for level in levels:
            if level not in params.levels:
                raise UnseenError(f"samplers.{name}.levels: {level} is not in levels "
                                  f"({', '.join(map(str, params.levels))})")
            yield Cell(level, name)


def _own_levels(params: Params, name: str, sampler: Sampler) -> list[int]:
    """Return the levels at which a sampler starts a fine-tuned network."""
    tuned = [f"{key}/{steps}" for key, entry in params.finetune.items() for steps in entry.steps]
    fit = [key for key, kind in STARTS.items() if kind.from_noise]
    if sampler.sampler not in fit or sampler.space == "pixels":
        raise UnseenError(f"samplers.{name}.network: a fine-tuned network starts from noise; use "
                          f"sampler {' or '.join(fit)}, in latents")
    if sampler.network not in tuned:
        raise UnseenError(f"samplers.{name}.network: {sampler.network!r} is not among the networks "
                          f"of finetune ({', '.join(tuned) or 'none'})")
    if sampler.levels is None:
        raise UnseenError(f"samplers.{name}.levels: name the levels at which {sampler.network} "
                          "starts, such as [1000]")
    return sampler.levels


def every_sampler(params: Params) -> dict[str, StartSampler]:
    """Build every sampler, which checks its settings.

    Raises:
        UnseenError: For an unknown sampler or setting, or a prior that ``fit.kinds`` lacks.
    """
    built = {name: build_sampler(name, s.settings()) for name, s in params.samplers.items()}
    for name, sampler in built.items():
        if sampler.prior not in (None, *params.fit.kinds):
            raise UnseenError(f"samplers.{name}.{sampler.prior_field}: {sampler.prior!r} is not in "
                              f"fit.kinds ({', '.join(params.fit.kinds)})")
    return built


def candidate_cells(params: Params) -> list[Cell]:
    """Return the cells that ``select`` compares: latent cells of samplers that are `selectable`.

    With the samplers there are, those are ``geometric`` with proposal ``blend``, ``slerp`` with
    partner ``reference``, and ``bands``. Left out are ``noise`` and ``prior``, which name no
    parents, ``reconstruction``, which copies, and every sampler that draws of a prior: it is
    fitted to all fit images, so each of them has earned its likeness to the draw, as with
    ``signal-leak`` and ``style-noise``. ``teleport`` knows no fit image, and ``boomerang``
    varies a single one, as ``reconstruction`` with fresh noise does. Pixel-space cells have no
    level to choose, and what starts a fine-tuned network names no parents.

    Raises:
        UnseenError: If a sampler's settings are wrong.
    """
    built = every_sampler(params)
    return [cell for cell in each_cell(params)
            if params.samplers[cell.sampler].space == "latents" and built[cell.sampler].selectable]


def load_cost(folder: Path, cell: Cell) -> dict[str, float]:
    """Return network calls per image, and what training cost where there was any."""
    return read_json(folder / f"{cell.key}.json")


def load_training(folder: Path) -> dict[str, float]:
    """Return what a fine-tuned network cost, by the last names of `COSTS`.

    Args:
        folder: ``NAME/STEPS`` in data/finetuned.

    Raises:
        UnseenError: If ``finetune`` did not make it.
    """
    report = read_json(folder / "report.json")
    return {name: report[name.removeprefix("training_")] for name in COSTS[1:]}
