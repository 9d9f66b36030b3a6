"""Start states: where denoising begins. One frozen dataclass per sampler, listed in STARTS."""

from collections.abc import Mapping
from dataclasses import fields

from unseen_core.errors import UnseenError
from unseen_core.starts.bands import Bands
from unseen_core.starts.baseline import Noise, Reconstruction
from unseen_core.starts.geometric import Geometric
from unseen_core.starts.prior import Prior
from unseen_core.starts.protocol import StartContext, StartSampler, StartStates
from unseen_core.starts.slerp import Slerp, slerp

__all__ = ["STARTS", "Bands", "Geometric", "Noise", "Prior", "Reconstruction", "Slerp",
           "StartContext", "StartSampler", "StartStates", "build_sampler", "slerp"]

STARTS: Mapping[str, type[StartSampler]] = {
    "noise": Noise,
    "reconstruction": Reconstruction,
    "prior": Prior,
    "slerp": Slerp,
    "geometric": Geometric,
    "bands": Bands,
}


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
    given = {key: value for key, value in settings.items() if key != "sampler"}
    extra = sorted(set(given) - set(known))
    if extra:
        allowed = ", ".join(sorted(known)) or "no settings"
        raise UnseenError(f"samplers.{name}: {kind} has no setting {extra[0]!r}; "
                          f"it takes {allowed}")
    for key, value in given.items():
        whole = type(value) is int and known[key] is float
        if type(value) is not known[key] and not whole:
            raise UnseenError(f"samplers.{name}.{key}: {value!r} is not of type "
                              f"{known[key].__name__}")
    try:
        return STARTS[kind](**given)
    except UnseenError as error:
        raise UnseenError(f"samplers.{name}: {error}") from None
