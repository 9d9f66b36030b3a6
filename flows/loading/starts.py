"""Start states as ``sample`` wrote them, a part at a time."""

from itertools import accumulate
from pathlib import Path

from flows.settings.cells import Cell
from unseen_core.errors import UnseenError
from unseen_core.starts import StartStates
from unseen_core.store import read_json, read_tensors

__all__ = ["load_starts", "rows_of_parts"]


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
