"""What Boomerang's outputs are worth, in flat rows: for the stage and for the commands alike."""

from collections.abc import Mapping

import torch
from torch import Tensor

from unseen_core.applications import (
    Classifier,
    accuracy,
    anonymity,
    consistency,
    fidelity,
    mean_interval,
    train_classifier,
)
from unseen_core.basics.images import to_float
from unseen_core.judging.features import Pixels, extract
from unseen_core.judging.metrics import kernel_distance, psnr
from unseen_core.judging.paired import kernel_difference
from unseen_core.types import FeatureExtractor

__all__ = ["NOTICE", "Row", "distance_to", "enhanced", "hidden", "utility"]

Row = dict[str, object]
NOTICE = ("this is no privacy guarantee: the figures are what two simple matchers find, and a "
          "better one may find more")
_FEWEST = 4  # images a side: below, a kernel distance says nothing


def hidden(outputs: Tensor, sources: Tensor, rows: Tensor, extractor: FeatureExtractor) -> Row:
    """Return how far outputs are traced to their sources, by features and by pixels.

    Args:
        outputs: uint8 (m, 3, h, w).
        sources: uint8 (n, 3, h, w), n >= 2.
        rows: The source of each output, int64 (m,).
        extractor: The features of the first matcher; the pixels are those of the second.
    """
    row: Row = {"matcher": extractor.name, "outputs": len(outputs), "sources": len(sources)}
    for matcher, mark in ((extractor, ""), (Pixels(), "_pixels")):
        found = anonymity(extract(matcher, outputs), extract(matcher, sources), rows)
        row |= {f"{name}{mark}": value for name, value in found.summary().items()}
    decibels = psnr(outputs.double() / 255, sources[rows].double() / 255)
    finite = decibels[decibels.isfinite()]
    return row | {"psnr": finite.mean().item() if len(finite) else None}


def distance_to(outputs: Tensor, real: Tensor, extractor: FeatureExtractor, *, draws: int,
                seed: int) -> Row:
    """Return the kernel distance of uint8 images to real ones; None where either are too few."""
    if min(len(outputs), len(real)) < _FEWEST:
        return dict.fromkeys(("kernel", "kernel_low", "kernel_high"))
    return _kernel(extract(extractor, outputs), extract(extractor, real), draws, seed)


def utility(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], config: Classifier, *,
            seeds: range) -> Row:
    """Return the accuracy on real images of a classifier that has seen these alone.

    Args:
        train: uint8 images and their classes, from 0.
        test: Real images and their classes.
        config: The classifier.
        seeds: One training each.
    """
    classes = int(torch.cat([train[1], test[1]]).max()) + 1
    found = torch.tensor([accuracy(train_classifier(*train, config, classes=classes, seed=seed),
                                   *test) for seed in seeds], dtype=torch.float64)
    return {"utility": found.mean().item(), "utility_sd": found.std().item() if len(found) > 1
            else None, "utility_seeds": len(found)}


def enhanced(
    enlarged: Tensor,
    bicubic: Tensor,
    small: Tensor,
    originals: Tensor | None,
    real: Tensor | None,
    extractor: FeatureExtractor,
    *,
    draws: int,
    seed: int,
) -> tuple[Row, Mapping[str, Tensor]]:
    """Return what an enlarged set is worth, beside bicubic enlargement of the same images.

    Args:
        enlarged: uint8 (n, 3, h, w).
        bicubic: The baseline, uint8, same shape.
        small: What was given, uint8 (n, 3, h / f, w / f).
        originals: The true images, uint8, or None where nobody has them.
        real: Other images of the domain, uint8, for the kernel distance, or None.
        extractor: Its features are the perceptual measure.
        draws: Bootstrap draws of kernel distances.
        seed: Of these.

    Returns:
        The row, differences less than zero where the enlarged set is better; and the perceptual
        distance of every image, of the set and of the baseline, where there are originals.
    """
    row: Row = {"extractor": extractor.name, "images": len(enlarged)}
    given = to_float(small)
    for mark, images in (("", enlarged), ("_bicubic", bicubic)):
        row[f"consistency{mark}"] = consistency(to_float(images), given).mean().item()
    each: dict[str, Tensor] = {}
    if originals is not None:
        ours, plain = (fidelity(to_float(x), to_float(originals), given, extractor)
                       for x in (enlarged, bicubic))
        each = {"ours": ours.perceptual, "bicubic": plain.perceptual}
        gain = mean_interval(ours.perceptual - plain.perceptual)
        row |= {"perceptual": ours.perceptual.mean().item(),
                "perceptual_bicubic": plain.perceptual.mean().item(), "perceptual_gain": gain.value,
                "perceptual_gain_low": gain.low, "perceptual_gain_high": gain.high,
                "psnr": ours.psnr.mean().item(), "psnr_bicubic": plain.psnr.mean().item()}
    if real is not None and min(len(real), len(enlarged)) >= _FEWEST:
        x, y, z = (extract(extractor, images) for images in (enlarged, bicubic, real))
        change = kernel_difference(x, y, z, paired=True, draws=draws, seed=seed)
        row |= _kernel(x, z, draws, seed)
        row |= {"kernel_bicubic": kernel_distance(y, z, draws=0).value,
                "kernel_gain": change.value, "kernel_gain_low": change.low,
                "kernel_gain_high": change.high}
    return row, each


def _kernel(features: Tensor, real: Tensor, draws: int, seed: int) -> Row:
    """Return the kernel distance of features to those of real images, with its interval."""
    found = kernel_distance(features, real, draws=draws, seed=seed)
    return {"kernel": found.value, "kernel_low": found.low, "kernel_high": found.high}
