"""Domains that need no download: they lie inside scikit-learn and scikit-image, or are drawn."""

from functools import lru_cache

import numpy as np
import skimage.data
import sklearn.datasets
import torch
from skimage.filters import gaussian
from skimage.measure import label, regionprops
from torch import Tensor

from unseen_core.basics.images import resize
from unseen_core.sources.base import SourceConfig, SourceImages, source
from unseen_core.sources.gather import Found, collect
from unseen_core.sources.shapes import draw_shapes

__all__ = [
    "galaxy_boxes",
    "load_digits",
    "load_faces",
    "load_galaxies",
    "load_retina",
    "load_shapes",
    "load_textures",
    "load_tissue",
]

_TEXTURES = ("brick", "grass", "gravel")
_TEXTURE_SIDE = 48
_TISSUE_SIDE = 36
_RETINA_SIDE = 80
_SHAPES = 1000


@source("digits")
def load_digits(config: SourceConfig) -> SourceImages:
    """Return scikit-learn's 1,797 handwritten digits, 8×8 grey enlarged; labels are the digits."""
    digits = sklearn.datasets.load_digits()
    return _collect(
        config,
        list(digits.images[..., None] * (255 / 16)),
        labels=torch.from_numpy(digits.target.astype(np.int64)),
        licence="CC BY 4.0",
        origin="UCI Optical Recognition of Handwritten Digits, test set, from scikit-learn",
    )


@source("faces")
def load_faces(config: SourceConfig) -> SourceImages:
    """Return the 100 faces of scikit-image's LFW subset, 25×25 grey enlarged.

    The subset's second half shows backgrounds and is left out.
    """
    faces = skimage.data.lfw_subset()[:100]
    return _collect(
        config,
        list(faces[..., None] * 255),
        licence="research use; the photographs belong to their owners",
        origin="Labeled Faces in the Wild (Huang et al.), subset from scikit-image",
    )


@source("galaxies")
def load_galaxies(config: SourceConfig) -> SourceImages:
    """Return crops around the bright sources of the Hubble eXtreme Deep Field.

    No two crops share a pixel (``galaxy_boxes``), so no split can leak one into another.
    """
    sky = skimage.data.hubble_deep_field()
    return _collect(
        config,
        [sky[top:bottom, left:right] for top, left, bottom, right in galaxy_boxes().tolist()],
        licence="public domain (NASA)",
        origin="Hubble eXtreme Deep Field, HubbleSite 2012-37, from scikit-image",
    )


@source("textures")
def load_textures(config: SourceConfig) -> SourceImages:
    """Return 300 crops of brick, grass and gravel, 48×48 grey on a grid without overlap.

    Labels 0, 1, 2 name the texture; the three alternate.
    """
    stacks = [_tiles(getattr(skimage.data, name)(), _TEXTURE_SIDE) for name in _TEXTURES]
    tiles = [tile for trio in zip(*stacks, strict=True) for tile in trio]
    return _collect(
        config,
        tiles,
        labels=torch.arange(len(tiles)) % len(_TEXTURES),
        licence="CC0",
        origin="brick and gravel from CC0Textures, grass by linolafett, from scikit-image",
    )


@source("tissue")
def load_tissue(config: SourceConfig) -> SourceImages:
    """Return 194 crops of stained colonic glands, 36×36 colour on a grid without overlap.

    FHL2 protein is brown, nuclei are blue. Two crops that show nothing but glass are left out.
    All are from one picture: no two share a pixel, but neighbours are correlated, so held-out
    crops are nearer to the fitted ones than those of another patient would be.
    """
    crops = _tiles(skimage.data.immunohistochemistry(), _TISSUE_SIDE)
    return _collect(
        config,
        list(crops[crops.mean(3).std((1, 2)) > 3]),
        licence="no known copyright restrictions",
        origin="immunohistochemistry of colonic glands, Center for Microscopy And Molecular "
        "Imaging (CMMI), from scikit-image",
    )


