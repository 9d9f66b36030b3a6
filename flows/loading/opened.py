"""A frozen network with what belongs to it; light to import, unlike the network itself."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unseen_core.basics.images import to_float
from unseen_core.laws.references import References
from unseen_core.types import Codec

if TYPE_CHECKING:  # diffusers takes seconds to import
    from unseen_core.diffusion.denoiser import UNetEps
    from unseen_core.diffusion.latent_diffusion import LatentDiffusion

__all__ = ["Opened"]


@dataclass(frozen=True, eq=False)
class Opened:
    """A frozen network, ready to use.

    Attributes:
        network: Predicts the noise in its states.
        codec: Between images and its states.
        weights: SHA-256 of everything that decides what it computes, prompts and guidance apart.
        name: The model's name, or that of the pipeline's folder.
        size: Side of its images.
        channels: Of its images, 1 or 3.
        batch: Images per call.
    """

    network: "UNetEps | LatentDiffusion"
    codec: Codec
    weights: str
    name: str
    size: int
    channels: int
    batch: int

    def states_of(self, images: Tensor) -> References:
        """Return clean images, uint8 (n, c, h, w), as states; encoded when first asked for."""
        @cache
        def states() -> Tensor:
            return torch.cat([self.codec.encode(to_float(part).to(self.network.device)).cpu()
                              for part in images.split(self.batch)])

        return References(len(images), self.network.shape, lambda rows: states()[rows])
