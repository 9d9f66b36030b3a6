"""Image sources: where a domain's images come from, and how they are split once for all."""

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from unseen_core.errors import UnseenError
from unseen_core.sources.arrays import load_npy, load_npz
from unseen_core.sources.base import SourceConfig, SourceImages, content_hash
from unseen_core.sources.embedded import (
    galaxy_boxes,
    load_digits,
    load_faces,
    load_galaxies,
    load_retina,
    load_shapes,
    load_textures,
    load_tissue,
)
from unseen_core.sources.files import load_folder, load_zip
from unseen_core.sources.huggingface import load_datasets
from unseen_core.sources.lsun import load_lmdb
from unseen_core.sources.partition import Split, split
from unseen_core.sources.tables import load_parquet
from unseen_core.sources.tars import load_tar

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

SOURCES: Mapping[str, Callable[[SourceConfig], SourceImages]] = MappingProxyType(
    {
        "digits": load_digits,
        "faces": load_faces,
        "galaxies": load_galaxies,
        "textures": load_textures,
        "tissue": load_tissue,
        "retina": load_retina,
        "shapes": load_shapes,
        "folder": load_folder,
        "zip": load_zip,
        "tar": load_tar,
        "npz": load_npz,
        "npy": load_npy,
        "parquet": load_parquet,
        "lmdb": load_lmdb,
        "datasets": load_datasets,
    }
)


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
