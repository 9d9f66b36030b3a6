"""Start states as ``sample`` wrote them: the cells there are, and their states a part at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from flows.settings.cells import Cell
from unseen_core.basics.states import StartStates
from unseen_core.errors import UnseenError
from unseen_core.store import read_json, read_tensors

__all__ = ["DrawnCell", "drawn_cells", "load_starts", "rows_of_parts"]


@dataclass(frozen=True)
class DrawnCell:
    """What stages after ``sample`` must know of a cell; they do not read ``samplers`` themselves.

    Attributes:
        cell: Level and sampler.
        settings: ``sampler`` and its fields, as params.yaml has them.
        network: The fine-tuned network that is started; None: the frozen one.
        candidate: Whether ``select`` may choose it.
        repeats: Whether it gives the fit images back.
        acceptance: Start states per candidate drawn.
    """

    cell: Cell
    settings: Mapping[str, object]
    network: str | None
    candidate: bool
    repeats: bool
    acceptance: float


def drawn_cells(folder: Path) -> list[DrawnCell]:
    """Return the cells of a model and domain, in the order of params.yaml.

    Args:
        folder: Of a model and domain in data/starts; only its report.json is read.

    Raises:
        UnseenError: If ``sample`` did not finish, or its report is damaged.
    """
    try:
        return [DrawnCell(Cell(row["level"], row["sampler"]), row["settings"], row["network"],
                          row["candidate"], row["repeats"], row["acceptance"])
                for row in read_json(folder / "report.json")["cells"]]
    except (KeyError, TypeError) as error:
        raise UnseenError(f"{folder / 'report.json'}: damaged ({error}); run sample again") \
            from error


def rows_of_parts(folder: Path, cell: Cell) -> list[range]:
    """Return the numbers of a cell's start states, by part.

    Raises:
        UnseenError: If ``sample`` did not finish.
    """
    counts = _row(folder, cell)["rows"]
    return [range(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True)]


def load_starts(folder: Path, cell: Cell, part: int) -> StartStates:
    """Return one part of a cell's start states; ``proposed`` and ``passed`` are the cell's.

    Raises:
        UnseenError: If ``sample`` did not write it, or its files are damaged.
    """
    tensors, row = read_tensors(_part(folder, cell, part)), _row(folder, cell)
    return StartStates(tensors["x"], cell.level, tensors["parents"], int(row["proposed"]),
                       row["passed"], float(row["eta"]))


def _part(folder: Path, cell: Cell, part: int) -> Path:
    """Return the file of a part."""
    return folder / cell.key / f"part-{part:05d}.safetensors"


def _row(folder: Path, cell: Cell) -> dict:
    """Return a cell's row of the report."""
    rows = {row["cell"]: row for row in read_json(folder / "report.json")["cells"]}
    if cell.key not in rows:
        raise UnseenError(f"{folder / 'report.json'}: no cell {cell.key}; run sample again")
    return rows[cell.key]
