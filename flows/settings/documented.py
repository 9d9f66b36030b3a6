"""params.yaml as documentation: its text with comments, or one section of it."""

import re
from pathlib import Path

from unseen_core.errors import UnseenError

__all__ = ["SHIPPED", "documented"]

SHIPPED = Path(__file__).resolve().parents[2] / "params.yaml"
"""The params.yaml of the source tree."""


def documented(section: str | None = None) -> str:
    """Return the text of params.yaml, or of one section with the comment above it.

    Outside a project it is that of the source tree.

    Args:
        section: A key of the first level, such as ``solver``; None is the whole file.

    Raises:
        UnseenError: If the file cannot be read, or there is no such section.
    """
    file = next((file for file in (Path("params.yaml"), SHIPPED) if file.is_file()), SHIPPED)
    try:
        text = file.read_text("utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnseenError(f"{file}: cannot be read ({error})") from None
    if section is None:
        return text
    lines, starts = text.splitlines(), dict[str, int]()
    for number, line in enumerate(lines):
        if found := re.match(r"([a-z_]+):", line):
            starts[found[1]] = number
    if section not in starts:
        raise UnseenError(f"{file}: has no section {section!r}; it has {', '.join(starts)}")
    first = starts[section]
    end = min((number for number in starts.values() if number > first), default=len(lines))
    return "\n".join(lines[_above(lines, first) : _above(lines, end)]).rstrip()


def _above(lines: list[str], number: int) -> int:
    """Return the line at which the comment above a line begins."""
    while number > 0 and number <= len(lines) and lines[number - 1].startswith("#"):
        number -= 1
    return number
