"""What samplers hand to the solver: start states, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

__all__ = ["StartStates"]


@dataclass(frozen=True, eq=False)
class StartStates:
    """Start states with their provenance.

    Attributes:
        x: float32 (n, c, h, w).
        level: Their level.
        parents: int64 (n, p), rows of the references they were made of; p may be 0.
        proposed: Candidates drawn in all.
        passed: Share of candidates inside each bound of the envelope, by statistic; empty for
            samplers that do not test.
        eta: Share of fresh noise while denoising, 0..1.
    """

    x: Tensor
    level: int
    parents: Tensor
    proposed: int
    passed: Mapping[str, float] = field(default_factory=dict)
    eta: float = 0.0

    @property
    def acceptance(self) -> float:
        """Start states per candidate."""
        return len(self.x) / max(self.proposed, 1)

    def rows(self, rows: slice, device: str = "cpu") -> "StartStates":
        """Return some of the states, on a device; ``proposed`` and ``passed`` stay those of all."""
        return replace(self, x=self.x[rows].to(device), parents=self.parents[rows].to(device))

    @classmethod
    def untested(cls, x: Tensor, level: int, parents: Tensor | None = None) -> "StartStates":
        """Wrap states of a sampler that rejects nothing."""
        none = torch.empty((len(x), 0), dtype=torch.int64)
        return cls(x.float(), level, none if parents is None else parents, len(x))
