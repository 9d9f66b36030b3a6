"""Training of a small DDPM from nothing, resumable, on a laptop or one GPU."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from unseen_core.errors import UnseenError

__all__ = ["DenoiserConfig", "build_network", "train_denoiser"]

_SAVE_EVERY = 250


@dataclass(frozen=True)
class DenoiserConfig:
    """What fixes a trained network, apart from its images.

    ``steps`` optimiser steps of ``batch`` images; learning rate warmed up over ``warmup``
    steps, then cosine to a twentieth; then ``polish`` steps with the loss weighted as in
    ``_loss`` and the rate falling from six tenths. ``ema`` is the decay of the moving average.
    ``mean_weight`` scales the loss on the predicted channel mean at high noise (see
    ``_loss``). ``channels`` are the widths of the U-Net, from full resolution down.
    """

    steps: int
    polish: int
    batch: int
    learning_rate: float
    warmup: int
    ema: float
    mean_weight: float
    channels: tuple[int, ...]
    seed: int


def build_network(config: DenoiserConfig, size: int = 32) -> UNet2DModel:
    """Return an untrained U-Net with self-attention at its lowest resolution only.

    At 32 x 32 with four widths the bottleneck is 4 x 4: attention there gives every pixel a
    global view at a few per cent of what it costs at 8 x 8 on a CPU.
    """
    plain = len(config.channels) - 1
    return UNet2DModel(
        sample_size=size,
        layers_per_block=1,
        block_out_channels=config.channels,
        norm_num_groups=16,
        attention_head_dim=32,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
    )


def train_denoiser(
    images: Callable[[int], Tensor],
    config: DenoiserConfig,
    *,
    scratch: Path,
    device: str = "cpu",
    observe: Callable[[int, float], None] | None = None,
) -> tuple[UNet2DModel, DDPMScheduler, float]:
    """Train a noise-predicting network with the linear DDPM schedule (arXiv 2006.11239, eq. 14).

    Args:
        images: Called with an epoch number; returns uint8 images (n, 3, h, w) for it, with the
            same n >= batch for every epoch.
        scratch: File where the state is saved every 250 steps; an interrupted training goes on
            from it. It is removed by nobody: delete it to start again.
        observe: Called with (step, smoothed loss) after each step.

    Returns:
        The moving average of the network, its scheduler (linear beta 1e-4 to 0.02, T = 1000)
        and the smoothed loss of the last step.

    Raises:
        UnseenError: If ``scratch`` is damaged or belongs to another configuration, or the loss is
            not finite.
    """
    torch.manual_seed(config.seed)
    scheduler = DDPMScheduler()  # its own sampler needs the clipping; ours never reads that
    alpha_bar = scheduler.alphas_cumprod.to(device)
    network = build_network(config).to(device, memory_format=torch.channels_last)
    average = build_network(config).to(device)
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=0.0)
    mark = hashlib.sha256(repr(sorted(asdict(config).items())).encode()).hexdigest()
    step, smooth = 0, math.nan
    if scratch.exists():
        step, smooth = _load(scratch, mark, network, average, optimiser)

    epoch, data, order = -1, images(0), torch.empty(0)
    total = config.steps + config.polish
    while step < total:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        if step * config.batch // len(data) != epoch:
            epoch = step * config.batch // len(data)
            data = images(epoch)
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch))
        first = step * config.batch % len(data)
        rows = order[torch.arange(first, first + config.batch) % len(data)]
        x = data[rows].to(device).float() / 127.5 - 1
        x = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator).to(device) < 0.5,
                        x.flip(-1), x)
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _rate(step, config)
        ceiling = 10.0 if step >= config.steps else 1.0
        loss = _loss(network, x, alpha_bar, config.mean_weight, ceiling, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        value = loss.item()
        if not math.isfinite(value):
            raise UnseenError(f"pretrain: the loss became {value} at step {step}; "
                              "lower pretrain.learning_rate and delete its scratch file")
        smooth = value if math.isnan(smooth) else smooth + 0.01 * (value - smooth)
        if observe is not None:
            observe(step, smooth)
        if step % _SAVE_EVERY == 0 or step == total:
            _save(scratch, mark, step, smooth, network, average, optimiser)
    return average.eval(), scheduler, smooth


def _rate(step: int, config: DenoiserConfig) -> float:
    """Warm up linearly, then fall by a cosine to one twentieth; again, lower, while polishing."""
    polishing = step >= config.steps
    done = (step - config.steps) / config.polish if polishing else step / config.steps
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    if polishing:
        return 0.6 * cosine
    return min(1.0, (step + 1) / config.warmup) * (0.05 + 0.95 * cosine)


def _loss(
    network: UNet2DModel,
    x: Tensor,
    alpha_bar: Tensor,
    mean_weight: float,
    ceiling: float,
    generator: torch.Generator,
) -> Tensor:
    """Squared error of the noise, weighted where the ODE multiplies it.

    An error of the predicted noise moves the predicted image by sigma times as much, up to 157 at
    level T. Two remedies: the squared error is weighted by sigma^2 between 1 and ``ceiling``^2
    (truncated signal-to-noise weighting, Salimans & Ho 2022, arXiv 2202.00512, section 4), without
    which samples from level T keep their noise; and the error of the channel means, one average
    among 1,024 numbers, has a term of its own, without which they are saturated flat colours.
    """
    n = len(x)
    # One draw per stratum of the levels: the same mean loss with less variance.
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    t = (u * len(alpha_bar)).long().to(x.device)
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    a = alpha_bar[t].sqrt()[:, None, None, None]
    s = (1 - alpha_bar[t]).sqrt()[:, None, None, None]
    with torch.autocast(x.device.type, torch.bfloat16):
        noisy = (a * x + s * noise).contiguous(memory_format=torch.channels_last)
        predicted = network(noisy, t, return_dict=False)[0]
    error = predicted.float() - noise
    sigma = (s / a).flatten().clamp(1, 10)
    means = error.mean((2, 3)).square().mean(1)
    squares = error.square().mean((1, 2, 3)) * sigma.clamp(max=ceiling).square()
    return squares.mean() + mean_weight * ((sigma - 1) * means).mean()


def _save(
    path: Path, mark: str, step: int, smooth: float, *parts: nn.Module | torch.optim.Optimizer
) -> None:
    """Write the state of training beside its place, then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"mark": mark, "step": step, "smooth": smooth, "parts": [p.state_dict() for p in parts]}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def _load(
    path: Path, mark: str, *parts: nn.Module | torch.optim.Optimizer
) -> tuple[int, float]:
    """Restore the state of training; return (step, smoothed loss)."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        other = state["mark"] != mark
    except Exception as error:  # a damaged file raises almost every class there is
        raise UnseenError(f"{path} is damaged; delete it to start the training again") from error
    if other:
        raise UnseenError(f"{path} belongs to another pretrain configuration; delete it to go on")
    for part, saved in zip(parts, state["parts"], strict=True):
        part.load_state_dict(saved)
    return state["step"], state["smooth"]
