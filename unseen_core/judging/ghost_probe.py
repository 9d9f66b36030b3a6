"""A linear probe, trained on planted ghosts, that says whether a picture is two pictures."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.ghosts import (
    check_bootstrap,
    ghost_measures,
    in_blocks,
    luminance,
    octave_energies,
    percentile_interval,
)
from unseen_core.judging.metrics import Interval
from unseen_core.judging.probe import Probe, fit_probe

__all__ = ["FEWEST", "GhostProbe", "GhostScore", "fit_ghost_probe", "ghost_bounds", "ghost_score",
           "superpose"]

_FOLDS = 5
FEWEST = 2 * _FOLDS
"""Fit images that a ghost probe needs: two, to be laid over each other, in every fold."""


@dataclass(frozen=True, eq=False)
class GhostProbe:
    """A linear probe of real images against superpositions of two of them.

    Attributes:
        probe: Its weights.
        mean: Mean of the fit images, float64 (3, h, w) in 0..255; contrast is taken about it.
        patch: Side of the patches of ``local_contrast``.
        auc: Cross-validated area under the ROC curve on the fit images, 0.5 (blind) to 1.
    """

    probe: Probe
    mean: Tensor
    patch: int
    auc: float

    def probability(self, images: Tensor) -> Tensor:
        """Return each image's probability of being a superposition, float64 (n,)."""
        return self.probe.log_odds(_descriptors(images, self.patch)).sigmoid()


@dataclass(frozen=True, eq=False)
class GhostScore:
    """How much generated images look like superpositions.

    The probe has seen real images and superpositions only: other defects, noise above all, move
    the probability either way. Read it where ``ghosts`` finds the images otherwise alike.

    Attributes:
        generated: Mean ghost probability with its interval.
        floor: Mean ghost probability of held-out real images.
        ceiling: That of superpositions of held-out real images.
        auc: Cross-validated, of the probe.
        probabilities: Per generated image, float64 (n,).
    """

    generated: Interval
    floor: float
    ceiling: float
    auc: float
    probabilities: Tensor


def superpose(images: Tensor, mean: Tensor, *, seed: int = 0) -> Tensor:
    """Return superpositions of images with random others: ghosts of the two kinds that blends make.

    The first n are plain means of two images; the other n (of other pairs) have the contrast
    back that the mean lost: their deviation from ``mean`` is rescaled to the mean length of the
    two images' deviations, as a blend on the shell is. A probe that learns from the plain ones
    alone is blind to the second kind.

    Args:
        images: uint8 (n, 3, h, w), n >= 2.
        mean: Mean image of the domain, (3, h, w) in 0..255.
        seed: Seed of the pairs.

    Returns:
        uint8 (2n, 3, h, w).
    """
    random = np.random.default_rng(seed)

    def plain(x: Tensor, y: Tensor) -> Tensor:
        return (x + y) / 2

    def full(x: Tensor, y: Tensor) -> Tensor:
        length = (_lengths(x) + _lengths(y)) / 2
        return (x + y) * (length / _lengths(x + y).clamp_min(1e-12))

    made = []
    for blend in (plain, full):
        order = torch.from_numpy(random.permutation(len(images)))
        for x, y in zip(in_blocks(images[order]), in_blocks(images[order.roll(1)]), strict=True):
            blended = mean + blend(x.double() - mean, y.double() - mean)
            made.append(blended.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(made)


def fit_ghost_probe(fit: Tensor, *, patch: int = 4, seed: int = 0) -> GhostProbe:
    """Train a probe to separate a domain's fit images from superpositions of two of them.

    Logistic regression on the measures of ``ghost_measures`` and the logarithms of each octave's
    share of DCT energy, of luminance and of log-luminance ln(1 + 255 y). In the latter both
    outlines of a superposition keep nearly their full strength. Shares leave out the contrast.

    The area under the curve comes from five folds of images; superpositions are made within
    a fold, so that no picture is on both sides.

    Args:
        fit: uint8 (n, 3, h, w), n >= 10, of one domain.
        patch: Side of the patches of ``local_contrast`` in pixels.
        seed: Seed of folds and pairs.

    Raises:
        UnseenError: If there are too few images or they are of another type or shape.
    """
    if len(fit) < FEWEST:
        raise UnseenError(f"ghost probe: {len(fit)} fit images; give at least {FEWEST}")
    real = _descriptors(fit, patch)
    mean = sum(block.double().sum(0) for block in in_blocks(fit)) / len(fit)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(fit)))
    folds = [(real[rows], _descriptors(superpose(fit[rows], mean, seed=seed), patch))
             for rows in order.tensor_split(_FOLDS)]
    labels, odds = [], []
    for k, (own, planted) in enumerate(folds):
        others = (torch.cat(part) for part in zip(*folds[:k], *folds[k + 1 :], strict=True))
        labels += [0] * len(own) + [1] * len(planted)
        odds.append(fit_probe(*others, seed).log_odds(torch.cat([own, planted])))
    auc = float(roc_auc_score(labels, torch.cat(odds).numpy()))
    planted = _descriptors(superpose(fit, mean, seed=seed), patch)
    return GhostProbe(fit_probe(real, planted, seed), mean, patch, auc)


