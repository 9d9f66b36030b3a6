"""The plan of a run: its samplers, and the cells that they make on every model and domain."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from flows.settings.cells import Cell
from flows.settings.params import Params
from flows.settings.sections import Sampler
from unseen_core.errors import UnseenError
from unseen_core.starts import STARTS, StartSampler, build_sampler

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What is drawn, denoised and judged on every model and domain.

    Attributes:
        samplers: By name, in the order of params.yaml.
        cells: A sampler at a level each, in that order.
    """

    samplers: Mapping[str, Sampler]
    cells: tuple[Cell, ...]

    @classmethod
    def of(cls, params: Params) -> "Plan":
        """Return the plan of the parameters, with every sampler checked.

        Raises:
            UnseenError: For an unknown sampler or setting, a prior that ``fit.kinds`` lacks, a
                level that is not inverted to, or a fine-tuned network that is not there or that
                the sampler cannot start.
        """
        plan = cls(params.samplers, tuple(_cells(params)))
        for name, sampler in plan.built.items():
            if sampler.prior not in (None, *params.fit.kinds):
                raise UnseenError(
                    f"samplers.{name}.{sampler.prior_field}: {sampler.prior!r} is not in "
                    f"fit.kinds ({', '.join(params.fit.kinds)})")
        return plan

    @cached_property
    def built(self) -> dict[str, StartSampler]:
        """Every sampler by name, ready to draw."""
        return {name: build_sampler(name, section.settings())
                for name, section in self.samplers.items()}

    @property
    def candidates(self) -> list[Cell]:
        """The cells that ``select`` compares: latent cells of samplers that are `selectable`.

        With the samplers there are, those are ``geometric`` with proposal ``blend``, ``slerp``
        with partner ``reference``, and ``bands``. Left out are ``noise`` and ``prior``, which
        name no parents, ``reconstruction``, which copies, and every sampler that draws of a
        prior: it is fitted to all fit images, so each of them has earned its likeness to the
        draw, as with ``signal-leak`` and ``style-noise``. ``teleport`` knows no fit image, and
        ``boomerang`` varies a single one, as ``reconstruction`` with fresh noise does.
        Pixel-space cells have no level to choose, and what starts a fine-tuned network names no
        parents.
        """
        return [cell for cell in self.cells if self.samplers[cell.sampler].space == "latents"
                and self.built[cell.sampler].selectable]


def _cells(params: Params) -> Iterator[Cell]:
    """Yield the cells in the order of params.yaml; see `Plan.of` for what is refused."""
    tuned = [f"{key}/{steps}" for key, entry in params.finetune.items() for steps in entry.steps]
    for name, sampler in params.samplers.items():
        if sampler.network is not None:
            yield from (Cell(level, name) for level in _own_levels(tuned, name, sampler))
            continue
        if sampler.space == "pixels":
            yield Cell(0, name)
            continue
        levels = params.levels if sampler.levels is None else sampler.levels
        for level in levels:
            if level not in params.levels:
                raise UnseenError(f"samplers.{name}.levels: {level} is not in levels "
                                  f"({', '.join(map(str, params.levels))})")
            yield Cell(level, name)


def _own_levels(tuned: list[str], name: str, sampler: Sampler) -> list[int]:
    """Return the levels at which a sampler starts a fine-tuned network."""
    fit = [key for key, kind in STARTS.items() if kind.from_noise]
    if sampler.sampler not in fit or sampler.space == "pixels":
        raise UnseenError(f"samplers.{name}.network: a fine-tuned network starts from noise; use "
                          f"sampler {' or '.join(fit)}, in latents")
    if sampler.network not in tuned:
        raise UnseenError(f"samplers.{name}.network: {sampler.network!r} is not among the networks "
                          f"of finetune ({', '.join(tuned) or 'none'})")
    if sampler.levels is None:
        raise UnseenError(f"samplers.{name}.levels: name the levels at which {sampler.network} "
                          "starts, such as [1000]")
    return sampler.levels
