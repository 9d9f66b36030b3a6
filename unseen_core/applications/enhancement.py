"""Small images made large again: the baseline, and what the result is worth beside the original."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from unseen_core.applications.local import mean_interval
from unseen_core.basics.images import to_uint8
from unseen_core.errors import UnseenError
from unseen_core.judging.features import extract
from unseen_core.judging.metrics import Interval, psnr
from unseen_core.types import FeatureExtractor

__all__ = ["Fidelity", "consistency", "enlarge", "fidelity", "preferred", "shrink"]


@dataclass(frozen=True, eq=False)
class Fidelity:
    """What of the originals an enlarged set has, a value for each image.

    Attributes:
        perceptual: Distance of features to the original's, shape (n,), float64.
        psnr: Decibels, shape (n,).
        consistency: Root mean squared error after shrinking again, shape (n,); 0 agrees with
            what was given.
    """

    perceptual: Tensor
    psnr: Tensor
    consistency: Tensor


def shrink(images: Tensor, factor: int) -> Tensor:
    """Return images with sides divided by a factor: antialiased bicubic interpolation.

    Args:
        images: Floating (n, 3, h, w), sides divisible by the factor.
        factor: >= 1.

    Raises:
        UnseenError: If a side is not divisible.
    """
    height, width = images.shape[2:]
    if factor < 1 or height % factor or width % factor:
        raise UnseenError(f"factor {factor} does not divide {height} x {width} pixels; use one "
                          "that does")
    size = (height // factor, width // factor)
    return functional.interpolate(images, size, mode="bicubic", antialias=True)


def enlarge(images: Tensor, factor: int) -> Tensor:
    """Return images (n, 3, h, w) with sides times a factor: bicubic interpolation, not clipped."""
    size = (images.shape[2] * factor, images.shape[3] * factor)
    return functional.interpolate(images, size, mode="bicubic", align_corners=False)


def consistency(enlarged: Tensor, small: Tensor) -> Tensor:
    """Return the root mean squared error of each enlarged image, shrunk again; shape (n,).

    Args:
        enlarged: Floating (n, 3, h, w) in [-1, 1].
        small: What was given, (n, 3, h / f, w / f).
    """
    factor = enlarged.shape[2] // small.shape[2]
    error = shrink(enlarged.double(), factor) - small.double()
    return error.square().flatten(1).mean(1).sqrt()


def fidelity(
    enlarged: Tensor, originals: Tensor, small: Tensor, extractor: FeatureExtractor
) -> Fidelity:
    """Compare enlarged images with their originals.

    The perceptual distance is Euclidean between an extractor's features, as LPIPS compares
    features of one network (Zhang et al. 2018, arXiv 1801.03924) without its learnt weights.

    Args:
        enlarged: Floating (n, 3, h, w) in [-1, 1], clipped here as an image file would be.
        originals: Same shape.
        small: The small images, (n, 3, h / f, w / f).
        extractor: Whose features are compared.
    """
    x, y = to_uint8(enlarged), to_uint8(originals)
    distance = (extract(extractor, x).double() - extract(extractor, y).double()).norm(dim=1)
    return Fidelity(distance, psnr(x.double() / 255, y.double() / 255),
                    consistency(x.double() / 127.5 - 1, small))


def preferred(
    candidates: dict[str, Tensor], baseline: Tensor
) -> tuple[str, Interval]:
    """Choose the nearest candidate on one half of the images; compare it on the other half.

    Args:
        candidates: Perceptual distances (n,) of each, n >= 4.
        baseline: Those of the baseline, (n,).

    Returns:
        Its name, and its mean distance less the baseline's over the images that did not choose,
        with Student's paired interval: wholly below zero, it is better.
    """
    chosen = min(candidates, key=lambda name: candidates[name][::2].mean().item())
    return chosen, mean_interval((candidates[chosen] - baseline)[1::2])
