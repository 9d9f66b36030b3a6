"""The noise schedule of a network, and the grids of levels along which states are carried."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = ["Prediction", "Schedule", "Spacing"]

Spacing = Literal["karras", "quadratic", "uniform"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
# 7 in the reference. On the embedded network, third order, 12 images that no benchmark shows
# (DDIM on every level: latent 0.0116, round trip 0.0025): of 20 calls straight to level 500 rho = 5
# gave 0.0120 and 0.0032, 5.5 0.0066 and 0.0036, 7 0.0117 and 0.0043. Rounding to whole levels has
# its part in it: a grid that leaves the clean end by 1, 3, 5, 10 is better than by 1, 3, 6, 11.
_RHO = 5.5


@dataclass(frozen=True, eq=False)
class Schedule:
    """Signal and noise at every level of a variance-preserving diffusion.

    A state at level k is ``a x_0 + s noise`` with a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar)
    (Ho et al. 2020, arXiv 2006.11239, eq. 4). Level 0 is the clean image, so that no solver
    needs a special last step; level k >= 1 is network timestep k - 1.

    Attributes:
        alpha_bar: float64 (T + 1,), decreasing from alpha_bar[0] = 1.
        prediction: What the network was trained to predict: the noise, the velocity
            v = a noise - s x_0 (Salimans & Ho 2022, arXiv 2202.00512, appendix D), or the image
            x_0 ("sample").
        rescale_timesteps: The network receives t * 1000 / T instead of t (``rescale_timesteps`` of
            improved-diffusion, Nichol & Dhariwal 2021, arXiv 2102.09672).
    """

    alpha_bar: Tensor
    prediction: Prediction = "epsilon"
    rescale_timesteps: bool = False

    def __post_init__(self) -> None:
        """Refuse a table that is not a schedule."""
        table = self.alpha_bar
        falls = table.ndim == 1 and len(table) > 1 and bool((table.diff() < 0).all())
        if not falls or table[0] != 1 or table[-1] <= 0:
            raise UnseenError("the scheduler's alpha_bar must fall from 1 and stay above 0; "
                              "check beta_start, beta_end and beta_schedule")

    @classmethod
    def linear(
        cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "Schedule":
        """Return the schedule of DDPM (arXiv 2006.11239, section 4)."""
        return cls.from_betas(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))

    @classmethod
    def from_betas(cls, betas: Tensor) -> "Schedule":
        """Return the schedule of betas, float64 (T,), with the clean level in front."""
        clean = torch.ones(1, dtype=torch.float64)
        return cls(torch.cat([clean, (1 - betas).cumprod(0)]))

    @property
    def top(self) -> int:
        """The noisiest level, T."""
        return len(self.alpha_bar) - 1

    def a(self, level: int | Sequence[int]) -> Tensor:
        """Return the signal scale sqrt(alpha_bar), float64, shape of ``level``."""
        return self._at(level).sqrt()

    def s(self, level: int | Sequence[int]) -> Tensor:
        """Return the noise scale sqrt(1 - alpha_bar), float64, shape of ``level``."""
        return (1 - self._at(level)).sqrt()

    def sigma(self, level: int | Sequence[int]) -> Tensor:
        """Return noise over signal, s / a, float64, shape of ``level``."""
        bar = self._at(level)
        return ((1 - bar) / bar).sqrt()

    def noise(self, output: Tensor, x: Tensor, level: int) -> Tensor:
        """Return the noise in states that the output of a network means, by ``prediction``.

        It is a v + s x of a velocity and (x - a x_0) / s of an image, with the a and s of the
        level that the network is told of: a clean image is shown as level 1.

        Args:
            output: What the network predicts for ``x``, of the same shape.
            x: States at ``level``.
        """
        told = max(level, 1)
        a, s = self.a(told).item(), self.s(told).item()
        if self.prediction == "v_prediction":
            return a * output + s * x
        return (x - a * output) / s if self.prediction == "sample" else output

    def target(self, image: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """Return what a network is trained to predict of ``a image + s noise``; see `noise`."""
        if self.prediction == "v_prediction":
            return a * noise - s * image
        return image if self.prediction == "sample" else noise

    def timestep(self, level: int) -> float:
        """Return the network's timestep for a level; a clean image is shown as level 1.

        A whole number, unless timesteps are rescaled.
        """
        index = max(level, 1) - 1
        return index * 1000 / self.top if self.rescale_timesteps else index

    def check_level(self, level: int, name: str = "level") -> None:
        """Raise UnseenError unless 1 <= level <= T."""
        if not 1 <= level <= self.top:
            raise UnseenError(f"{name} {level} is out of range; use 1 to {self.top}")

    def grid(
        self,
        steps: int,
        stop: int,
        *,
        spacing: Spacing = "karras",
        through: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """Return levels 0 = k_0 < ... < k_m = stop along which a solver walks.

        ``"karras"`` spaces sigma as (Karras et al. 2022, arXiv 2206.00364, eq. 5, rho = 5.5) from
        level 1, with the clean level in front; ``"quadratic"`` and ``"uniform"`` space the
        level itself. Rounded levels that coincide are merged, and the spacing is refined until
        ``steps`` intervals remain where the levels allow it.

        Args:
            steps: Network calls from clean to ``stop``, >= 2; fewer where levels run out, and
                more only if ``through`` cannot be met otherwise.
            stop: The last level, 1..T.
            through: Levels below ``stop`` that must be nodes, so that one pass serves several
                mixing levels. The spacing is stretched a little between them: inserting or
                moving single nodes leaves unequal neighbours, over which a multistep rule
                amplifies the network's error (round trip to level 900 six times worse).

        Raises:
            UnseenError: If a level is out of range or ``steps`` is too small.
        """
        self.check_level(stop, "the last level of a grid,")
        needed = len({*through} - {stop}) + 2
        if steps < needed:
            raise UnseenError(f"steps {steps} is too few; use at least {needed}")
        for level in through:
            self.check_level(level, "mixing level")
            if level > stop:
                raise UnseenError(f"mixing level {level} is above the last level {stop}")
        nodes: tuple[int, ...] = ()
        for count in range(steps, 4 * steps):
            finer = self._nodes(count, [*sorted({*through} - {stop}), stop], spacing)
            if nodes and len(finer) - 1 > steps:
                break
            nodes = finer
            if len(nodes) - 1 >= min(steps, stop):
                break
        return nodes

    def _nodes(self, count: int, anchors: list[int], spacing: Spacing) -> tuple[int, ...]:
        """Return the distinct rounded levels of ``count`` intervals, evenly spread between anchors.

        Each stretch between two anchors gets whole intervals in proportion to its length.
        """
        if spacing == "karras":
            table = self.sigma(range(anchors[-1] + 1)) ** (1 / _RHO)
            first, count = 1, count - 1  # clean to level 1 is an interval of its own
        elif spacing in ("quadratic", "uniform"):
            table = torch.arange(anchors[-1] + 1, dtype=torch.float64)
            table, first = (table.sqrt() if spacing == "quadratic" else table), 0
        else:
            raise UnseenError(f"spacing {spacing!r} is not known; use karras, quadratic or uniform")
        edges = [first, *(level for level in anchors if level > first)]
        span = (table[edges[-1]] - table[first]).item()
        nodes, used = {0, *edges}, 0
        for low, high in pairwise(edges):
            share = round(count * (table[high] - table[first]).item() / span)
            # One interval at least for this stretch and for each of those to come.
            end = max(used + 1, min(share, count - sum(level > high for level in edges)))
            wanted = torch.linspace(table[low].item(), table[high].item(), end - used + 1,
                                    dtype=torch.float64)
            nodes |= set((table - wanted[:, None]).abs().argmin(1).tolist())
            used = end
        return tuple(sorted(nodes))

    def _at(self, level: int | Sequence[int]) -> Tensor:
        """Look alpha_bar up."""
        return self.alpha_bar[level if isinstance(level, int) else list(level)]
