"""Offline, deterministic feature extractors for judging 32 x 32 images.

Every extractor takes uint8 images of any size and brings them to 32 x 32 itself (bilinear,
antialiased), so that features of one extractor can always be compared.
"""

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError
from unseen_core.types import FeatureExtractor

__all__ = [
    "Features32",
    "Features32Net",
    "Pixels",
    "RandomProjections",
    "extract",
    "image_hash",
    "overlap",
    "pixels32",
]

SIZE = 32
FORMAT = "unseen-features32"
TRAINING_IMAGES = "training_images.txt"


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


class Features32Net(nn.Module):
    """A small convolutional network on 32 x 32 images, without normalisation layers.

    Convolutions of 3 x 3 with ReLU: one at full resolution, then two per halving, and a mean
    over space. Normalisation layers of the training are folded in: one that acted per image
    would hide the contrast, which is the very thing that bad samples get wrong.

    Attributes:
        mean, scale: Mean and standard deviation of each pooled feature over the training
            images, shape (widths[-1],).
    """

    def __init__(self, widths: Sequence[int], domains: int, classes: int) -> None:
        """Build the network with random weights.

        Args:
            widths: Channels from full resolution down; the last is the feature dimension.
            domains: Outputs of the domain head, >= 1.
            classes: Outputs of the class head, >= 1.
        """
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1), nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.domain_head = nn.Linear(widths[-1], domains)
        self.class_head = nn.Linear(widths[-1], classes)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(widths[-1]))
        self.register_buffer("scale", torch.ones(widths[-1]))

    def pooled(self, x: Tensor) -> Tensor:
        """Features before standardisation (b, widths[-1]) of float images in [0, 1]."""
        return self.trunk(x * 4 - 2).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features (b, widths[-1]) of float images (b, 3, 32, 32) in [0, 1]."""
        return (self.pooled(x) - self.mean) / self.scale

    def logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Domain and class logits of float images (b, 3, 32, 32) in [0, 1]."""
        pooled = self.pooled(x)
        return self.domain_head(pooled), self.class_head(pooled)


class Features32:
    """Standardised penultimate features of a trained ``Features32Net``."""

    name = "features32"
    hashed = "model.safetensors"  # safetensors run no code, so a hash is a choice

    def __init__(self, network: Features32Net, device: str = "cpu") -> None:
        """Wrap a trained network, moved to ``device``."""
        self.network = network.to(device).eval()
        self.dimension = network.widths[-1]
        self._device = device

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "Features32":
        """Read ``config.json`` and ``model.safetensors``, as written by ``save_extractor``.

        Raises:
            UnseenError: If a file is missing, damaged, or of another architecture.
        """
        fix = "run `python -m flows pretrain` or choose another extractor"
        try:
            config = json.loads((folder / "config.json").read_text())
            state = load_file(folder / "model.safetensors")
        except FileNotFoundError as error:
            raise UnseenError(f"{error.filename or folder}: no such file; {fix}") from error
        except (OSError, ValueError, SafetensorError) as error:
            raise UnseenError(f"{folder}: {error}; {fix}") from error
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise UnseenError(f"{folder / 'config.json'}: format is not {FORMAT}; {fix}")
        try:
            network = Features32Net(config["widths"], config["domains"], config["classes"])
            network.load_state_dict(state)
        except (KeyError, TypeError, IndexError, RuntimeError) as error:
            text = str(error).splitlines()[0]
            raise UnseenError(f"{folder}: weights and config.json disagree ({text}); {fix}") \
                from error
        return cls(network, device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features (b, dimension) of uint8 images (b, 3, h, w)."""
        return self.network(pixels32(images.to(self._device)))


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


def image_hash(image: Tensor) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a uint8 image's bytes, (3, h, w) row-major."""
    if image.dtype != torch.uint8 or image.ndim != 3:
        raise UnseenError(f"image of {image.dtype} and shape {tuple(image.shape)}; "
                          "a hash is taken of uint8 (3, h, w)")
    return hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def overlap(folder: Path, images: Tensor) -> int:
    """Count the images on which the extractor in ``folder`` was trained.

    Args:
        folder: Where ``save_extractor`` wrote it.
        images: uint8, shape (n, 3, h, w), as they were given to the training; or grey.

    Raises:
        UnseenError: If the list of training images is missing.
    """
    path = folder / TRAINING_IMAGES
    if not path.is_file():
        raise UnseenError(f"{path}: no such file, so held-out images cannot be separated from "
                          "training images; run `python -m flows pretrain`")
    known = set(path.read_text().split())
    return sum(image_hash(image) in known for image in with_channels(images, 3))
