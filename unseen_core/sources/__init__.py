"""Image sources: where a domain's images come from, and how they are split once for all.

A source is a function that `source` registers, in a module that is imported here.
"""

import difflib

from unseen_core.errors import UnseenError
from unseen_core.sources import arrays as arrays
from unseen_core.sources import embedded as embedded
from unseen_core.sources import files as files
from unseen_core.sources import huggingface as huggingface
from unseen_core.sources import lsun as lsun
from unseen_core.sources import tables as tables
from unseen_core.sources import tars as tars
from unseen_core.sources.base import SOURCES, SourceConfig, SourceImages, content_hash
from unseen_core.sources.embedded import galaxy_boxes
from unseen_core.sources.partition import Split, split

__all__ = [
    "SOURCES",
    "SourceConfig",
    "SourceImages",
    "Split",
    "check",
    "content_hash",
    "galaxy_boxes",
    "load",
    "split",
]


def load(config: SourceConfig) -> SourceImages:
    """Return the images of the source that ``config.kind`` names.

    Raises:
        UnseenError: The kind is unknown, a value is out of range, or no image is usable.
    """
    checked = check(config)
    return SOURCES[config.kind](checked)


def check(config: SourceConfig) -> SourceConfig:
    """Return a configuration without opening anything.

    Raises:
        UnseenError: The kind is unknown, or a value is out of range.
    """
    if config.kind not in SOURCES:
        near = difflib.get_close_matches(config.kind, SOURCES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        known = ", ".join(SOURCES)
        raise UnseenError(f"unknown source {config.kind!r}{hint} Known sources: {known}")
    return config.checked()
