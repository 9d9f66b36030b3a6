"""Start states: where denoising begins. A sampler is a frozen dataclass that is imported here."""

from collections.abc import Mapping
from dataclasses import fields

from unseen_core.errors import UnseenError, shown
from unseen_core.starts.bands import Bands
from unseen_core.starts.baseline import Noise, Reconstruction
from unseen_core.starts.crdi import Crdi
from unseen_core.starts.denoising import denoise_starts
from unseen_core.starts.geometric import Geometric
from unseen_core.starts.leak import Boomerang, SignalLeak
from unseen_core.starts.local_score import LocalScore
from unseen_core.starts.prior import Prior, StyleNoise
from unseen_core.starts.protocol import StartContext, StartSampler, StartStates
from unseen_core.starts.slerp import Slerp, slerp
from unseen_core.starts.teleport import Teleport

__all__ = ["STARTS", "Bands", "Boomerang", "Crdi", "Geometric", "LocalScore", "Noise", "Prior",
           "Reconstruction", "SignalLeak", "Slerp", "StartContext", "StartSampler", "StartStates",
           "StyleNoise", "Teleport", "build_sampler", "denoise_starts", "slerp"]

STARTS: Mapping[str, type[StartSampler]] = {
    kind.name: kind for kind in StartSampler.__subclasses__()}
"""Every sampler imported above, by its name."""


def build_sampler(name: str, settings: Mapping[str, object]) -> StartSampler:
    """Return the sampler ``settings["sampler"]`` with the other settings as its fields.

    Args:
        name: The user's name for it, for messages.
        settings: ``sampler`` and any field of that sampler.

    Raises:
        UnseenError: For an unknown sampler, an unknown field, or a value of another type or out
            of range.
    """
    kind = str(settings.get("sampler"))
    if kind not in STARTS:
        raise UnseenError(f"samplers.{name}: sampler {kind!r} is not known; "
                          f"use one of {', '.join(STARTS)}")
    known = {f.name: type(f.default) for f in fields(STARTS[kind])}  # type: ignore[arg-type]
    given = {key: tuple(value) if isinstance(value, list) else value
             for key, value in settings.items() if key != "sampler"}
    extra = sorted(set(given) - set(known))
    if extra:
        allowed = ", ".join(sorted(known)) or "no settings"
        raise UnseenError(f"samplers.{name}: {kind} has no setting {extra[0]!r}; "
                          f"it takes {allowed}")
    for key, value in given.items():
        if not _fits(value, known[key]):
            kind_of = known[key].__name__
            wanted = "a list of numbers" if kind_of == "tuple" else f"of type {kind_of}"
            raise UnseenError(f"samplers.{name}.{key}: {shown(settings[key])} is not {wanted}")
    try:
        return STARTS[kind](**given)
    except UnseenError as error:
        raise UnseenError(f"samplers.{name}: {error}") from None


def _fits(value: object, wanted: type) -> bool:
    """Say whether a value of a file may fill a field: whole numbers pass for floating ones."""
    if isinstance(value, tuple) and wanted is tuple:
        return all(type(number) in (int, float) for number in value)
    return type(value) is wanted or (type(value) is int and wanted is float)
