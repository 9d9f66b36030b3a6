"""Fine-tuning of a latent diffusion model on a few images (Diffusion in Style)."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from unseen_core.basics.images import to_float
from unseen_core.diffusion.latent_diffusion import LatentDiffusion
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts.prior import style_law
from unseen_core.training.finetune import FinetuneConfig, finetune

__all__ = ["Tuned", "finetune_latent"]


@dataclass(frozen=True, eq=False)
class Tuned:
    """A network after fine-tuning.

    Attributes:
        unet: In evaluation mode, float32.
        noise: Law of the states that it starts from at level T; None: N(0, I).
        losses: Of every step.
    """

    unet: UNet2DConditionModel
    noise: Gaussian | None
    losses: list[float]


def finetune_latent(
    model: LatentDiffusion,
    images: Tensor,
    config: FinetuneConfig,
    *,
    style: bool,
    each: Callable[[int, float], None] | None = None,
) -> Tuned:
    """Train a copy of a latent diffusion model's U-Net on images under the model's prompt.

    With ``style`` the noise is that of the images' latents: element-wise mean and variance
    (Everaert et al. 2023, "Diffusion in Style", ICCV); otherwise white. Sampling from it begins
    at level T with the same noise, at full strength, and takes no fresh one (eta = 0).

    Args:
        model: Stays as it is; float32. Only its prompt counts, not its guidance.
        images: uint8 (n, 3, size, size); n >= 2 for style noise.
        config: Length, batch, learning rate, seed.
        style: Whether the noise is the images' own.
        each: Called with (step, loss) after each step.

    Raises:
        UnseenError: If the network is not float32 or not under one prompt, images do not fit it,
            or a loss is not finite.
    """
    if model.prompt is None or len(model.prompt) != 1:
        raise UnseenError("fine-tuning needs one prompt for all images; bind one")
    if model.unet.dtype != torch.float32:
        raise UnseenError(f"fine-tuning needs weights in float32, not {model.unet.dtype}; load the "
                          "pipeline so")
    with torch.no_grad():
        states = torch.cat([model.encode(to_float(part)) for part in images.split(model.batch)])
    noise = style_law(References.of(states)) if style else None
    unet = deepcopy(model.unet).requires_grad_(True)
    prompt = model.prompt
    kind = torch.device(model.device).type

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            output = unet(x, timesteps, prompt.expand(len(x), -1, -1), return_dict=False)[0]
        return output.float()

    losses = finetune(predict, unet.parameters(), model.schedule, states.to(model.device), noise,
                      config, each=each)
    return Tuned(unet.requires_grad_(False).eval(), noise, losses)
