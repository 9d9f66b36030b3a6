"""What a start-state sampler sees and what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.basics.states import StartStates
from unseen_core.diffusion.transport import Method
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import Law
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.geometry import Envelope, StateJudge
from unseen_core.laws.references import References
from unseen_core.laws.span import Span, Whole, coordinates_of
from unseen_core.laws.windows import reference_window
from unseen_core.types import EpsModel, Level

__all__ = ["BLEND", "CORRECTED", "GAUSSIAN", "KEEPS", "Needs", "StartContext", "StartSampler",
           "StartStates"]

Needs = Literal["images", "latents", "law"]
GAUSSIAN, CORRECTED, BLEND = "Gaussian fit", "Gaussian fit + geometry", "blend"
"""Labels that the findings compare with each other."""
KEEPS = ("nothing", "κ", "√κ", "the fit's mean and variance", "all")
"""What may be left of an image's offset from the seen domain, the least first."""

_LIFTED = 64  # States in full at a time.


@dataclass(frozen=True, eq=False)
class StartContext:
    """Everything a sampler may look at.

    At level 0 the references are the images themselves: the same sampler then works in pixel
    space, with no network, which is the baseline that every latent sampler must beat.

    Attributes:
        schedule: The network's noise schedule.
        level: Level of the start states.
        references: Fit images carried to ``level``, N states (c, h, w).
        priors: Laws fitted to the references, by kind.
        envelope: Bounds of the references' geometry.
        neighbours: References per geometric test (K).
        images: The clean fit images, row by row those of ``references``; samplers ask `clean`.
        source: Law of the clean images that the network has learnt, its remainder one variance;
            samplers ask `learnt`.
    """

    schedule: Schedule
    level: Level
    references: References
    priors: Mapping[str, Law]
    envelope: Envelope
    neighbours: int = 10
    images: References | None = None
    source: Gaussian | None = None

    @cached_property
    def judge(self) -> StateJudge:
        """The references as a judge of new states."""
        return StateJudge.of(self.references, neighbours=self.neighbours)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (c, h, w) of a state."""
        return self.references.shape

    @property
    def clean(self) -> References:
        """The clean fit images; at level 0 they are the references.

        Raises:
            UnseenError: If the context was made without them.
        """
        if self.images is not None:
            return self.images
        if self.level != 0:
            raise UnseenError(f"the start states at level {self.level} need the clean fit images; "
                              "give StartContext.images")
        return self.references

    @property
    def learnt(self) -> Gaussian:
        """The law of the images that the network has learnt.

        Raises:
            UnseenError: If the context was made without it.
        """
        if self.source is None:
            raise UnseenError(f"the start states at level {self.level} need the law of what the "
                              "network has learnt; give StartContext.source")
        return self.source

    def prior(self, kind: str) -> Law:
        """Return the fitted prior of a kind.

        Raises:
            UnseenError: If ``fit`` did not make that kind.
        """
        if kind not in self.priors:
            raise UnseenError(f"prior kind {kind!r} was not fitted; add it to fit.kinds "
                              f"({', '.join(self.priors)})")
        return self.priors[kind]

    def span(self, kind: str | None = None) -> Span | Whole:
        """Return the coordinates of blends of the references and of draws of a prior kind.

        Raises:
            UnseenError: If ``fit`` did not make that kind.
        """
        if kind not in self._spans:
            prior = None if kind is None else self.prior(kind)
            self._spans[kind] = coordinates_of(self.references, prior)
        return self._spans[kind]

    def within(self, span: Span | Whole, window: str = "envelope") -> "StartContext":
        """Return this context with states written in a span's coordinates, to be tested there.

        Args:
            span: Of this context.
            window: One of WINDOWS, the bounds to test against.
        """
        envelope, neighbours = self.envelope, self.neighbours
        if window != "envelope":
            envelope, neighbours = reference_window(window, span.references)
        return replace(self, references=span.references, envelope=envelope, neighbours=neighbours)

    def lift(self, span: Span | Whole, states: Tensor, streams: Streams) -> Tensor:
        """Return states (n, ...) of a span in full, float32 (n, c, h, w)."""
        x = torch.empty(len(states), *self.shape)
        for start in range(0, len(x), _LIFTED):
            rows = slice(start, start + _LIFTED)
            full = span.lift(states[rows].flatten(1).double(), streams[rows])
            x[rows] = full.reshape(-1, *self.shape)
        return x

    @cached_property
    def _spans(self) -> dict[str | None, Span | Whole]:
        """Spans made so far, by prior kind."""
        return {}


class StartSampler(ABC):
    """Draws start states; subclasses are frozen dataclasses whose fields are settings.

    A subclass states its `name`, and of the facts below those that differ from the default. Stages
    and reports read them here; no other file lists samplers.

    Attributes:
        name: What ``sampler:`` in params.yaml calls it.
        needs: What it looks at: the clean fit ``"images"`` alone, so that a folder of pictures is
            enough; the ``"latents"`` and priors fitted to them; or the ``"law"`` of what the
            network has learnt, too.
        fewest: Fit images that it needs at least.
        prior_field: The field that names a kind of fitted prior, see `prior`; None: none does.
        from_noise: Whether it is noise that shows no single fit image. It may then start a
            fine-tuned network, and starts at the last level where no level is given.
        repeats: Whether it gives the fit images back, each once: no more than there are.
        control: Whether its images are a measuring stick and no new images of the domain, so
            that it is never called the best: the seen domain, copies, or a start that must fail.
        summarised: Whether the summary shows its closest level beside the best cell.
        method: The solver that its denoising needs; None: any.
    """

    name: ClassVar[str]
    needs: ClassVar[Needs] = "latents"
    fewest: ClassVar[int] = 1
    prior_field: ClassVar[str | None] = None
    from_noise: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    control: ClassVar[bool] = False
    summarised: ClassVar[bool] = False
    method: ClassVar[Method | None] = None

    @property
    def selectable(self) -> bool:
        """Whether ``select`` may choose it: its start states are functions of the parents that it
        names, which are several, and of noise alone; nothing fitted to all images enters them.

        A weak leak stays: shell, mean and envelope are taken from all fit images, each of which
        has a share of order 1/N in them.
        """
        return False

    @property
    def prior(self) -> str | None:
        """The kind of fitted prior that it draws from; None: from none."""
        return None if self.prior_field is None else str(getattr(self, self.prior_field))

    @property
    def label(self) -> str:
        """What it does, in the findings' table of samplers; empty: nothing is said."""
        return ""

    @property
    def keeps(self) -> str | None:
        """One of KEEPS, by the closed form of a Gaussian domain; None: no closed form is known."""
        return None

    @abstractmethod
    def draw(self, context: StartContext, streams: Streams) -> StartStates:
        """Return ``len(streams)`` start states; row i depends on stream i alone."""
        ...

    def guided(
        self, network: EpsModel, starts: StartStates, images: References,
        levels: Sequence[Level], streams: Streams,
    ) -> EpsModel:
        """Return the network as it is to denoise start states: itself, if nothing guides it.

        Args:
            network: The frozen network.
            starts: As `draw` returned them, or some of their rows.
            images: The clean fit images, as states of the network.
            levels: The increasing grid from 0 that is read downwards.
            streams: For denoising, one per row.
        """
        return network
