"""The protocols that join the parts: a noise predictor, its condition, a codec, an extractor."""

from typing import Protocol

from torch import Tensor

from unseen_core.basics.schedule import Schedule

__all__ = ["Codec", "Condition", "Conditional", "EpsModel", "FeatureExtractor", "Level", "Pixels"]

Level = int
"""0 is the clean image; level k >= 1 is network timestep k - 1."""

Condition = int | Tensor | None
"""What a network is told beside the state: a class, classes, a text embedding, or nothing.

* int: one class for every state;
* int64 tensor (b,): a class for each of b states;
* floating tensor (1, n, w) or (b, n, w): a text embedding of n tokens of width w, one for every
  state or one for each of b states;
* None: unconditional.
"""


class EpsModel(Protocol):
    """A frozen network that predicts the noise in a state."""

    schedule: Schedule
    shape: tuple[int, int, int]

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the predicted noise, shape (b, c, h, w), for states ``x`` at ``level``."""
        ...


class Conditional(EpsModel, Protocol):
    """A network that takes a condition: eps(x, level, condition), one condition at a time.

    Solvers, inversion and samplers know ``EpsModel`` alone, so a condition is bound first.
    """

    def bound(self, condition: Condition) -> EpsModel:
        """Return the same network under a condition; its weights are shared, not copied.

        A condition that is bound before is replaced. A condition for each of b states fits calls
        with b states and no others: code that cuts states into parts or batches cuts the
        conditions with them and binds each part, ``model.bound(classes[i:j])``, which is cheap.

        Raises:
            UnseenError: If the network does not take such a condition, or a class is out of
                range. The returned model raises it for another number of states.
        """
        ...


class Codec(Protocol):
    """Between images and the states that a network works on."""

    def encode(self, images: Tensor) -> Tensor:
        """Return states (b, c, h, w) of float images (b, C, H, W) in [-1, 1], C 1 or 3."""
        ...

    def decode(self, states: Tensor) -> Tensor:
        """Return float images (b, C, H, W) of states (b, c, h, w), not clipped."""
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
        """Return images (b, C, H, W) as they are."""
        return images

    def decode(self, states: Tensor) -> Tensor:
        """Return states (b, C, H, W) as they are, not clipped."""
        return states
