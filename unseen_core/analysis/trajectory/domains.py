"""What of a domain's variation lies along the modes of the seen one, and settles above a level."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from unseen_core.analysis.trajectory.emergence import Spectrum
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.references import References
from unseen_core.types import Level

__all__ = ["Content", "Settled", "content"]


class Settled(TypedDict):
    """Shares of a domain's variance at a mixing level; see ``content``."""

    level: Level
    settled: float
    kept: float


class Content(TypedDict):
    """A domain's images in the modes of the seen domain.

    ``energy_inside`` is of deviations from the seen mean, ``variance_inside`` of deviations from
    the domain's own; both are shares along the modes, what is left lies outside.
    """

    images: int
    modes: int
    energy_inside: float
    variance_inside: float
    settled: list[Settled]


def content(
    images: Tensor, spectrum: Spectrum, schedule: Schedule, levels: Sequence[Level]
) -> Content:
    """Describe a domain in the modes of the seen one, as advice for its mixing level.

    Of the domain's variance about its own mean, per level k:

    * ``settled``: the share along modes with λ > sigma_k². These have emerged above k: what
      is drawn there is decided by the start state, not by the network.
    * ``kept``: the mean over the variance of λ / (λ + sigma_k²), with the remainder's λ off the
      span: the share that one look of a Gaussian model at the noised image would recover.

    Images are read block by block.

    Args:
        images: Shape (n, c, h, w) or (n, d) in [-1, 1], or uint8, n >= 2.
        spectrum: Modes of the seen domain.
        schedule: The network's.
        levels: Mixing levels.

    Raises:
        UnseenError: Fewer than two images, or all of them equal.
    """
    x, directions = References.of(images), spectrum.directions
    total, inside = torch.zeros(()).double(), torch.zeros_like(spectrum.variances)
    for _, rows in x.blocks():
        own = rows - x.mean
        total += own.square().sum()
        inside += (own @ directions).square().sum(0)
    if x.count < 2 or total == 0:
        raise UnseenError(f"{x.count} images, or all alike, have no variance; give more images")
    outside = total - inside.sum()
    table: list[Settled] = []
    for level in levels:
        noise = schedule.sigma(level).square()
        remainder = spectrum.remainder
        kept = (inside * spectrum.variances / (spectrum.variances + noise)).sum()
        kept = kept + outside * remainder / (remainder + noise)
        settled = inside[spectrum.variances > noise].sum()
        if remainder > noise:
            settled = settled + outside
        table.append({"level": level, "settled": (settled / total).item(),
                      "kept": (kept / total).item()})
    # Energy about the seen mean is that about the domain's own, and that of the shift n times.
    shift = x.mean - spectrum.mean
    energy = inside.sum() + x.count * (shift @ directions).square().sum()
    energy = energy / (total + x.count * shift.square().sum())
    return {"images": x.count, "modes": len(spectrum.variances), "energy_inside": energy.item(),
            "variance_inside": (inside.sum() / total).item(), "settled": table}
