"""Draws that have the measured geometry of the domain: this project's own sampler."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.diffusion.guided import GuidedEps
from unseen_core.diffusion.local_score import LocalEps
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import shell_lengths
from unseen_core.laws.references import References
from unseen_core.laws.windows import check_window
from unseen_core.starts.parents import Parents, check_eta, dirichlet, fewest_parents, keep_inside
from unseen_core.starts.protocol import (
    BLEND,
    CORRECTED,
    GAUSSIAN,
    StartContext,
    StartSampler,
    StartStates,
)
from unseen_core.types import EpsModel, Level

__all__ = ["Geometric"]


@dataclass(frozen=True)
class Geometric(StartSampler):
    """Candidates put on the shell of the references and kept by their geometry.

    Inverted images lie on a thin shell about their mean. A candidate's deviation c from the
    mean m is rescaled to a length r drawn from the references' own, z = m + r c / |c|; then it
    must lie in the envelope of the references' radius, distances and angles, or a new
    candidate is drawn. Candidates are drawn, moved and tested in coordinates (``Span``), and
    only those kept are made in full; proposals ``diagonal`` and ``dct``, whose variance differs
    from pixel to pixel, have no such coordinates and are drawn in full.

    A blend of images shows them laid over each other. With ``guide`` w > 0 the network's noise is
    mixed with that of the local score of the blend's own parents, (1 - w) eps + w eps_local:
    where the parents differ, each place goes to the likelier one (``LocalEps``).

    ``proposal: isotropic-reference, shell: false, window: v1`` is the first release of the
    reference implementation.

    Attributes:
        proposal: ``"blend"`` of references, or a kind of prior.
        parents: References in a blend, >= 1.
        near: Parents are drawn among this many nearest neighbours of the first one, which is
            drawn from all; 0 draws all parents from all references.
        alpha: Blend weights are Dirichlet(alpha), 0.05 .. 1e6: 1 is uniform, larger is more even.
        shell: Whether to put candidates on the shell.
        tested: Whether to test candidates against the window.
        window: What accepts a candidate: the calibrated ``"envelope"``, or one of the reference
            implementation's windows (``unseen_core.laws.windows``): ``"v1"``, ``"v2"`` fitted to
            the references, ``"v1-published"``, ``"v2-published"`` for its own model at 256 x 256.
        trials: Candidates per start state before giving up, >= 1.
        eta: Share of fresh noise while denoising, 0..1.
        guide: Weight of the parents' local score while denoising, 0..1; of blends alone.
    """

    name: ClassVar[str] = "geometric"
    prior_field: ClassVar[str] = "proposal"
    proposal: str = "blend"
    parents: int = 2
    near: int = 0
    alpha: float = 1.0
    shell: bool = True
    tested: bool = True
    window: str = "envelope"
    trials: int = 2000
    eta: float = 0.0
    guide: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.parents < 1 or self.near < 0 or self.trials < 1:
            raise UnseenError("parents and trials must be at least 1 and near at least 0")
        if not 0.05 <= self.alpha <= 1e6:
            raise UnseenError(f"alpha {self.alpha} is out of range; use 0.05 to 1e6")
        if self.proposal == "blend" and 0 < self.near < self.parents - 1:
            raise UnseenError(f"near {self.near} is too small for {self.parents} parents; use 0 or "
                              f"at least {self.parents - 1}")
        check_window(self.window)
        check_eta(self.eta)
        if not 0 <= self.guide <= 1:
            raise UnseenError(f"guide {self.guide} is out of range; use 0 to 1")
        if self.guide > 0 and self.proposal != "blend":
            raise UnseenError(f"guide {self.guide}: draws of {self.proposal} have no parents whose "
                              "local score could guide; use proposal: blend, or guide: 0")

    @property
    def fewest(self) -> int:  # type: ignore[override]
        """Those of a blend: its parents, and the first one's neighbours beside it."""
        return fewest_parents(self.parents, self.near) if self.selectable else 1

    @property
    def selectable(self) -> bool:
        """Whether candidates are blends of references."""
        return self.proposal == "blend"

    @property
    def prior(self) -> str | None:
        """The kind of prior that candidates are drawn of; None for blends."""
        return None if self.selectable else self.proposal

    @property
    def label(self) -> str:
        """A blend, or a Gaussian fit with or without geometry."""
        if self.selectable:
            return BLEND
        return CORRECTED if self.shell or self.tested else GAUSSIAN

    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return accepted candidates.

        Raises:
            UnseenError: If some start state finds no accepted candidate; the nearest miss is
                named.
        """
        blend, span = self.selectable, context.span(self.prior)
        inner = context.within(span, self.window)
        lengths = shell_lengths(span.references)
        family = Parents.among(context.references.gram, self.parents, self.near if blend else 0)

        def propose(active: Streams) -> tuple[Tensor, Tensor]:
            judge = inner.judge
            if blend:
                made_of = family.draw(active)
                weights = dirichlet(active, self.parents, self.alpha)
                parents = span.references.rows(made_of.flatten())
                deviation = parents.reshape(*made_of.shape, -1) - judge.mean  # (n, p, r + 1)
                offset = (weights[:, :, None] * deviation).sum(1)
            else:
                made_of = torch.empty((len(active), 0), dtype=torch.int64)
                offset = span.draw(active) - judge.mean
            if self.shell:
                picked = lengths[active.choose(len(lengths), 1)[:, 0]]
                offset = offset * (picked / offset.norm(dim=1).clamp_min(1e-12))[:, None]
            return judge.mean + offset, made_of

        if self.tested:
            kept = keep_inside(
                inner, streams, propose, parents=self.parents if blend else 0, trials=self.trials,
                name="geometric", fix="Use shell: true, another proposal or window, or a larger "
                "fit.coverage")
        else:
            states, made_of = propose(streams)
            kept = StartStates.untested(states, context.level, made_of)
        return replace(kept, x=context.lift(span, kept.x, streams), eta=self.eta)

    def guided(
        self, network: EpsModel, starts: StartStates, images: References,
        levels: Sequence[Level], streams: Streams,
    ) -> EpsModel:
        """Return the network, guided by the local score of each state's parents."""
        if self.guide == 0:
            return network
        parents = images.rows(starts.parents.flatten()).to(starts.x)
        own = parents.reshape(*starts.parents.shape, *network.shape)
        whole = max(5, (max(network.shape[1:]) - 1) | 1)  # at high noise a patch as the image
        local = LocalEps(network.schedule, own, 5, whole)
        return GuidedEps(network, lambda eps, x, level: (
            (1 - self.guide) * eps + self.guide * local(x, level)))
