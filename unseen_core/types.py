"""The protocols that join the parts: a noise predictor, a codec, a feature extractor."""

from typing import Protocol

from torch import Tensor

from unseen_core.schedule import Schedule

__all__ = ["Codec", "EpsModel", "FeatureExtractor", "Level", "Pixels"]

Level = int
"""0 is the clean image; level k >= 1 is network timestep k - 1."""


class EpsModel(Protocol):
    """A frozen network that predicts the noise in a state."""

    schedule: Schedule
    shape: tuple[int, int, int]

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the predicted noise, shape (b, c, h, w), for states ``x`` at ``level``."""
        ...


class Codec(Protocol):
    """Between images and the states that a network works on."""

    def encode(self, images: Tensor) -> Tensor:
        """Return states (b, c, h, w) of float images (b, 3, H, W) in [-1, 1]."""
        ...

    def decode(self, states: Tensor) -> Tensor:
        """Return float images (b, 3, H, W) of states (b, c, h, w), not clipped."""
        ...


class FeatureExtractor(Protocol):
    """A fixed map from images to features; its name becomes part of every metric's name."""

    name: str
    dimension: int

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, dimension) of uint8 images (b, 3, h, w)."""
        ...


class Pixels:
    """The identity: images in [-1, 1] are the states. See ``unseen_core.types.Codec``."""

    def encode(self, images: Tensor) -> Tensor:
        """Return images (b, 3, H, W) as they are."""
        return images

    def decode(self, states: Tensor) -> Tensor:
        """Return states (b, 3, H, W) as they are, not clipped."""
        return states
