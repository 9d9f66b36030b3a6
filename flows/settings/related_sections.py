"""The sections of params.yaml for the related works: types and ranges."""

from typing import Annotated, Literal

from pydantic import Field

from flows.settings.sections import Count, Counts, Name, Names, Section

__all__ = ["Applications", "Finetune", "Steer", "Trajectory"]

Fraction = Annotated[float, Field(ge=0, le=1)]


class Anonymise(Section):
    """Which images are anonymised, and by how much of the noising process."""

    domains: Names
    fractions: list[Fraction] = Field(min_length=1)
    images: Annotated[int, Field(ge=10)]


class Augment(Section):
    """A labelled domain, how few labels a class, and what is compared over how many seeds."""

    labelled: Name
    labels: Count
    copies: Count
    fractions: list[Fraction] = Field(min_length=1)
    seeds: Annotated[int, Field(ge=2)]
    steps: Count


class Enhance(Section):
    """Which images are made small and enhanced again."""

    domains: Names
    factors: list[Annotated[int, Field(ge=2, le=8)]] = Field(min_length=1)
    fractions: list[Fraction] = Field(min_length=1)
    passes: Counts
    images: Annotated[int, Field(ge=10)]


class Applications(Section):
    """Boomerang's three applications on domains of the pipeline."""

    eta: Annotated[float, Field(ge=0, le=1)]
    anonymise: Anonymise
    augment: Augment
    enhance: Enhance


class Finetune(Section):
    """A copy of the network trained further: with which noise, on how many fit images, how long.

    ``steps`` lists the numbers of optimiser steps after which a network is kept, of one training.
    ``images`` are the first fit images; more than there are means all. See
    ``unseen_core.training.finetune.FinetuneConfig`` for the rest.
    """

    noise: Literal["style", "white"]
    images: Annotated[int, Field(ge=2)]
    steps: Counts
    batch: Count
    learning_rate: Annotated[float, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)]


class Trajectory(Section):
    """Runs whose every state is looked at, images carried up, and states that are perturbed.

    ``levels`` are those of the perturbations, of length ``kick``, along ``modes`` (0 is the
    largest) of the first ``kicked`` runs.
    """

    seeds: Annotated[int, Field(ge=2)]
    images: Annotated[int, Field(ge=2)]
    levels: Counts
    modes: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    kick: Annotated[float, Field(gt=0)]
    kicked: Annotated[int, Field(ge=2)]


class Steer(Section):
    """How much network time teleporting, control of colours, variations and search may take."""

    images: Annotated[int, Field(ge=4)]
    skips: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    controls: list[Annotated[float, Field(gt=0, lt=1)]]
    levels: Counts
    steps: Annotated[int, Field(ge=2)]
    colours: Annotated[int, Field(ge=4)]
    search: Count
