"""Carrying states along the deterministic trajectory of a frozen network, both ways."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.types import EpsModel, Level

__all__ = ["METHODS", "Method", "ancestral", "denoise", "integrate", "invert"]

Method = Literal["dpm3m", "dpm2m", "ab2", "ddim"]
METHODS: tuple[Method, ...] = get_args(Method)
# Inserted levels can make consecutive steps very unequal; beyond this ratio a correction of higher
# order amplifies the network's own error more than it removes of the step's.
_MAX_RATIO = 4.0


@torch.inference_mode()
def integrate(
    model: EpsModel,
    x: Tensor,
    levels: Sequence[Level],
    *,
    method: Method = "dpm3m",
    observe: Callable[[Level, Tensor], None] | None = None,
) -> Tensor:
    """Carry ``x`` along the probability-flow ODE of a frozen network.

    With y = x / a the ODE is dy/dsigma = eps(x, level) (Song et al. 2021, arXiv 2010.02502,
    eq. 14). All methods take one network call per interval:

    * ``"ddim"``: its Euler step.
    * ``"ab2"``: two-step Adams-Bashforth on unequal steps in sigma.
    * ``"dpm2m"``, ``"dpm3m"``: eps is the polynomial in log sigma through its last two or three
      values, integrated exactly: multistep rules of second and third order in the manner of
      DPM-Solver (Lu et al. 2022, arXiv 2206.00927). See ``_weights``.

    The first step is an Euler step. Where log sigma is not defined, ``"dpm2m"`` and ``"dpm3m"``
    take the step that follows the clean level as ``"ab2"`` does, and the last one to it as
    ``"ddim"`` does. The state is float64 where the device has it.

    Args:
        x: States at ``levels[0]``, shape (b, c, h, w); images in [-1, 1] at level 0.
        levels: At least two levels; increasing inverts, decreasing denoises.
        observe: Called with (level, states) after each step; states have the dtype of ``x``.

    Returns:
        States at ``levels[-1]``, shape and dtype of ``x``, never clipped.

    Raises:
        UnseenError: If the method is unknown or the levels do not run one way.
    """
    _check(levels, method)
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    scale = model.schedule.a(levels).tolist()
    sigma = model.schedule.sigma(levels).tolist()
    y = x.to(wide) / scale[0]
    slopes: list[Tensor] = []  # at the last three nodes, newest first
    for i in range(len(levels) - 1):
        slopes = [model((y * scale[i]).to(x.dtype), levels[i]).to(wide), *slopes[:2]]
        weights = _weights(method, sigma[max(0, i - 2) : i + 2])
        for weight, slope in zip(weights, slopes, strict=False):
            y = y + weight * slope
        if observe is not None:
            observe(levels[i + 1], (y * scale[i + 1]).to(x.dtype))
    return (y * scale[-1]).to(x.dtype)


def _weights(method: Method, sigma: Sequence[float]) -> tuple[float, ...]:
    """Return the weights of the last slopes, newest first, in the step to the next node.

    With l = -log sigma, h = l_{n+1} - l_n, h_0 = l_n - l_{n-1}, h_1 = l_{n-1} - l_{n-2} and the
    divided differences D_1 = (e_n - e_{n-1}) / h_0, D_2 = (D_1 - (e_{n-1} - e_{n-2}) / h_1) /
    (h_0 + h_1), Newton's polynomial e_n + D_1 u + D_2 u (u + h_0) in u = l - l_n gives
    y_{n+1} - y_n = (sigma_{n+1} - sigma_n) e_n - sigma_n (I_1 D_1 + (I_2 + h_0 I_1) D_2), where
    I_k is the integral of u^k e^-u from 0 to h: I_1 = 1 - e^-h (1 + h) and
    I_2 = 2 - e^-h (h^2 + 2 h + 2).

    Args:
        sigma: Noise of up to three last nodes, oldest first, then of the next one.
    """
    step = sigma[-1] - sigma[-2]
    if method == "ddim" or len(sigma) < 3:
        return (step,)
    if method == "ab2" or sigma[-3] == 0:
        half = step / 2 * max(-_MAX_RATIO, min(_MAX_RATIO, step / (sigma[-2] - sigma[-3])))
        return step + half, -half
    if sigma[-1] == 0:
        return (step,)
    h, h0 = math.log(sigma[-2] / sigma[-1]), math.log(sigma[-3] / sigma[-2])
    linear = sigma[-1] * h + step  # -sigma_n I_1
    third = method == "dpm3m" and len(sigma) == 4 and sigma[0] > 0
    h1 = math.log(sigma[0] / sigma[1]) if third else h0
    if not third or max(h / h0, h0 / h1) > _MAX_RATIO:
        return step + linear / h0, -linear / h0
    square = 2 - math.exp(-h) * (h * h + 2 * h + 2)
    bend = (linear * h0 - sigma[-2] * square) / (h0 + h1)
    near, far = (linear + bend) / h0, bend / h1
    return step + near, -near - far, far


def invert(
    model: EpsModel,
    images: Tensor,
    levels: Sequence[Level],
    *,
    method: Method = "dpm3m",
    observe: Callable[[Level, Tensor], None] | None = None,
) -> Tensor:
    """Carry clean images up an increasing grid that starts at 0; see ``integrate``."""
    if levels[0] != 0:
        raise UnseenError(f"inversion starts at level 0, not {levels[0]}; use Schedule.grid")
    return integrate(model, images, levels, method=method, observe=observe)


def denoise(
    model: EpsModel,
    x: Tensor,
    levels: Sequence[Level],
    *,
    method: Method = "dpm3m",
    observe: Callable[[Level, Tensor], None] | None = None,
) -> Tensor:
    """Carry states at ``levels[-1]`` down the same grid to clean images; see ``integrate``."""
    if levels[0] != 0:
        raise UnseenError(f"denoising ends at level 0, not {levels[0]}; use Schedule.grid")
    if len(levels) == 1:
        return x
    return integrate(model, x, tuple(levels)[::-1], method=method, observe=observe)


@torch.inference_mode()
def ancestral(
    model: EpsModel, x: Tensor, levels: Sequence[Level], *, eta: float, streams: Streams
) -> Tensor:
    """Denoise with fresh noise at each step (arXiv 2010.02502, eq. 12 and 16).

    From level k to l < k: x_l = a_l x0 + sqrt(s_l^2 - c^2) eps + c z, with
    c^2 = eta^2 (s_l^2 / s_k^2) (1 - alpha_bar_k / alpha_bar_l) and z ~ N(0, I). ``eta = 0`` is
    DDIM, ``eta = 1`` the ancestral sampler of DDPM with the small posterior variance.

    Args:
        x: States at ``levels[-1]``, shape (b, c, h, w).
        levels: Increasing grid from 0, read downwards.
        eta: Share of fresh noise, 0..1.
        streams: One per row of ``x``.

    Returns:
        Images, shape and dtype of ``x``, never clipped.

    Raises:
        UnseenError: If eta is out of range, the levels do not fall to 0, or streams are missing.
    """
    down = tuple(levels)[::-1]
    _check(down, "ddim")
    if down[-1] != 0 or not 0 <= eta <= 1:
        raise UnseenError(f"ancestral denoising needs eta in 0..1 (got {eta}) and a grid from 0")
    if len(streams) != len(x):
        # One stream would broadcast, and give every image the same noise.
        raise UnseenError(f"ancestral denoising of {len(x)} states got {len(streams)} streams")
    schedule = model.schedule
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    y = x.to(wide)
    for high, low in pairwise(down):
        bar, bar_low = schedule.alpha_bar[high].item(), schedule.alpha_bar[low].item()
        eps = model(y.to(x.dtype), high).to(wide)
        clean = (y - (1 - bar) ** 0.5 * eps) / bar**0.5
        variance = eta**2 * (1 - bar_low) / (1 - bar) * (1 - bar / bar_low)
        y = bar_low**0.5 * clean + max(0.0, 1 - bar_low - variance) ** 0.5 * eps
        if variance > 0:
            y = y + variance**0.5 * streams.normal(*x.shape[1:]).to(y)
    return y.to(x.dtype)


def _check(levels: Sequence[Level], method: str) -> None:
    """Refuse unknown methods and levels that stand still or turn round."""
    if method not in METHODS:
        raise UnseenError(f"method {method!r} is not known; use one of {', '.join(METHODS)}")
    steps = [b - a for a, b in pairwise(levels)]
    if not steps or not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
        raise UnseenError("a grid needs two or more levels that only rise or only fall")
