"""A Stable Diffusion pipeline on disk as a frozen predictor of noise, and its autoencoder."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.checkpoints.pipeline import load_encoder, load_parts
from unseen_core.errors import UnseenError
from unseen_core.types import Condition, Level

__all__ = ["LatentDiffusion", "Precision", "embed", "load_latent_diffusion"]

Precision = Literal["float32", "bf16", "float16"]
_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "float16": torch.float16}


class LatentDiffusion:
    """A frozen U-Net on an autoencoder's latents: ``Conditional`` and ``Codec`` in one.

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
        prompt: Embedding of the prompt; see ``bound``.
        negative: Embedding of the negative prompt, (1, n, w); for g other than 1, and for
            ``bound(None)``.
        guidance: g, >= 0.
        device: Where it computes; states and images may live there or on the CPU.
        batch: Images per call of either network; longer stacks are cut.

    Raises:
        UnseenError: If guidance or batch is out of range, ``negative`` is missing, or ``prompt``
            does not fit the network.
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
        self.negative = None if negative is None else self._fitting(negative)
        self.prompt: Tensor | None = self._fitting(prompt)
        self._scale = float(vae.config.scaling_factor)
        self._shift = float(vae.config.shift_factor or 0)

    def bound(self, condition: Condition) -> "LatentDiffusion":
        """Return the model under another prompt; see ``unseen_core.types.Conditional``.

        Args:
            condition: Embedding of a prompt, (1, n, w), or of one for each of b states,
                (b, n, w), as ``embed`` returns them; guidance stays. None: the negative prompt
                alone, eps(z, u), without guidance.

        Raises:
            UnseenError: If it is no embedding of the network's width, or None and there is no
                negative prompt.
        """
        if condition is None and self.negative is None:
            raise UnseenError("a latent diffusion model without a prompt answers to its negative "
                              "one; give negative")
        told = copy(self)
        told.prompt = None if condition is None else self._fitting(condition)
        return told

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the guided noise (b, c, h, w), float32, on the device of ``x``.

        Of a network that predicts something else see ``Schedule.noise``; guidance of one is
        guidance of the other.

        Raises:
            UnseenError: If the prompts of another number of states are bound.
        """
        timestep = torch.tensor([self.schedule.timestep(level)], device=self.device)
        parts, prompts = x.split(self.batch), self._prompts(len(x))
        output = torch.cat([self._guided(*part, timestep)
                            for part in zip(parts, prompts, strict=True)])
        return self.schedule.noise(output, x.float(), level)

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

    def _fitting(self, condition: Condition) -> Tensor:
        """Return an embedding as the network reads it, or raise UnseenError."""
        width = self.unet.config.cross_attention_dim
        if not isinstance(condition, Tensor) or condition.ndim != 3 or not len(condition) \
                or condition.shape[2] != width or not condition.is_floating_point():
            found = tuple(condition.shape) if isinstance(condition, Tensor) else condition
            raise UnseenError("a latent diffusion model takes embeddings of prompts, (1, n, "
                              f"{width}) or (b, n, {width}), not {found}; make them with embed")
        return condition.to(self.device, self.unet.dtype)

    def _prompts(self, count: int) -> tuple[Tensor, ...]:
        """Return the embeddings of the prompts of so many states, cut as the states are."""
        prompt = self.negative if self.prompt is None else self.prompt
        if len(prompt) not in (1, count):
            raise UnseenError(f"{len(prompt)} prompts are bound and {count} states were given; "
                              "bind the prompts of each batch, model.bound(prompts[i:j])")
        # Copies: a tensor that only looks so large may take another kernel.
        each = prompt.repeat_interleave(count, 0) if len(prompt) == 1 else prompt
        return each.split(self.batch)

    def _guided(self, x: Tensor, prompts: Tensor, timestep: Tensor) -> Tensor:
        """Return what the network predicts for one batch, guided, on the device of ``x``."""
        plain = self.prompt is None or self.guidance == 1 or self.negative is None
        if not plain:
            prompts = torch.cat([self.negative.repeat_interleave(len(x), 0), prompts])
        states = x.to(self.device, prompts.dtype).repeat(1 if plain else 2, 1, 1, 1)
        output = self.unet(states, timestep, prompts, return_dict=False)[0].to(x.device).float()
        if plain:
            return output
        free, told = output.chunk(2)
        return free + self.guidance * (told - free)


@torch.no_grad()
def embed(folder: Path, prompts: Sequence[str]) -> Tensor:
    """Return embeddings of prompts, float32 (b, n, w), for ``LatentDiffusion.bound``.

    Only the text encoder and the tokenizer of a ``StableDiffusionPipeline`` folder are loaded.

    Args:
        folder: As for `load_latent_diffusion`.
        prompts: One or more; a longer one than the text encoder reads is cut.

    Raises:
        UnseenError: If there is no prompt, or the folder is no such pipeline.
    """
    if not prompts:
        raise UnseenError("no prompt to embed; give one or more")
    encoder = load_encoder(folder)
    # One at a time: the embedding of a prompt does not depend on the others.
    return torch.cat([encoder.encode_prompt(prompt, torch.device("cpu"), 1, False)[0]
                      for prompt in prompts])


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
        negative: What they do not show; matters for guidance other than 1 and ``bound(None)``.
        guidance: As for `LatentDiffusion`.
        device: As there.
        precision: Of the U-Net's weights; ``"bf16"`` or ``"float16"`` for CUDA.
        batch: As there.

    Raises:
        UnseenError: If the folder is not such a pipeline, or guidance is out of range.
    """
    parts = load_parts(folder, _DTYPES[precision])
    pipeline = parts.pipeline
    embedding, other = pipeline.encode_prompt(prompt, torch.device("cpu"), 1, True,
                                              negative_prompt=negative)
    return LatentDiffusion(
        pipeline.unet, pipeline.vae, parts.schedule, prompt=embedding, negative=other,
        guidance=guidance, device=device, batch=batch)
