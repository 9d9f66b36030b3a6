"""Coarse-to-fine blends: the outline of some images with the details of others."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.frequency import dct, idct, low_mask
from unseen_core.laws.geometry import shell_lengths
from unseen_core.laws.references import References
from unseen_core.starts.parents import Parents, check_eta, dirichlet, fewest_parents, keep_inside
from unseen_core.starts.protocol import BLEND, StartContext, StartSampler, StartStates

__all__ = ["Bands"]

MATCHES = ("whole", "low")
SHELLS = ("none", "parents", "whole", "bands")


@dataclass(frozen=True)
class Bands(StartSampler):
    """Low frequencies of one group of references, the rest of another.

    With x the references' deviations from their mean m, L the projection on the cosine waves
    (i, j) with sqrt(i² + j²) < cut, and weights w, v that sum to 1 in each group,
    z = m + L sum_c w_c x_c + (I - L) sum_f v_f x_f, each term or their sum rescaled to the shell.

    Attributes:
        cut: Half waves per image at which the bands part, > 0.
        coarse: Parents of the low band, >= 1.
        fine: Parents of the high band, >= 1; none of them is a parent of the low band.
        near: All parents but the first are drawn among this many nearest neighbours of the first
            one, which is drawn from all; 0 draws all parents from all references.
        match: What nearness is measured on: the ``"whole"`` state, or its ``"low"`` band, so that
            details come from an image with the same outline.
        alpha: Weights in each group are Dirichlet(alpha), 0.05 .. 1e6: larger is more even.
        shell: ``"none"``; ``"parents"`` rescales each band to the mean length of its parents'
            bands, so that blends of several keep their contrast; ``"bands"`` rescales both to
            the lengths they have in one reference drawn at random; ``"whole"`` rescales the
            deviation to a length drawn from the references' own. Where lengths spread widely, a
            drawn one makes a calm image noisy.
        eta: Share of fresh noise while denoising, 0..1.
        tested: Whether to test candidates against the envelope.
        trials: Candidates per start state before giving up; counts only if tested.
    """

    name: ClassVar[str] = "bands"
    selectable: ClassVar[bool] = True
    label: ClassVar[str] = BLEND
    cut: float = 4.0
    coarse: int = 1
    fine: int = 1
    near: int = 8
    match: str = "whole"
    alpha: float = 20.0
    shell: str = "bands"
    eta: float = 0.0
    tested: bool = False
    trials: int = 200

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.coarse < 1 or self.fine < 1 or self.near < 0 or self.trials < 1:
            raise UnseenError("coarse, fine and trials must be at least 1 and near at least 0")
        others = self.coarse + self.fine - 1
        if 0 < self.near < others:
            raise UnseenError(f"near {self.near} is too small for {others + 1} parents; use 0 or "
                              f"at least {others}")
        if not 0.05 <= self.alpha <= 1e6:
            raise UnseenError(f"alpha {self.alpha} is out of range; use 0.05 to 1e6")
        if not self.cut > 0:
            raise UnseenError(f"cut {self.cut} leaves no low band; use a number above 0")
        for name, known in (("match", MATCHES), ("shell", SHELLS)):
            if getattr(self, name) not in known:
                raise UnseenError(f"{name} {getattr(self, name)!r} is not known; use one of "
                                  f"{', '.join(known)}")
        check_eta(self.eta)

    @property
    def fewest(self) -> int:  # type: ignore[override]
        """The parents of both bands, and the first one's neighbours beside it."""
        return fewest_parents(self.coarse + self.fine, self.near)

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return blends, parents in the order coarse, fine.

        Raises:
            UnseenError: If ``cut`` leaves no high band, there are too few references, or some
                start state finds no accepted candidate.
        """
        references, mean = context.references, context.references.mean
        total, mask = references.count, self._mask(context)
        low_gram, norms = self._measure(references, mask)
        lengths = norms * (total / (total - 1))  # to the mean of the others; the bands' own is 0
        whole = shell_lengths(references)
        family = Parents.among(low_gram if self.match == "low" else references.gram,
                               self.coarse + self.fine, self.near)

        def propose(active: Streams) -> tuple[Tensor, Tensor]:
            made_of = family.draw(active)
            groups = made_of.split([self.coarse, self.fine], dim=1)
            weights = [dirichlet(active, rows.shape[1], self.alpha) for rows in groups]
            spread = [w.new_zeros(len(w), total).scatter_(1, rows, w)
                      for w, rows in zip(weights, groups, strict=True)]
            coarse, fine = (references.combine(torch.cat(spread)) - mean).chunk(2)
            parts = [_low(coarse, mask), fine - _low(fine, mask)]
            size_of = active.choose(len(whole), 1)[:, 0]
            if self.shell == "parents":
                parts = [_rescale(part, (w * norm[rows]).sum(1)) for part, w, norm, rows
                         in zip(parts, weights, norms, groups, strict=True)]
            if self.shell == "bands":
                parts = [_rescale(part, length[size_of])
                         for part, length in zip(parts, lengths, strict=True)]
            offset = parts[0] + parts[1]
            if self.shell == "whole":
                offset = _rescale(offset, whole[size_of])
            return mean + offset, made_of

        if self.tested:
            states = keep_inside(
                context, streams, propose, parents=self.coarse + self.fine, trials=self.trials,
                name="bands", fix="Use shell: bands or whole, a larger cut, or a larger "
                "fit.coverage")
        else:
            x, parents = propose(streams)
            states = StartStates.untested(x.reshape(-1, *context.shape), context.level, parents)
        return replace(states, eta=self.eta)

    def _mask(self, context: StartContext) -> Tensor:
        """Return which coefficients make the low band, bool (h, w)."""
        mask = low_mask(*context.shape[1:], self.cut)
        if mask.all():
            raise UnseenError(f"cut {self.cut} leaves no high band in images of "
                              f"{context.shape[1]} x {context.shape[2]}; lower it")
        return mask

    def _measure(self, references: References, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the low bands' inner products (N, N) and both bands' lengths (2, N)."""
        norms = torch.empty(2, references.count, dtype=torch.float64)
        kept = []
        for places, rows in references.blocks():
            waves = dct((rows - references.mean).reshape(-1, *references.shape))
            for norm, band in zip(norms, (mask, ~mask), strict=True):
                norm[places] = waves[..., band].flatten(1).norm(dim=1)
            if self.match == "low":
                kept.append(waves[..., mask].flatten(1))
        low = torch.cat(kept) if kept else norms.new_empty(references.count, 0)
        return low @ low.T, norms


def _low(x: Tensor, mask: Tensor) -> Tensor:
    """Return the low bands of deviations (n, d), whose channels all have one mask."""
    return idct(dct(x.reshape(len(x), -1, *mask.shape)) * mask).flatten(1)


def _rescale(x: Tensor, lengths: Tensor) -> Tensor:
    """Return rows (n, d) scaled to lengths (n,); a row of zeros stays."""
    return x * (lengths / x.norm(dim=1).clamp_min(1e-12))[:, None]
