"""What judges images: feature extractors, distances, novelty, probes; nothing here makes images."""

from collections.abc import Mapping

__all__ = ["EXTRACTORS"]

EXTRACTORS: Mapping[str, str] = {
    "features_imagenet": "imagenet:FeaturesImagenet",
    "pixels": "features:Pixels",
    "projections": "features:RandomProjections",
    "inception": "extractors:Inception",
    "squeezenet": "extractors:SqueezeNet",
}
"""Name in params.yaml to module and class; text, so that params.yaml is checked without torch."""
