"""Offline, deterministic feature extractors for judging 32 x 32 images.

Every extractor takes uint8 images of any size and brings them to 32 x 32 itself (bilinear,
antialiased), so that features of one extractor can always be compared.
"""

import torch
from torch import Tensor
from torch.nn import functional

from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError
from unseen_core.types import FeatureExtractor

__all__ = [
    "Pixels",
    "RandomProjections",
    "extract",
    "pixels32",
]

SIZE = 32


def pixels32(images: Tensor) -> Tensor:
    """Return uint8 images (b, 3, h, w) as float32 in [0, 1] of shape (b, 3, 32, 32).

    Grey ones, (b, 1, h, w), are repeated to three channels, as everywhere in judging.

    Raises:
        UnseenError: If the images are of another type or shape.
    """
    x = with_channels(images, 3).float().div_(255)
    if x.shape[-2:] != (SIZE, SIZE):
        x = functional.interpolate(x, (SIZE, SIZE), mode="bilinear", antialias=True)
    return x


class Pixels:
    """The pixels themselves, flattened, in [0, 1]; dimension 3072."""

    name = "pixels"
    dimension = 3 * SIZE * SIZE

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, 3072) of uint8 images (b, 3, h, w)."""
        return pixels32(images).flatten(1)


class RandomProjections:
    """Features of an untrained network: fixed Gaussian weights, ReLU, pooling, projection.

    64 random 5 x 5 filters at stride 2, ReLU, means over a 4 x 4 grid of cells, then a random
    linear map and tanh. It sees layout and local contrast, and it has learnt from nobody.
    The weights depend on ``dimension`` and ``seed`` only.
    """

    name = "projections"

    def __init__(self, dimension: int = 64, seed: int = 0) -> None:
        """Draw the weights.

        Args:
            dimension: Number of features, >= 1.
            seed: Seed of the weights.

        Raises:
            UnseenError: If ``dimension`` is below 1.
        """
        if dimension < 1:
            raise UnseenError(f"projections: dimension {dimension}; use at least 1")
        self.dimension = dimension
        generator = torch.Generator().manual_seed(seed)
        fan = 3 * 5 * 5
        self._filters = torch.randn(64, 3, 5, 5, generator=generator) * (2 / fan) ** 0.5
        self._offsets = torch.randn(64, generator=generator) * 0.3
        self._matrix = torch.randn(64 * 16, dimension, generator=generator) * 2 / 1024**0.5

    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, dimension), each in (-1, 1), of uint8 images (b, 3, h, w)."""
        x = pixels32(images) * 2 - 1
        filters, offsets = self._filters.to(x.device), self._offsets.to(x.device)
        x = functional.conv2d(x, filters, offsets, stride=2, padding=2)
        x = functional.adaptive_avg_pool2d(x.relu(), 4).flatten(1)
        return (x @ self._matrix.to(x.device)).tanh()


@torch.inference_mode()
def extract(extractor: FeatureExtractor, images: Tensor, batch: int = 64) -> Tensor:
    """Run an extractor over many images; only ``batch`` of them are floats at a time.

    Args:
        extractor: Any feature extractor.
        images: uint8, shape (n, 3, h, w), or (n, 1, h, w) for grey, n >= 1.
        batch: Images at a time, >= 1.

    Returns:
        Features, shape (n, D), float32, on the CPU.

    Raises:
        UnseenError: If there are no images or ``batch`` is below 1.
    """
    if len(images) == 0 or batch < 1:
        raise UnseenError(f"features of {len(images)} images in batches of {batch}; "
                          "both must be at least 1")
    return torch.cat([extractor(part).float().cpu() for part in images.split(batch)])
