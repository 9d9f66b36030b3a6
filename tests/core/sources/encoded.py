"""Encoded pictures and a small configuration, for the tests of the sources."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unseen_core.sources import SourceConfig


def noise(seed: int, *shape: int) -> np.ndarray:
    """Return uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(seed: int) -> bytes:
    """Return a 16×16 PNG of noise."""
    buffer = io.BytesIO()
    Image.fromarray(noise(seed, 16, 16, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def config(path: Path, kind: str, pages: str = "first") -> SourceConfig:
    """Return a small configuration that reads ``path``."""
    return SourceConfig(kind=kind, domain="mine", path=str(path), size=16, max_pixels=10_000,
                        pages=pages)


def folder_ids(root: Path, pictures: list[bytes]) -> tuple[str, ...]:
    """Return the ids that pictures get as the files of a folder, in their order."""
    from unseen_core import sources

    root.mkdir()
    for row, data in enumerate(pictures):
        (root / f"{row:03d}.png").write_bytes(data)
    return sources.load(config(root, "folder")).ids
