"""What ``generate`` is asked for: the request, its samplers and levels, checked."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import Field
from ruamel.yaml import YAML, YAMLError

from flows.settings.cells import Cell
from flows.settings.params import Params
from flows.settings.plan import Plan
from flows.settings.sections import Section
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.starts import STARTS, StartSampler, build_sampler

__all__ = ["ALONE", "NOISE", "Request", "all_settings", "candidates_of", "level_of",
           "read_settings", "sampler_of", "tuned_noise"]

ALONE = tuple(name for name, kind in STARTS.items() if kind.needs == "images")
"""Samplers that need clean images alone: no latents, no fitted prior, no law of the seen domain."""
NOISE = "noise.safetensors"
"""In a tuned pipeline's folder: the law of the noise that it starts from."""


class Request(Section):
    """What is generated; a stage takes it as one string of JSON.

    Attributes:
        images: Folder or zip of the examples.
        out: Folder to be made.
        sampler: A sampler of params.yaml that needs latents, or pixels in their place, or one of
            ALONE, with ``settings`` as its fields; None: the choice of the images among those of
            params.yaml.
        level: Level of the start states, 0..T; None: T for noise and style noise, else the
            choice of the images among those of params.yaml.
        count: Images.
        steps: Network calls from the highest level down; None: ``solver.steps``, or 50 for
            samplers of ALONE.
        seed: Of all random numbers.
        method: Solver; None: ``solver.method``, and ddim under guidance.
        model, pipeline, prompt, negative, guidance: See `open_network`.
        percentile: Percentiles of each file that are black and white; None: by its type.
        pages: Of a file with several, ``first`` or ``all``.
    """

    images: str
    out: str
    sampler: str | None = None
    settings: dict[str, object] = Field(default_factory=dict)
    level: int | None = None
    count: int = 16
    steps: int | None = None
    seed: int = 0
    method: str | None = None
    model: str | None = None
    pipeline: str | None = None
    prompt: str = ""
    negative: str = ""
    guidance: float = 1.0
    percentile: tuple[float, float] | None = None
    pages: Literal["first", "all"] = "first"


def read_settings(pairs: Sequence[str]) -> dict[str, object]:
    """Return the settings that ``KEY=VALUE`` words name, values as in params.yaml.

    Raises:
        UnseenError: If a word has no ``=``, or its value is no YAML.
    """
    settings: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        try:
            settings[key.strip()] = YAML(typ="safe").load(text)
        except YAMLError:
            equals = ""
        if not equals or not key.strip():
            raise UnseenError(f"--set {pair!r} is not a setting; write it as kind=dct")
    return settings


def candidates_of(
    asked: Request, params: Params
) -> tuple[dict[str, StartSampler], list[Cell]]:
    """Return the samplers that need latents, by name, and the levels and samplers to choose from.

    Without a sampler they are those that stage ``select`` compares. Level 0 is pixel space, where
    the images stand for their latents and nothing is denoised.

    Raises:
        UnseenError: If the sampler is not known, a setting is wrong, or more than one level is
            left to a sampler whose images cannot be compared with those that they are made of.
    """
    plan = Plan.of(params)
    built = {name: sampler for name, sampler in plan.built.items()
             if sampler.needs == "latents"}
    if asked.settings and asked.sampler is None:
        raise UnseenError("--set belongs to a sampler; name it with --sampler")
    if asked.sampler is None:
        cells = plan.candidates
    elif asked.sampler in built:
        fields = {**params.samplers[asked.sampler].settings(), **asked.settings}
        built = {asked.sampler: build_sampler("--set", fields)}
        cells = [cell for cell in plan.cells if cell.sampler == asked.sampler]
    else:
        raise UnseenError(f"--sampler {asked.sampler} is not known; use one of "
                          f"{', '.join([*built, *ALONE])}")
    if any(cell.level == 0 for cell in cells):
        if asked.level is not None or asked.pipeline is not None:
            raise UnseenError(f"--sampler {asked.sampler} works on pixels, without a network; "
                              "leave --level and --pipeline out")
    elif asked.level is not None:
        cells = [Cell(asked.level, name) for name in dict.fromkeys(c.sampler for c in cells)]
    if len(cells) > 1 and not all(built[cell.sampler].selectable for cell in cells):
        levels = ", ".join(str(cell.level) for cell in cells)
        raise UnseenError(f"--sampler {asked.sampler} draws of a law fitted to all images, so "
                          f"these cannot choose its level; give --level, such as one of {levels}")
    if not cells:
        raise UnseenError("params.yaml: samplers: none can be chosen by the images alone; add one "
                          "of kind geometric with proposal blend")
    return built, cells


def sampler_of(asked: Request) -> StartSampler:
    """Build the sampler that is asked for.

    Raises:
        UnseenError: If it needs more than clean images, or a setting of it is wrong.
    """
    if asked.sampler not in ALONE:
        raise UnseenError(f"--sampler {asked.sampler} is not one that needs images alone; use one "
                          f"of {', '.join(ALONE)}")
    if "sampler" in asked.settings:
        raise UnseenError("--set names no sampler; use --sampler")
    try:
        return build_sampler("--set", {"sampler": asked.sampler, **asked.settings})
    except UnseenError as error:
        raise UnseenError(str(error).removeprefix("samplers.")) from None


def tuned_noise(asked: Request) -> Path | None:
    """Return the law of the noise that a pipeline was tuned on, where style noise is asked for."""
    if asked.pipeline is None or asked.sampler != "style-noise":
        return None
    file = Path(asked.pipeline) / NOISE
    return file if file.is_file() else None


def level_of(asked: Request, schedule: Schedule, tuned: Path | None) -> int:
    """Return the level of the start states.

    Args:
        asked: The request.
        schedule: The network's.
        tuned: The noise that a pipeline was tuned on; it starts at the last level only.

    Raises:
        UnseenError: If a level is missing, out of range or not the tuned one.
    """
    if asked.level is None:
        if not STARTS[asked.sampler].from_noise:
            raise UnseenError(f"--sampler {asked.sampler} needs --level, 0 to {schedule.top}; "
                              "higher ones leave more to the network")
        return schedule.top
    if tuned is not None and asked.level != schedule.top:
        raise UnseenError(f"{tuned}: the network was tuned on this noise at level {schedule.top}; "
                          "leave --level out")
    if not 0 <= asked.level <= schedule.top:
        raise UnseenError(f"--level {asked.level} is out of range; use 0 to {schedule.top}")
    return asked.level


def all_settings(sampler: StartSampler) -> dict[str, object]:
    """Return all settings of a sampler, those left at their defaults too, as JSON has them."""
    found = {field.name: getattr(sampler, field.name) for field in fields(sampler)}  # type: ignore[arg-type]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