@source("retina")
def load_retina(config: SourceConfig) -> SourceImages:
    """Return 206 crops of a fundus photograph, 80×80 colour on a grid without overlap.

    Only crops that lie inside the bright disc are kept: their darkest pixel is above 20 of 255
    grey levels. As in ``load_tissue``, neighbours are correlated, and light and optic disc are
    those of one eye.
    """
    crops = _tiles(skimage.data.retina(), _RETINA_SIDE)
    return _collect(
        config,
        list(crops[crops.mean(3).min((1, 2)) > 20]),
        licence="CC0",
        origin="Fundus photograph of normal left eye, Mikael Häggström 2014, Wikimedia Commons, "
        "from scikit-image",
    )


@source("shapes")
def load_shapes(config: SourceConfig) -> SourceImages:
    """Return ``limit`` (default 1,000) freshly drawn shapes, the domain ``shapes32`` has seen.

    ``seed`` selects the draw; give it another seed than the network's training.
    """
    drawn = draw_shapes(config.limit or _SHAPES, seed=config.seed, size=config.size)
    return _collect(config, list(drawn), licence="CC0", origin=f"drawn with seed {config.seed}")


@lru_cache(maxsize=1)
def galaxy_boxes() -> Tensor:
    """Return the galaxies' crops as boxes in the deep field, the brightest first.

    A source is a connected region brighter than 35 of 255 grey levels after smoothing by one
    pixel, with a peak of at least 70 and at least 16 pixels. Its crop is a square around the
    centre of light, 1.8 times as wide as the region's major axis, 16 to 80 pixels. A crop
    that leaves the picture, or meets the crop of a brighter source, is dropped.

    Returns:
        int64, shape (n, 4): top, left, bottom, right in pixels, the last two exclusive;
        n = 345 with scikit-image 0.26.
    """
    grey = gaussian(skimage.data.hubble_deep_field().mean(2), 1, preserve_range=True)
    height, width = grey.shape
    candidates = []
    for region in regionprops(label(grey > 35), intensity_image=grey):
        if region.intensity_max < 70 or region.area < 16:
            continue
        side = round(min(max(1.8 * region.axis_major_length, 16), 80))
        top, left = (round(centre + 0.5 - side / 2) for centre in region.centroid_weighted)
        if min(top, left) >= 0 and top + side <= height and left + side <= width:
            light = region.intensity_max * region.area**0.5
            candidates.append((-light, top, left, top + side, left + side))
    kept: list[tuple[int, int, int, int]] = []
    for _, top, left, bottom, right in sorted(candidates):
        box = (top, left, bottom, right)
        if not any(_meet(box, other) for other in kept):
            kept.append(box)
    return torch.tensor(kept)


def _meet(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Return whether two boxes share a pixel."""
    rows = one[0] < other[2] and other[0] < one[2]
    return rows and one[1] < other[3] and other[1] < one[3]


def _tiles(picture: np.ndarray, side: int) -> np.ndarray:
    """Cut a picture, shape (h, w) or (h, w, c), into squares that share no pixel.

    Returns:
        Shape (n, side, side, c), row by row; what is left at the right and bottom is dropped.
    """
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    grid = picture[: rows * side, : columns * side].reshape(rows, side, columns, side, -1)
    return grid.swapaxes(1, 2).reshape(rows * columns, side, side, -1)


def _collect(
    config: SourceConfig,
    pictures: list[np.ndarray],
    *,
    licence: str,
    origin: str,
    labels: Tensor | None = None,
) -> SourceImages:
    """Resize square pictures, shape (h, w, 1 or 3) with values 0..255, and collect them."""
    small = [torch.from_numpy(resize(p, config.size)).permute(2, 0, 1) for p in pictures]
    classes = [None] * len(small) if labels is None else labels.tolist()
    found = [
        Found(f"{config.kind} {i}", p.expand(3, -1, -1).contiguous(), label)
        for i, (p, label) in enumerate(zip(small, classes, strict=True))
    ]
    return collect(config, found, licence=licence, origin=origin)
