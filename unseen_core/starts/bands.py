"""Coarse-to-fine blends: the outline of some images with the details of others."""

from dataclasses import dataclass, replace

from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.frequency import dct, idct, low_mask
from unseen_core.geometry import shell_lengths
from unseen_core.rng import Streams
from unseen_core.starts.parents import Parents, check_eta, dirichlet, keep_inside
from unseen_core.starts.protocol import StartContext, StartStates

__all__ = ["Bands"]

MATCHES = ("whole", "low")
SHELLS = ("none", "parents", "whole", "bands")


@dataclass(frozen=True)
class Bands:
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

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return blends, parents in the order coarse, fine.

        Raises:
            UnseenError: If ``cut`` leaves no high band, there are too few references, or some
                start state finds no accepted candidate.
        """
        judge = context.judge
        low, high = self._split(context, judge.references - judge.mean)
        lengths = [shell_lengths(band) for band in (low, high)]  # the bands' means are 0
        whole = shell_lengths(judge.references)
        looks = low if self.match == "low" else judge.references
        family = Parents.among(looks, self.coarse + self.fine, self.near)

        def propose(active: Streams) -> tuple[Tensor, Tensor]:
            made_of = family.draw(active)
            groups = made_of.split([self.coarse, self.fine], dim=1)
            weights = [dirichlet(active, rows.shape[1], self.alpha) for rows in groups]
            parts = [(w[:, :, None] * band[rows]).sum(1)
                     for w, band, rows in zip(weights, (low, high), groups, strict=True)]
            size_of = active.choose(len(whole), 1)[:, 0]
            if self.shell == "parents":
                parts = [_rescale(part, (w * band[rows].norm(dim=2)).sum(1)) for part, w, band, rows
                         in zip(parts, weights, (low, high), groups, strict=True)]
            if self.shell == "bands":
                parts = [_rescale(part, length[size_of])
                         for part, length in zip(parts, lengths, strict=True)]
            offset = parts[0] + parts[1]
            if self.shell == "whole":
                offset = _rescale(offset, whole[size_of])
            return judge.mean + offset, made_of

        if self.tested:
            states = keep_inside(
                context, streams, propose, parents=self.coarse + self.fine, trials=self.trials,
                name="bands", mend="Use shell: bands or whole, a larger cut, or a larger "
                "fit.coverage")
        else:
            x, parents = propose(streams)
            states = StartStates.untested(x.reshape(-1, *context.shape), context.level, parents)
        return replace(states, eta=self.eta)

    def _split(self, context: StartContext, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Return low and high bands of deviations, float64 (N, d) each."""
        mask = low_mask(*context.shape[1:], self.cut)
        if mask.all():
            raise UnseenError(f"cut {self.cut} leaves no high band in images of "
                              f"{context.shape[1]} x {context.shape[2]}; lower it")
        low = idct(dct(deviation.reshape(-1, *context.shape)) * mask).flatten(1)
        return low, deviation - low


def _rescale(x: Tensor, lengths: Tensor) -> Tensor:
    """Return rows (n, d) scaled to lengths (n,); a row of zeros stays."""
    return x * (lengths / x.norm(dim=1).clamp_min(1e-12))[:, None]
