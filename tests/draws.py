"""Seeded numbers that tests of the core draw."""

import torch
from torch import Tensor


def normal(n: int, d: int, seed: int) -> Tensor:
    """Return standard normals, float64 (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)
