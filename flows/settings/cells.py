"""The cells of a model and domain: one per level and sampler."""

from dataclasses import dataclass
from pathlib import Path

from unseen_core.store import read_json

__all__ = ["COSTS", "REAL", "Cell", "load_cost", "load_training"]

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
