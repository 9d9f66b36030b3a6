"""What every store of latents offers, whatever its files look like."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, TypedDict

import pandas as pd
from torch import Tensor

from unseen_core.types import Level

__all__ = ["DType", "LatentStore", "Manifest", "PartSeal"]

DType = Literal["float16", "float32"]


class PartSeal(TypedDict):
    """Hash and size in bytes of one file."""

    sha256: str
    size: int


class Manifest(TypedDict):
    """What ``manifest.json`` says of a store.

    ``shape`` is (c, h, w); ``rows`` counts the samples of each part, equal at every level;
    ``fingerprint`` names everything the bytes depend on; ``parts`` seals every file.
    """

    format: str
    version: int
    shape: list[int]
    dtype: str
    levels: list[int]
    rows: list[int]
    fingerprint: str
    parts: dict[str, PartSeal]


class LatentStore(Protocol):
    """Latents of n samples at several levels, read lazily, always float32."""

    @property
    def manifest(self) -> Manifest:
        """The content of ``manifest.json``."""
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """The stored levels, ascending."""
        ...

    @property
    def ids(self) -> tuple[str, ...]:
        """The sample ids in stored order, shape (n,)."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one sample."""
        ...

    def parts(self, level: Level) -> Iterator[Tensor]:
        """Yield the parts of a level in stored order, each (rows, c, h, w)."""
        ...

    def rows(self, level: Level, ids: Sequence[str]) -> Tensor:
        """Return the named samples, (len(ids), c, h, w), in the order asked for."""
        ...

    def all(self, level: Level) -> Tensor:
        """Return all samples, (n, c, h, w), in the order of ``ids``."""
        ...

    def index(self) -> pd.DataFrame:
        """Return one row per sample: id, part, row and the per-sample columns."""
        ...
