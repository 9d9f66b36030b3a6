"""The extractors of params.yaml; the first one measures novelty, diversity and domain."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from flows.settings.params import Params
from flows.settings.sections import Extractor
from unseen_core.judging.extractors import load_extractor
from unseen_core.judging.judges import Space
from unseen_core.types import FeatureExtractor

__all__ = ["first_extractor", "load_spaces"]


def first_extractor(params: Params, device: str = "cpu") -> FeatureExtractor:
    """Load the first of ``evaluate.extractors``, which judges what only one can judge.

    Raises:
        UnseenError: As ``load_extractor`` does.
    """
    return _load(*next(iter(params.evaluate.extractors.items())), device)


def load_spaces(
    sections: Mapping[str, Extractor], fit: Tensor, held_out: Tensor, device: str
) -> list[Space]:
    """Return the space of every extractor of params.yaml.

    Raises:
        UnseenError: As ``load_extractor`` does.
    """
    return [Space.of(_load(name, section, device), fit, held_out)
            for name, section in sections.items()]


def _load(name: str, section: Extractor, device: str) -> FeatureExtractor:
    """Load an extractor as its section says."""
    weights = Path(section.weights) if section.weights else None
    return load_extractor(name, weights, section.sha256, device)
