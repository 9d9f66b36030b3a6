"""A Stable Diffusion pipeline on disk as a frozen predictor of noise, and its autoencoder."""

from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from unseen_core.checkpoints.pipeline import load_parts
from unseen_core.errors import UnseenError
from unseen_core.schedule import Schedule
from unseen_core.types import Level

__all__ = ["LatentDiffusion", "Precision", "load_latent_diffusion"]

Precision = Literal["float32", "bf16", "float16"]
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}


class LatentDiffusion:
    """A frozen U-Net on an autoencoder's latents: ``EpsModel`` and ``Codec`` in one.

    The network works on z = (E(x) - shift) scale of images x in [-1, 1], E the mean of the
    autoencoder's posterior, scale its ``scaling_factor`` (Rombach et al. 2022, arXiv 2112.10752,
    section 4.3.2). With a prompt's embedding c, that of the negative prompt u and guidance g the
    noise is eps(z, u) + g (eps(z, c) - eps(z, u)) (Ho & Salimans 2022, arXiv 2207.12598, eq. 6 with
    g = w + 1), in one call of 2b states; g = 1 is eps(z, c), in one call of b.

    With g > 1 the noise is no longer that of the law which the network has learnt: inversion
    followed by denoising drifts far more for the same number of steps, and what closed forms say
    of a start state does not hold. Use g = 1 where exactness matters.

    Args:
        unet: Predicts noise or velocity, as the schedule says; frozen here. States keep their own
            precision, whatever its weights have.
        vae: Autoencoder, float32, since it decides start states; frozen here.
        schedule: The network's noise schedule.
        prompt: Embedding of the prompt, (1, n, w).
        negative: Embedding of the negative prompt, (1, n, w); for g other than 1.
        guidance: g, >= 0.
        device: Where it computes; states and images may live there or on the CPU.
        batch: Images per call of either network; longer stacks are cut.

    Raises:
        UnseenError: If guidance or batch is out of range, or ``negative`` is missing.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        schedule: Schedule,
        *,
        prompt: Tensor,
        negative: Tensor | None = None,
        guidance: float = 1.0,
        device: str = "cpu",
        batch: int = 8,
    ) -> None:
        """Freeze both networks and take them to their device."""
        if not guidance >= 0 or batch < 1:
            raise UnseenError(f"guidance {guidance} and batch {batch} are out of range; use 0 or "
                              "more, and 1 or more")
        if guidance != 1 and negative is None:
            raise UnseenError(f"guidance {guidance} needs the embedding of a negative prompt")
        self.schedule = schedule
        side = unet.config.sample_size
        self.shape = (unet.config.in_channels, side, side)
        self.size = side * 2 ** (len(vae.config.block_out_channels) - 1)
        self.device, self.guidance, self.batch = device, guidance, batch
        self.unet = unet.eval().requires_grad_(False).to(device)
        self.vae = vae.eval().requires_grad_(False).to(device)
        guided = [prompt] if guidance == 1 or negative is None else [negative, prompt]
        self.prompts = torch.cat(guided).to(device, unet.dtype)
        self._scale = float(vae.config.scaling_factor)
        self._shift = float(vae.config.shift_factor or 0)

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the guided noise (b, c, h, w), float32, on the device of ``x``.

        From a velocity the noise is a v + s x, with the a and s of the level that the network is
        told of; guidance of one is guidance of the other.
        """
        timestep = torch.tensor([self.schedule.timestep(level)], device=self.device)
        output = torch.cat([self._guided(part, timestep) for part in x.split(self.batch)])
        if self.schedule.prediction == "epsilon":
            return output
        told = max(level, 1)
        return self.schedule.a(told).item() * output + self.schedule.s(told).item() * x.float()

    def encode(self, images: Tensor) -> Tensor:
        """Return latents (b, c, h, w), float32, on the device of ``images``.

        Args:
            images: Floating, (b, 3, size, size), in [-1, 1].

        Raises:
            UnseenError: If the images have another size than the network works on.
        """
        if images.shape[1:] != (3, self.size, self.size):
            raise UnseenError(f"images of shape {tuple(images.shape[1:])} do not fit the pipeline; "
                              f"give 3 x {self.size} x {self.size}")
        means = [self.vae.encode(part.to(self.device, torch.float32)).latent_dist.mode()
                 for part in images.split(self.batch)]
        return ((torch.cat(means) - self._shift) * self._scale).to(images.device)

    def decode(self, states: Tensor) -> Tensor:
        """Return images (b, 3, size, size), float32, not clipped, on the device of ``states``."""
        images = []
        for part in states.split(self.batch):
            latents = part.to(self.device, torch.float32) / self._scale + self._shift
            images.append(self.vae.decode(latents, return_dict=False)[0])
        return torch.cat(images).to(states.device)

    def _guided(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Return what the network predicts for one batch, guided, on the device of ``x``."""
        count = len(self.prompts)
        states = x.to(self.device, self.prompts.dtype).repeat(count, 1, 1, 1)
        output = self.unet(states, timestep, self.prompts.repeat_interleave(len(x), 0),
                           return_dict=False)[0].to(x.device).float()
        if count == 1:
            return output
        free, told = output.chunk(2)
        return free + self.guidance * (told - free)


@torch.no_grad()
def load_latent_diffusion(
    folder: Path,
    *,
    prompt: str = "",
    negative: str = "",
    guidance: float = 1.0,
    device: str = "cpu",
    precision: Precision = "float32",
    batch: int = 8,
) -> LatentDiffusion:
    """Load a ``StableDiffusionPipeline`` folder and encode its prompts, once.

    Read are ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` (safetensors alone) and
    ``scheduler``; a safety checker is not. The text encoder is given up after the prompts.

    Args:
        folder: As diffusers saves it; Stable Diffusion 1 and 2 and what was tuned from them.
        prompt: What the images show; a longer one than the text encoder reads is cut.
        negative: What they do not show; matters for guidance other than 1.
        guidance: As for `LatentDiffusion`.
        device: As there.
        precision: Of the U-Net's weights; ``"bf16"`` or ``"float16"`` for CUDA.
        batch: As there.

    Raises:
        UnseenError: If the folder is not such a pipeline, or guidance is out of range.
    """
    parts = load_parts(folder, _DTYPES[precision])
    pipeline = parts.pipeline
    embedding, other = pipeline.encode_prompt(prompt, torch.device("cpu"), 1, guidance != 1,
                                              negative_prompt=negative)
    return LatentDiffusion(
        pipeline.unet, pipeline.vae, parts.schedule, prompt=embedding, negative=other,
        guidance=guidance, device=device, batch=batch)
