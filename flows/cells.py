"""The cells of a model and domain: one per level and sampler."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.params import Params
from unseen_core.errors import UnseenError
from unseen_core.starts import StartSampler, build_sampler
from unseen_core.store import read_json

__all__ = ["REAL", "Cell", "each_cell", "every_sampler", "load_cost"]

REAL = "real"
"""The row of the fit images themselves: the floor of the distances, and no novelty at all."""


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
        UnseenError: If a sampler asks for a level that is not inverted to.
    """
    for name, sampler in params.samplers.items():
        if sampler.space == "pixels":
            yield Cell(0, name)
            continue
        levels = params.levels if sampler.levels is None else sampler.levels
        for level in levels:
            if level not in params.levels:
                raise UnseenError(f"samplers.{name}.levels: {level} is not in levels "
                                  f"({', '.join(map(str, params.levels))})")
            yield Cell(level, name)


def every_sampler(params: Params) -> dict[str, StartSampler]:
    """Build every sampler, which checks its settings.

    Raises:
        UnseenError: For an unknown sampler or setting, or a prior that ``fit.kinds`` lacks.
    """
    built = {name: build_sampler(name, s.settings()) for name, s in params.samplers.items()}
    for name, sampler in built.items():
        for setting in ("kind", "proposal", "partner"):
            kind = getattr(sampler, setting, None)
            if kind not in (None, "blend", "reference", *params.fit.kinds):
                raise UnseenError(f"samplers.{name}.{setting}: {kind!r} is not in fit.kinds "
                                  f"({', '.join(params.fit.kinds)})")
    return built


def load_cost(folder: Path, cell: Cell) -> dict[str, float]:
    """Return network calls per image and the seconds that denoising a cell took."""
    return read_json(folder / f"{cell.key}.json")