def ghost_bounds(
    held_out: Tensor, probe: GhostProbe, *, seed: int = 0
) -> tuple[float, float]:
    """Return the mean ghost probabilities of held-out images and of superpositions of them.

    Args:
        held_out: uint8 (m, 3, h, w), m >= 2, real and not those of the probe.
        probe: Of the same domain.
        seed: Seed of the superpositions.

    Raises:
        UnseenError: If the images are of another type or shape.
    """
    both = (held_out, superpose(held_out, probe.mean, seed=seed))
    floor, ceiling = (probe.probability(images).mean().item() for images in both)
    return floor, ceiling


def ghost_score(
    generated: Tensor,
    held_out: Tensor,
    probe: GhostProbe,
    *,
    bounds: tuple[float, float] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> GhostScore:
    """Return the mean ghost probability of generated images, with its floor and its ceiling.

    Args:
        generated: uint8 (n, 3, h, w), n >= 1.
        held_out: uint8 (m, 3, h, w), m >= 2, real and not those of the probe.
        probe: Of the same domain.
        bounds: What ``ghost_bounds`` returned for ``held_out``, so that it is computed once for
            many sets; None computes it.
        draws: Bootstrap draws of the generated images, >= 1.
        seed: Seed of draws and superpositions.
        level: Coverage of the interval, in (0, 1).

    Raises:
        UnseenError: If the images or a number are out of range.
    """
    check_bootstrap(draws, level)
    found, n = probe.probability(generated), len(generated)
    rows = torch.from_numpy(np.random.default_rng(seed).integers(0, n, (draws, n)))
    floor, ceiling = bounds or ghost_bounds(held_out, probe, seed=seed)
    return GhostScore(
        generated=percentile_interval(found.mean().item(), found[rows].mean(1), level),
        floor=floor,
        ceiling=ceiling,
        auc=probe.auc,
        probabilities=found,
    )


def _descriptors(images: Tensor, patch: int) -> Tensor:
    """Return the numbers that the probe sees, float64 (n, 3 + 2 octaves)."""
    measures = torch.stack(list(ghost_measures(images, patch=patch).values()), dim=1)
    octaves = torch.cat([_octaves(luminance(block)) for block in in_blocks(images)])
    return torch.cat([measures, octaves], dim=1)


def _octaves(y: Tensor) -> Tensor:
    """Return the log shares of energy of luminance (n, h, w) and of its logarithm."""
    columns = []
    for picture in (y, (255 * y).log1p()):
        energy = octave_energies(picture)[:, 1:]
        share = energy / energy.sum(1, keepdim=True).clamp_min(1e-12)
        columns.append(share.clamp_min(1e-9).log())
    return torch.cat(columns, dim=1)


def _lengths(x: Tensor) -> Tensor:
    """Return the length of every picture, shape (n, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1)[:, None, None, None]
