"""Random numbers that depend on a sample's name, never on its batch, order or device."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = ["Streams"]


class Streams:
    """One generator per sample id, seeded by SHA-256 of (seed, purpose, id).

    Drawing on the CPU in float64 makes the numbers the same on every device; drawing a whole
    sample's shape at once keeps them the same in every batch (``torch.randn`` takes another
    code path for fewer than 16 numbers, so prefixes of a draw are not stable).

    Args:
        seed: The run's seed.
        purpose: What the numbers are for, such as ``"digits/L0500/geometric"``.
        ids: Unique sample names; row i of every draw belongs to ``ids[i]``.

    Raises:
        UnseenError: If an id occurs twice.
    """

    def __init__(self, seed: int, purpose: str, ids: Sequence[str]) -> None:
        """Seed one generator per id."""
        if len(set(ids)) != len(ids):
            raise UnseenError(f"sample ids of {purpose!r} are not unique; rename the duplicates")
        self.ids = tuple(ids)
        self._generators = []
        for name in self.ids:
            digest = hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()
            # 63 bits: torch takes a signed seed.
            number = int.from_bytes(digest[:8], "big") >> 1
            self._generators.append(torch.Generator().manual_seed(number))

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    def __getitem__(self, rows: slice | Sequence[int]) -> "Streams":
        """Return the streams of some rows; they share their generators with this one."""
        picked = range(len(self))[rows] if isinstance(rows, slice) else rows
        part = Streams.__new__(Streams)
        part.ids = tuple(self.ids[i] for i in picked)
        part._generators = [self._generators[i] for i in picked]
        return part

    def normal(self, *shape: int) -> Tensor:
        """Return standard normals, float64 (n, *shape); every call advances every stream."""
        return self._stack([torch.randn(shape, generator=g, dtype=torch.float64)
                            for g in self._generators], shape, torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniforms on [0, 1), float64 (n, *shape)."""
        return self._stack([torch.rand(shape, generator=g, dtype=torch.float64)
                            for g in self._generators], shape, torch.float64)

    def choose(self, population: int, count: int) -> Tensor:
        """Return ``count`` distinct indices below ``population`` per sample, int64 (n, count).

        Raises:
            UnseenError: If ``count`` exceeds ``population``.
        """
        if count > population:
            raise UnseenError(f"cannot choose {count} of {population} images; give more fit "
                              "images or lower the sampler's number of parents")
        return self._stack([torch.randperm(population, generator=g)[:count]
                            for g in self._generators], (count,), torch.int64)

    @staticmethod
    def _stack(rows: list[Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Stack the rows, of which there may be none."""
        return torch.stack(rows) if rows else torch.empty((0, *shape), dtype=dtype)
