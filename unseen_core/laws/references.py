"""Inverted images of one level, read in blocks: never the whole set as floats in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from unseen_core.basics.images import to_float
from unseen_core.errors import UnseenError
from unseen_core.store.tensors import TensorStore
from unseen_core.types import Level

__all__ = ["References"]

_BLOCK = 2**27  # Bytes of float64 rows at a time: 85 images of 3 x 256 x 256.


class References:
    """N states of one level, behind rows that are read when they are needed.

    Geometry and most priors need their inner products alone, which are computed once; sums of
    them are streamed. Sets that fit into one block are kept.

    Args:
        count: N.
        shape: Shape of one state.
        read: Returns the rows at given places, floating, (n, *shape).
        gram: Their inner products, float64 (N, N), where they are known.
        block: Bytes of float64 rows at a time.

    Raises:
        UnseenError: ``gram`` is not (N, N).
    """

    def __init__(
        self,
        count: int,
        shape: Sequence[int],
        read: Callable[[list[int]], Tensor],
        gram: Tensor | None = None,
        block: int = _BLOCK,
    ) -> None:
        """Keep how rows are read; nothing is read yet."""
        if gram is not None and gram.shape != (count, count):
            raise UnseenError(f"inner products {tuple(gram.shape)} do not belong to {count} "
                              "inverted images; run fit again")
        self.count = count
        self.shape = tuple(shape)
        self._read = read
        self._gram = gram
        self._step = max(1, block // (8 * self.dimension))
        self._kept: Tensor | None = None

    @classmethod
    def of(
        cls, states: Tensor | References, gram: Tensor | None = None, block: int = _BLOCK
    ) -> References:
        """Return references over a tensor (N, ...), or those given.

        Bytes stay bytes: uint8 images become floats in [-1, 1] block by block.

        Args:
            states: Floating, or uint8; or references, which are returned as they are.
            gram: As above; for a tensor.
            block: As above; for a tensor.
        """
        if isinstance(states, References):
            return states

        def read(rows: list[int]) -> Tensor:
            picked = states[rows]
            return to_float(picked) if picked.dtype == torch.uint8 else picked

        return cls(len(states), states.shape[1:], read, gram, block)

    @classmethod
    def stored(
        cls, store: TensorStore, level: Level, gram: Tensor | None = None, block: int = _BLOCK
    ) -> References:
        """Return references over a level of a store, read from its files.

        Args:
            store: An open store.
            level: One of its levels.
            gram: As above.
            block: As above.
        """
        return cls(len(store.ids), store.shape,
                   lambda rows: store.rows(level, [store.ids[row] for row in rows]), gram, block)

    @property
    def dimension(self) -> int:
        """Numbers in one state, d."""
        return torch.Size(self.shape).numel()

    def rows(self, places: Tensor | Sequence[int]) -> Tensor:
        """Return the states at ``places``, in that order, floating, (n, *shape)."""
        return self._read(places.tolist() if isinstance(places, Tensor) else list(places))

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield places and rows, float64 (n, d), of one block after another."""
        for start in range(0, self.count, self._step):
            yield self._block(start)

    @cached_property
    def mean(self) -> Tensor:
        """The mean state, float64 (d,)."""
        return self.combine(torch.full((1, self.count), 1 / self.count, dtype=torch.float64))[0]

    @property
    def gram(self) -> Tensor:
        """Inner products of the states, float64 (N, N), from pairs of blocks."""
        if self._gram is None:
            gram = torch.empty(self.count, self.count, dtype=torch.float64)
            for places, rows in self.blocks():
                for start in range(places.start, self.count, self._step):
                    others, columns = (places, rows) if start == places.start else (
                        self._block(start))
                    product = rows @ columns.T
                    gram[others, places], gram[places, others] = product.T, product
            self._gram = gram
        return self._gram

    def products(self, x: Tensor) -> Tensor:
        """Return inner products of states ``x``, float64 (n, d), with these, float64 (n, N)."""
        found = x.new_empty(len(x), self.count)
        for places, rows in self.blocks():
            found[:, places] = x @ rows.T
        return found

    def combine(self, weights: Tensor) -> Tensor:
        """Return weighted sums of the states, float64 (n, d), for weights float64 (n, N)."""
        total = weights.new_zeros(len(weights), self.dimension)
        for places, rows in self.blocks():
            total.addmm_(weights[:, places], rows)
        return total

    def _block(self, start: int) -> tuple[slice, Tensor]:
        """Return places and rows of the block that begins at ``start``; a single one is kept."""
        places = slice(start, min(start + self._step, self.count))
        if self._kept is not None:
            return places, self._kept
        rows = self._read(list(range(places.start, places.stop))).flatten(1).double()
        if len(rows) == self.count:
            self._kept = rows
        return places, rows
