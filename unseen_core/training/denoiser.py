"""Training of a small DDPM from nothing, resumable, on a laptop or one GPU."""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from unseen_core.errors import UnseenError
from unseen_core.store import write_bytes

__all__ = ["DenoiserConfig", "build_network", "train_denoiser"]

_SAVE_EVERY = 250


@dataclass(frozen=True)
class DenoiserConfig:
    """What fixes a trained network, apart from its images.

    ``steps`` optimiser steps of ``batch`` images; learning rate warmed up over ``warmup``
    steps, then cosine to a hundredth. ``ema`` is the decay of the moving average. ``channels``
    are the widths of the U-Net, from full resolution down.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int
    ema: float
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
    start: nn.Module | None = None,
    device: str = "cpu",
    observe: Callable[[int, float], None] | None = None,
) -> tuple[UNet2DModel, DDPMScheduler, float]:
    """Train a velocity-predicting network with the linear DDPM schedule; see ``_loss``.

    Args:
        images: Called with an epoch number; returns uint8 images (n, 3, h, w) for it, with the
            same n >= batch for every epoch.
        scratch: File where the state is saved every 250 steps; an interrupted training goes on
            from it. It is removed by nobody: delete it to start again.
        start: A network of this architecture whose weights the training begins with, as an
            earlier training left them; None: random ones.
        observe: Called with (step, smoothed loss) after each step.

    Returns:
        The moving average of the network, its scheduler (linear beta 1e-4 to 0.02, T = 1000,
        v prediction) and the smoothed loss of the last step.

    Raises:
        UnseenError: If ``scratch`` is damaged or belongs to another configuration, ``start`` is
            of another architecture, or the loss is not finite.
    """
    torch.manual_seed(config.seed)
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    alpha_bar = scheduler.alphas_cumprod.to(device)
    epoch, data, order = -1, images(0), torch.empty(0)
    size = data.shape[-1]
    # On a CPU the plain layout trains 1.2 times faster: torch's normalisation is slow in the other.
    layout = torch.contiguous_format if device == "cpu" else torch.channels_last
    network = build_network(config, size).to(device, memory_format=layout)
    average = build_network(config, size).to(device)
    if start is not None:
        try:
            network.load_state_dict(start.state_dict())
        except RuntimeError as error:
            raise UnseenError("pretrain.start: a network of other channels; give "
                              "pretrain.channels its own, or start: null") from error
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=0.0)
    mark = hashlib.sha256(repr(sorted(asdict(config).items())).encode()).hexdigest()
    step, smooth = 0, math.nan
    if scratch.exists():
        step, smooth = _load(scratch, mark, network, average, optimiser)

    while step < config.steps:
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
        loss = _loss(network, x.contiguous(memory_format=layout), alpha_bar, generator)
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
        if step % _SAVE_EVERY == 0 or step == config.steps:
            _save(scratch, mark, step, smooth, network, average, optimiser)
    return average.eval(), scheduler, smooth


def _rate(step: int, config: DenoiserConfig) -> float:
    """Warm up linearly, then fall by a cosine to one hundredth."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return min(1.0, (step + 1) / config.warmup) * (0.01 + 0.99 * cosine)


def _loss(network: UNet2DModel, x: Tensor, alpha_bar: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of the velocity v = a noise - s x_0 (arXiv 2202.00512, section 4, "SNR + 1").

    The noise is then a v + s x_t, off by only ``a`` times the network's error. A network that
    predicts the noise itself has its error multiplied by sigma in the image that it predicts, up
    to 157 at level T, and group normalisation hides from it how strong a sample's noise is: one
    of this size left noise in a third of its samples by the ODE.
    """
    n = len(x)
    # One draw per stratum of the levels: the same mean loss with less variance.
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    t = (u * len(alpha_bar)).long().to(x.device)
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    a = alpha_bar[t].sqrt()[:, None, None, None]
    s = (1 - alpha_bar[t]).sqrt()[:, None, None, None]
    with torch.autocast(x.device.type, torch.bfloat16):
        predicted = network(a * x + s * noise, t, return_dict=False)[0]
    return (predicted.float() - (a * noise - s * x)).square().mean()


def _save(
    path: Path, mark: str, step: int, smooth: float, *parts: nn.Module | torch.optim.Optimizer
) -> None:
    """Write the state of training, whole or not at all."""
    state = {"mark": mark, "step": step, "smooth": smooth, "parts": [p.state_dict() for p in parts]}
    content = io.BytesIO()  # on a full disk torch would say something else
    torch.save(state, content)
    write_bytes(path, content.getbuffer())


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
        raise UnseenError(f"{path} belongs to another pretrain configuration; delete it first")
    for part, saved in zip(parts, state["parts"], strict=True):
        part.load_state_dict(saved)
    return state["step"], state["smooth"]
