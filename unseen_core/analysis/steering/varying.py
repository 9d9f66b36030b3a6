"""Images varied along their own trajectories, and searched for from a start state."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unseen_core.analysis.steering.search import search
from unseen_core.analysis.steering.steering import Steerer
from unseen_core.analysis.steering.variation import Axes, principal_axes, random_axes, variations
from unseen_core.analysis.trajectory.record import record
from unseen_core.basics.images import to_float, to_uint8
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.transport import invert
from unseen_core.judging.features import extract
from unseen_core.judging.novelty import nearest

__all__ = ["Subject", "Varied", "subjects_of", "vary"]

_AXES = 8  # directions of a trajectory
_PAIR = (1, 2)  # axes of a grid: the second and the third, as in arXiv 2303.02490
_STEP, _ROUNDS = 2.0, 3  # of the search; the step in the length of a state


@dataclass(frozen=True, eq=False)
class Subject:
    """One image with the trajectory that ends in it.

    Attributes:
        name: ``"generated"``, or the unseen domain that the image is of.
        image: (c, h, w).
        start: Its state at the level of the search, (c, h, w).
        axes: Of its trajectory.
        target: Image that the search goes for, (c, h, w).
    """

    name: str
    image: Tensor
    start: Tensor
    axes: Axes
    target: Tensor


@dataclass(frozen=True, eq=False)
class Varied:
    """What a subject's variations and searches gave.

    Attributes:
        rows: Of the variations: along its axes, and along random ones.
        searches: Rows of the searches, none where none was asked for.
        grids: Images of the variations, (49, c, h, w) each.
        found: The image, its target and what either search found, (4, c, h, w), or (0, c, h, w).
    """

    rows: list[dict[str, object]]
    searches: list[dict[str, object]]
    grids: list[Tensor]
    found: Tensor


def subjects_of(steerer: Steerer, domains: Mapping[str, Tensor]) -> list[Subject]:
    """Return a generated image and one of each domain, with their trajectories.

    An image of a domain is inverted first, and its trajectory is the way down again. The target
    of each is the real image nearest to it: held out, or another of the domain.

    Args:
        steerer: The network.
        domains: Fit images by domain, uint8 (n, 3, h, w), n >= 2.
    """
    network, grid, method = steerer.network, steerer.search_grid, steerer.method
    node = grid[::-1].index(steerer.search)
    firsts = to_float(torch.stack([images[0] for images in domains.values()]))
    starts = torch.cat([steerer.noise("teleport", 1).to(network.device),
                        invert(network, firsts.to(network.device), grid, method=method)])
    found = record(network, starts, grid, method=method)
    others = [steerer.held_out, *(images[1:] for images in domains.values())]
    subjects = []
    for i, (name, real) in enumerate(zip(["generated", *domains], others, strict=True)):
        estimates = found.clean[:, i].reshape(-1, *network.shape)
        pixels = to_float(real)
        row = int((pixels - estimates[-1]).flatten(1).norm(dim=1).argmin())
        subjects.append(Subject(name, estimates[-1], found.states[node, i].reshape(network.shape),
                                principal_axes(estimates, min(_AXES, len(grid) - 1)), pixels[row]))
    return subjects


def vary(steerer: Steerer, subject: Subject, *, searched: bool) -> Varied:
    """Vary an image along its trajectory's directions and along random ones of equal reach.

    ``nearest_seen`` is the mean feature distance of the variations to the nearest image that
    the network has learnt from; ``nearest_seen_image`` that of the image itself.

    Args:
        steerer: The network.
        subject: See ``Subject``.
        searched: Look for the subject's target too, along either set of directions.
    """
    own = subject.axes
    streams = Streams(steerer.seed, f"steer/axes/{subject.name}",
                      [str(i) for i in range(len(own.variances))])
    extractor, seen = steerer.extractor, steerer.seen_features
    middle = nearest(extract(extractor, to_uint8(subject.image[None])), seen)[0].item()
    rows, searches, grids, pictures = [], [], [], [subject.image, subject.target]
    for kind, axes in (("trajectory", own), ("random", random_axes(own, streams))):
        grids.append(variations(subject.image, axes, _PAIR))
        distance = nearest(extract(extractor, to_uint8(grids[-1])), seen)[0]
        rows.append({
            "subject": subject.name, "directions": kind, "pair": list(_PAIR),
            "explained": (own.variances / own.total).tolist(),
            "reach": axes.variances.sqrt().tolist(), "images": len(grids[-1]),
            "nearest_seen": distance.mean().item(), "nearest_seen_sd": distance.std().item(),
            "nearest_seen_image": middle})
        if searched:
            row, image = _search(steerer, subject, axes)
            searches.append({"subject": subject.name, "directions": kind, **row})
            pictures.append(image)
    return Varied(rows, searches, grids, torch.stack(pictures)[: 4 * searched])


def _search(steerer: Steerer, subject: Subject, axes: Axes) -> tuple[dict[str, object], Tensor]:
    """Search for the subject's target along some axes of its start state."""
    network, grid, level = steerer.network, steerer.search_grid, steerer.search
    part, target = grid[: grid.index(level) + 1], subject.target.to(network.device)
    found = search(network, subject.start.to(network.device), part,
                   axes.directions.to(network.device),
                   lambda images: (images - target).flatten(1), step=_STEP, rounds=_ROUNDS,
                   method=steerer.method)
    row = {"count": len(axes.variances), "level": level, "path": list(found.path),
           "left": found.path[-1] / found.path[0], "images": found.images,
           "calls": found.images * (len(part) - 1)}
    return row, found.image.cpu()
