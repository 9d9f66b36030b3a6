"""One pass along the flow, with everything that the network was shown and answered."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import Method, denoise, invert
from unseen_core.errors import UnseenError
from unseen_core.types import EpsModel, Level

__all__ = ["Trajectory", "clean_of", "closed_form", "record", "record_inversion"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Runs from noise to images, with what the network answered on the way.

    Attributes:
        levels: Level of each state, falling to 0: state n belongs to ``levels[n]``.
        states: Shape (nodes, n, d), on the CPU.
        noise: Predicted noise at every node but the last, shape (nodes - 1, n, d).
        clean: Predicted images at every node, shape (nodes, n, d); the last are the images.
    """

    levels: tuple[Level, ...]
    states: Tensor
    noise: Tensor
    clean: Tensor

    @classmethod
    def of(
        cls, schedule: Schedule, levels: Sequence[Level], states: Tensor, noise: Tensor
    ) -> "Trajectory":
        """Complete states and predicted noise by the predicted images, (x - s eps) / a."""
        a, s = (f(levels[:-1])[:, None, None] for f in (schedule.a, schedule.s))
        clean = ((states[:-1] - s * noise) / a).to(states.dtype)
        return cls(tuple(levels), states, noise, torch.cat([clean, states[-1:]]))


class _Listener:
    """A network that keeps what it was shown and what it answered."""

    def __init__(self, model: EpsModel) -> None:
        """Listen to ``model``."""
        self.schedule, self.shape = model.schedule, model.shape
        self.shown: list[Tensor] = []
        self.answers: list[Tensor] = []
        self._model = model

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """Return the model's answer."""
        answer = self._model(x, level)
        self.shown.append(x.flatten(1).cpu())
        self.answers.append(answer.flatten(1).to(x.dtype).cpu())
        return answer


def record(
    model: EpsModel, x: Tensor, levels: Sequence[Level], *, method: Method = "dpm3m"
) -> Trajectory:
    """Denoise states and keep the whole trajectory.

    Args:
        model: The frozen network.
        x: States at ``levels[-1]``, shape (n, c, h, w).
        levels: Increasing grid from 0, two levels or more, read downwards.
        method: As for ``unseen_core.diffusion.transport.integrate``.

    Returns:
        A trajectory in the precision of ``x``.
    """
    listener = _Listener(model)
    last = denoise(listener, x, levels, method=method).flatten(1).cpu()
    return Trajectory.of(model.schedule, tuple(levels)[::-1],
                         torch.stack([*listener.shown, last]), torch.stack(listener.answers))


def record_inversion(
    model: EpsModel, images: Tensor, levels: Sequence[Level], *, method: Method = "dpm3m"
) -> Tensor:
    """Invert images and return the states as ``record`` orders them, from noise to images.

    Args:
        model: The frozen network.
        images: Shape (n, c, h, w) in [-1, 1].
        levels: Increasing grid from 0.
        method: As for ``unseen_core.diffusion.transport.integrate``.

    Returns:
        Shape (nodes, n, d), on the CPU.
    """
    states = [images.flatten(1).cpu()]
    invert(model, images, levels, method=method,
           observe=lambda level, x: states.append(x.flatten(1).cpu()))
    return torch.stack(states[::-1])


def closed_form(oracle: GaussianEps, x: Tensor, levels: Sequence[Level]) -> Trajectory:
    """Return the exact trajectory of a Gaussian image law from the same start.

    The states are those of ``Gaussian.transport``, the predicted images the posterior mean at
    each of them, a Wiener filter in each mode (Wang & Vastola, arXiv 2303.02490).

    Args:
        oracle: The exact network of the law.
        x: States at ``levels[-1]``, shape (n, c, h, w).
        levels: Increasing grid from 0.

    Returns:
        A trajectory in the precision of ``x``.

    Raises:
        UnseenError: As ``Gaussian.transport``.
    """
    schedule, law, down = oracle.schedule, oracle.law, tuple(levels)[::-1]
    flat = x.flatten(1).cpu()
    states = torch.stack([law.transport(flat, schedule, down[0], level) for level in down])
    noise = [oracle(state.reshape(x.shape), level).flatten(1).to(x.dtype)
             for state, level in zip(states, down[:-1], strict=False)]
    return Trajectory.of(schedule, down, states, torch.stack(noise))


def clean_of(model: EpsModel, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
    """Return predicted noise and predicted images of states, float64 (n, d) each.

    Args:
        model: A noise predictor.
        x: States at ``level``, shape (n, c, h, w).
        level: 1 or higher: at level 0 nothing is predicted.

    Raises:
        UnseenError: If the level is 0.
    """
    if level < 1:
        raise UnseenError("the predicted image of a clean image is itself; ask from level 1 on")
    noise = model(x, level).flatten(1).double().cpu()
    a, s = model.schedule.a(level), model.schedule.s(level)
    return noise, (x.flatten(1).double().cpu() - s * noise) / a
