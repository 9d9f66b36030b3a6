"""What ``fit`` made of a level, and the fit images carried to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from flows.settings.paths import PATHS
from unseen_core.basics.images import with_channels
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import Law, law_from_state
from unseen_core.laws.geometry import Envelope
from unseen_core.laws.references import References
from unseen_core.store import (
    TensorStore,
    read_json,
    read_pictures,
    read_tensors,
)

__all__ = ["Fitted", "channels_of", "load_fitted", "references_at"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What ``fit`` made of one level.

    Attributes:
        references: The fit images carried there, with their inner products.
        priors: Laws by kind.
        envelope: Bounds of their geometry.
    """

    references: References
    priors: Mapping[str, Law]
    envelope: Envelope


def channels_of(model: str) -> int:
    """Return the channels of the images that a fetched model works on, without loading it.

    Raises:
        UnseenError: If it was not fetched.
    """
    return int(str(read_json(PATHS.network(model)[0] / "config.json")["in_channels"]))


def references_at(
    model: str, domain: str, level: int, gram: Tensor | None = None
) -> tuple[References, list[str]]:
    """Return the fit images carried to ``level``, and their ids.

    Level 0 is pixel space: the images themselves, with the model's channels.

    Args:
        model: A model of params.yaml.
        domain: A domain that was inverted with it.
        level: 0, the images themselves, or a stored level.
        gram: Inner products, float64 (N, N), where they are known.

    Raises:
        UnseenError: If an input is missing or damaged, or ``gram`` belongs to other images.
    """
    if level == 0:
        images, frame = read_pictures(PATHS.domain(domain) / "fit.parquet")
        return References.of(with_channels(images, channels_of(model)), gram), frame["id"].tolist()
    store = TensorStore(PATHS.latents(model, domain))
    return References.stored(store, level, gram), list(store.ids)


def load_fitted(model: str, domain: str, level: int) -> Fitted:
    """Return what ``fit`` made of a level.

    Raises:
        UnseenError: If the level was not fitted, or a file is missing or damaged.
    """
    file = PATHS.priors(model, domain) / f"L{level:04d}.safetensors"
    tensors = read_tensors(file)
    envelope = Envelope.from_state(read_json(file.with_suffix(".json"))["envelope"])
    states: dict[str, dict[str, Tensor]] = {}
    gram = tensors.pop("gram", None)
    if gram is None:
        raise UnseenError(f"{file}: holds no inner products; run fit again")
    for name, tensor in tensors.items():
        kind, _, part = name.partition("/")
        states.setdefault(kind, {})[part] = tensor
    references, _ = references_at(model, domain, level, gram)
    priors = {kind: law_from_state(state, references) for kind, state in states.items()}
    return Fitted(references, priors, envelope)
