"""Between images and the states of a network that works on the images themselves."""

from torch import Tensor

__all__ = ["Pixels"]


class Pixels:
    """The identity: images in [-1, 1] are the states. See ``unseen_core.types.Codec``."""

    def encode(self, images: Tensor) -> Tensor:
        """Return images (b, 3, H, W) as they are."""
        return images

    def decode(self, states: Tensor) -> Tensor:
        """Return states (b, 3, H, W) as they are, not clipped."""
        return states
