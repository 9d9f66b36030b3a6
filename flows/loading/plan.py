"""The plan that stage ``plan`` wrote."""

from pathlib import Path

from pydantic import ValidationError

from flows.settings.cells import Cell
from flows.settings.plan import Plan
from flows.settings.sections import Sampler
from unseen_core.errors import UnseenError
from unseen_core.store import read_json

__all__ = ["read_plan"]


def read_plan(file: Path) -> Plan:
    """Return the samplers and cells of data/plan.json.

    Raises:
        UnseenError: If the file is missing or damaged.
    """
    if not file.is_file():
        raise UnseenError(f"{file}: no such file; run plan first")
    content = read_json(file)
    try:
        samplers = {name: Sampler.model_validate(section)
                    for name, section in content["samplers"].items()}
        return Plan(samplers, tuple(Cell(level, name) for level, name in content["cells"]))
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise UnseenError(f"{file}: damaged; run plan again") from error
