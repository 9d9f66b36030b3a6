"""CRDI, a rival of this method: noised fit images, guided by what the network gets wrong of them.

*Few-Shot Image Generation by Conditional Relaxing Diffusion Inversion* (Cao & Gong, ECCV 2024,
arXiv 2407.07249): frozen network, few images, no training, as here. With
x_k = a_k x_0 + s_k eps, guidance g changes a step's noise to eps(x, k) - s_k g.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.guided import GuidedEps
from unseen_core.diffusion.transport import Method
from unseen_core.errors import UnseenError
from unseen_core.laws.references import References
from unseen_core.starts.protocol import Needs, StartContext, StartSampler, StartStates
from unseen_core.types import EpsModel, Level

__all__ = ["Crdi", "guidance_of"]

_BATCH = 64
_LAST = 0.25  # share of the start level below which nothing guides: steps 5 of 20 as published
_SCALE = 2.0  # classifier_scale of the published code; it multiplies the perturbation, too
# Guidance by what fixes it: every part of every cell of a level asks for the same.
_KNOWN: WeakKeyDictionary[EpsModel, dict[tuple[object, ...], Tensor]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Crdi(StartSampler):
    """A fit image noised to the level, then DDIM with the guidance of fit images.

    The published code learns, for every image and step, a guidance g (its "sample-wise guidance
    embedding") that makes one DDIM step lead from the noised image back to it. For a frozen
    network both of its losses are quadratic in g, so that the best g has a closed form; it is
    used here in place of 120 epochs of Adam (`guidance_of`). As published, each step of a new
    image takes the guidance of an image drawn at random, perturbed by normal noise that falls to
    0 with the level, and the last quarter of the levels is left to the network alone. The
    published penalty on the spread of g is left out.

    Attributes:
        relax: Strength of the perturbation, ``anneal_scale`` of the published code.
        draws: Noised copies of each image and step that g is measured on, >= 1.
    """

    name: ClassVar[str] = "crdi"
    needs: ClassVar[Needs] = "images"
    label: ClassVar[str] = "CRDI"
    method: ClassVar[Method] = "ddim"
    relax: float = 0.05
    draws: int = 4

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.relax <= 10 or self.draws < 1:
            raise UnseenError(f"relax {self.relax}, draws {self.draws}: use 0 <= relax <= 10, and "
                              "at least 1 draw")

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return noised fit images, each drawn at random."""
        schedule, level, clean = context.schedule, context.level, context.clean
        rows = streams.choose(clean.count, 1)
        noise = streams.normal(*context.shape)
        x = schedule.a(level) * clean.rows(rows[:, 0]).double() + schedule.s(level) * noise
        return StartStates.untested(x, level, rows)

    def guided(
        self, network: EpsModel, starts: StartStates, images: References,
        levels: Sequence[Level], streams: Streams,
    ) -> EpsModel:
        """Return the network with guidance drawn for every state and step."""
        last, found = _LAST * starts.level, {}
        clean = images.rows(range(images.count)).to(starts.x)
        for level, g in guidance_of(network, clean, levels, last=last, draws=self.draws).items():
            picked = g[streams.choose(len(g), 1)[:, 0].to(g.device)]
            noise = streams.normal(*network.shape).to(picked)
            ease = self.relax * (level - last) / (starts.level - last)
            found[level] = picked + _SCALE * ease * noise

        def change(eps: Tensor, x: Tensor, level: Level) -> Tensor:
            if level not in found:
                return eps
            return eps - network.schedule.s(level).item() * found[level].to(eps)

        return GuidedEps(network, change)


def guidance_of(
    network: EpsModel, images: Tensor, levels: Sequence[Level], *, last: float, draws: int
) -> Mapping[Level, Tensor]:
    """Return the guidance that leads from an image, noised, one DDIM step back to it.

    With p the network's guess of the clean image, e its noise, both means over noised copies of
    x_0, and c = s²/a: guidance g makes them p + c g and e - s g, and the step to level l ends at
    a_l (p + c g) + s_l (e - s g). The g that brings the guess to x_0 and the end to a_l x_0, the
    mean of a noised x_0 there, with least squared error is

        g = (c r + d (a_l r - s_l e)) / (c² + d²),  r = x_0 - p,  d = a_l c - s_l s.

    It is measured once for a network, and kept while the network lives.

    Args:
        network: The frozen network.
        images: Clean states (N, c, h, w).
        levels: Increasing grid from 0.
        last: No guidance at levels below.
        draws: Noised copies of each image.

    Returns:
        By level, shape (N, c, h, w).
    """
    known, found = _KNOWN.setdefault(network, {}), {}
    digest = hashlib.sha256(images.cpu().numpy().tobytes()).digest()
    for low, high in pairwise(levels):
        if high < last:
            continue
        key = (low, high, draws, digest)
        if key not in known:
            known[key] = torch.cat([_best(network, part, first, low, high, draws)
                                    for first, part in _parts(images)])
        found[high] = known[key]
    return found


def _parts(images: Tensor) -> list[tuple[int, Tensor]]:
    """Return the images in parts, each with the number of its first one."""
    return [(first, images[first : first + _BATCH]) for first in range(0, len(images), _BATCH)]


@torch.inference_mode()
def _best(
    network: EpsModel, x: Tensor, first: int, low: Level, high: Level, draws: int
) -> Tensor:
    """Return the guidance of some images in the step between two levels."""
    schedule: Schedule = network.schedule
    a, s = schedule.a(high).item(), schedule.s(high).item()
    a_low, s_low = schedule.a(low).item(), schedule.s(low).item()
    streams = Streams(0, f"crdi/{high}", [str(first + i) for i in range(len(x))])
    eps, guess = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(draws):
        noised = a * x + s * streams.normal(*x.shape[1:]).to(x)
        noise = network(noised, high).to(x)
        eps += noise / draws
        guess += (noised - s * noise) / a / draws
    c = s**2 / a
    d = a_low * c - s_low * s
    rest = x - guess
    return (c * rest + d * (a_low * rest - s_low * eps)) / (c**2 + d**2)
