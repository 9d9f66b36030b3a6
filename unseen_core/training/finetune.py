"""Fine-tuning on a few images, with white noise or with style noise (Diffusion in Style)."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.denoiser import Precision, plain_norms
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

__all__ = ["FinetuneConfig", "Predict", "finetune", "unet_predict"]

Predict = Callable[[Tensor, Tensor], Tensor]
"""Called with states (b, c, h, w) and network timesteps (b,); returns the network's output, of the
states' shape, through which gradients flow."""


@dataclass(frozen=True)
class FinetuneConfig:
    """What fixes a fine-tuning, apart from network and images.

    ``steps`` optimiser steps of ``batch`` states. The learning rate is warmed up over ``warmup``
    steps, then constant: so the network after n steps of a long training is the one that a
    training of n steps ends with. Gradients are clipped to norm ``clip``.

    The authors of Diffusion in Style do not give their learning rate. The default is the best of
    three on the embedded network, 100 steps on 100 digits, by the kernel distance to held-out
    digits: with style noise 6e-5 gave 0.38, 2e-4 0.33 and 6e-4 0.53; with white noise 2e-4 and
    6e-4 gave 0.26.
    """

    steps: int
    batch: int = 16
    learning_rate: float = 2e-4
    warmup: int = 20
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        whole = {"steps": self.steps, "batch": self.batch, "warmup": self.warmup}
        for name, value in whole.items():
            if value < 1:
                raise UnseenError(f"finetune: {name} {value} is out of range; use 1 or more")
        for name, rate in (("learning_rate", self.learning_rate), ("clip", self.clip)):
            if not 0 < rate < math.inf:
                raise UnseenError(f"finetune: {name} {rate} is out of range; use more than 0")


def finetune(
    predict: Predict,
    parameters: Iterable[nn.Parameter],
    schedule: Schedule,
    states: Tensor,
    noise: Gaussian | None,
    config: FinetuneConfig,
    *,
    each: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train a network further on noised states; its parameters change in place.

    With clean states y and levels drawn uniformly, ``x = a y + s e`` and the loss is the squared
    error of the network's output against ``e``, or against the velocity ``a e - s y`` where it
    predicts that. ``e`` is white, or style noise ``mu + sqrt(v) white`` (Everaert et al. 2023,
    "Diffusion in Style", ICCV): a network trained so starts from N(mu, v) at the noisiest level,
    and knows the layout and the colours that all images share before its first step.

    The result depends on the arguments only: no global random state is read.

    Args:
        predict: The network; see `Predict`.
        parameters: What is trained: those of a copy, if the network is to stay as it is.
        schedule: The network's noise schedule, which says what it predicts.
        states: Clean states, floating, (n, c, h, w) with n >= 1, on the network's device.
        noise: Law of the noise in c h w dimensions, without a factor; None: white.
        config: Length, learning rate, seed.
        each: Called with (step, loss) after each step, from 1; the place for snapshots.

    Returns:
        The loss of every step.

    Raises:
        UnseenError: If the noise does not fit the states, or a loss is not finite.
    """
    _check(states, noise)
    trained = list(parameters)
    # No decay: it would pull towards zero, not towards the weights that training begins with.
    optimiser = torch.optim.AdamW(trained, config.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(config.seed)
    levels = range(1, schedule.top + 1)
    signal, spread = (scale(levels).to(states) for scale in (schedule.a, schedule.s))
    timesteps = torch.tensor([schedule.timestep(level) for level in levels], device=states.device)
    losses: list[float] = []
    for step, rows in zip(range(1, config.steps + 1),
                          _batches(len(states), config.batch, generator), strict=False):
        clean = states[rows.to(states.device)]
        index = _indices(config.batch, schedule.top, generator).to(states.device)
        e = _draw(clean, noise, generator)
        a, s = (table[index][:, None, None, None] for table in (signal, spread))
        target = schedule.target(clean, e, a, s)
        loss = (predict(a * clean + s * e, timesteps[index]) - target).square().mean()
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * min(1.0, step / config.warmup)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, config.clip)
        optimiser.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise UnseenError(f"finetune: the loss became {losses[-1]} at step {step}; lower "
                              "learning_rate")
        if each is not None:
            each(step, losses[-1])
    return losses


def unet_predict(
    network: UNet2DModel, *, label: int | None = None, precision: Precision = "bf16"
) -> Predict:
    """Return a U-Net as `finetune` trains it: gradients on, laid out for convolutions.

    Args:
        network: A network of its own, which is changed; stays in evaluation mode.
        label: The class that a class-conditional network always receives.
        precision: Of the computation; the weights stay float32.
    """
    device = next(network.parameters()).device
    network.requires_grad_(True).to(memory_format=torch.channels_last)
    half = precision == "bf16"
    if device.type == "cpu" and half:
        plain_norms(network, below=64)
    channels = network.config.in_channels
    labels = None if label is None else torch.tensor([label], device=device)

    def predict(x: Tensor, timesteps: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            output = network(x.contiguous(memory_format=torch.channels_last), timesteps,
                             class_labels=None if labels is None else labels.expand(len(x)),
                             return_dict=False)[0]
        return output[:, :channels].float()  # some networks predict a variance beside it

    return predict


def _check(states: Tensor, noise: Gaussian | None) -> None:
    """Refuse states without images, and noise of another dimension or form."""
    if states.ndim != 4 or not len(states) or not states.is_floating_point():
        raise UnseenError(f"finetune: states of {states.dtype} and shape {tuple(states.shape)}; "
                          "give floating ones of shape (n, c, h, w)")
    if noise is not None and (noise.factor.shape[1] or len(noise.mean) != states[0].numel()):
        raise UnseenError(f"finetune: noise of {len(noise.mean)} dimensions and rank "
                          f"{noise.factor.shape[1]}; give one of {states[0].numel()} dimensions "
                          "without a factor")


def _batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield rows without end; each of ``count`` once before any comes again."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def _indices(batch: int, top: int, generator: torch.Generator) -> Tensor:
    """Draw levels, counted from 0: one per stratum, the same mean loss with less variance."""
    u = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    return (u * top).long().clamp(max=top - 1)


def _draw(like: Tensor, noise: Gaussian | None, generator: torch.Generator) -> Tensor:
    """Draw the noise of a batch, in its shape, type and place."""
    white = torch.randn(like.shape, generator=generator).to(like)
    if noise is None:
        return white
    mean, scale = (x.expand(len(noise.mean)).reshape(like.shape[1:]).to(like)
                   for x in (noise.mean, noise.diagonal.sqrt()))
    return mean + scale * white
