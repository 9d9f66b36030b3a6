"""The protocols that join the parts: a noise predictor, a feature extractor."""

from typing import Protocol

from torch import Tensor

from unseen_core.schedule import Schedule

__all__ = ["EpsModel", "FeatureExtractor", "Level"]

Level = int
"""0 is the clean image; level k >= 1 is network timestep k - 1."""


class EpsModel(Protocol):
    """A frozen network that predicts the noise in a state."""

    schedule: Schedule
    shape: tuple[int, int, int]

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the predicted noise, shape (b, c, h, w), for states ``x`` at ``level``."""
        ...


class FeatureExtractor(Protocol):
    """A fixed map from images to features; its name becomes part of every metric's name."""

    name: str
    dimension: int

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, dimension) of uint8 images (b, 3, h, w)."""
        ...
