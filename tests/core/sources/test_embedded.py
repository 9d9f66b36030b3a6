"""The embedded domains hold what their names promise."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from unseen_core import sources
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig, SourceImages


@pytest.fixture(scope="module")
def domains() -> dict[str, SourceImages]:
    """Load every embedded domain once."""
    kinds = ("digits", "faces", "galaxies", "textures", "tissue", "retina", "shapes")
    limits = {"shapes": 512}
    return {k: sources.load(SourceConfig(kind=k, domain=k, limit=limits.get(k))) for k in kinds}


def test_counts_shapes_and_ids(domains: dict[str, SourceImages]) -> None:
    counts = {kind: len(domain) for kind, domain in domains.items()}
    expected = {"digits": 1797, "faces": 100, "galaxies": 345, "textures": 300, "tissue": 194,
                "retina": 206, "shapes": 512}
    assert counts == expected
    for kind, domain in domains.items():
        assert domain.images.shape == (counts[kind], 3, 32, 32)
        assert domain.images.dtype == torch.uint8
        assert len(set(domain.ids)) == counts[kind]
        digest = hashlib.sha256(domain.images[7].numpy().tobytes()).hexdigest()[:12]
        assert domain.ids[7] == f"{kind}-{digest}"
        assert domain.licence and domain.origin and not domain.skipped


def test_labels_are_the_classes(domains: dict[str, SourceImages]) -> None:
    digits, textures = domains["digits"], domains["textures"]
    assert digits.labels is not None and textures.labels is not None
    assert digits.labels.bincount().min() > 170
    assert textures.labels.bincount().tolist() == [100, 100, 100]
    # A nearest-mean rule must find digits far above chance, or labels and images are misaligned.
    x = digits.images.flatten(1).double()
    means = torch.stack([x[digits.labels == k].mean(0) for k in range(10)])
    assert (torch.cdist(x, means).argmin(1) == digits.labels).double().mean() > 0.85
    contrast = textures.images.double().std((1, 2, 3))
    brick, _, gravel = (contrast[textures.labels == k].median() for k in range(3))
    assert brick < gravel


def test_galaxies_are_centred_and_bright(domains: dict[str, SourceImages]) -> None:
    light = domains["galaxies"].images.double().mean(1)
    centre = light[:, 10:22, 10:22].amax((1, 2))
    border = torch.cat([light[:, 0], light[:, -1]], 1).median(1).values
    assert (centre > border + 25).double().mean() > 0.99


def test_no_two_galaxy_crops_share_a_pixel(domains: dict[str, SourceImages]) -> None:
    boxes = sources.galaxy_boxes()
    assert len(boxes) == len(domains["galaxies"])
    painted = torch.zeros(872, 1000, dtype=torch.int64)
    for top, left, bottom, right in boxes.tolist():
        assert 0 <= top < bottom <= 872 and 0 <= left < right <= 1000
        painted[top:bottom, left:right] += 1
    assert painted.max() == 1


def test_retina_crops_lie_in_the_disc_and_show_vessels(domains: dict[str, SourceImages]) -> None:
    images = domains["retina"].images.double()
    assert images.mean(1).amin() > 20  # the border of the photograph is at 1
    red, green, blue = images.mean((2, 3)).unbind(1)
    assert (red > green).all() and (green > blue).all()
    # A vessel crosses the crop darker than what lies beside it in green.
    level = images[:, 1].flatten(1)
    assert ((level.median(1).values - level.amin(1)) > 15).double().mean() > 0.7


def test_tissue_crops_are_stained_brown_or_blue(domains: dict[str, SourceImages]) -> None:
    images = domains["tissue"].images.double()
    assert images.mean(1).flatten(1).std(1).amin() > 3  # bare glass has at most 1
    surplus = (images[:, 0] - images[:, 2]).flatten(1)
    brown, blue = (surplus > 40).double().mean(1), (surplus < -20).double().mean(1)
    assert ((brown > 0.05) | (blue > 0.01)).double().mean() > 0.95
    assert (brown > 0.5).sum() > 50 and (brown < 0.05).sum() > 30


@pytest.mark.parametrize(("shape", "side"), [((512, 512), 48), ((100, 83, 3), 20)])
def test_crops_share_no_pixel(shape: tuple[int, ...], side: int) -> None:
    from unseen_core.sources.embedded import _tiles

    picture = np.arange(np.prod(shape)).reshape(shape)
    tiles = _tiles(picture, side)
    assert tiles.shape == (shape[0] // side * (shape[1] // side), side, side, *(shape[2:] or (1,)))
    assert len(set(tiles.ravel().tolist())) == tiles.size
    second = picture[:side, side : 2 * side].reshape(tiles.shape[1:])
    assert (tiles[1] == second).all()


def test_shapes_follow_the_seed_and_limit(domains: dict[str, SourceImages]) -> None:
    config = SourceConfig(kind="shapes", domain="shapes", limit=5)
    assert sources.load(config).ids == domains["shapes"].ids[:5]
    assert sources.load(replace(config, seed=1)).ids != domains["shapes"].ids[:5]
    assert len(sources.load(SourceConfig(kind="textures", domain="walls", limit=9))) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "galaxy"}, "did you mean 'galaxies'.*Known sources: .*digits, faces"),
        ({"kind": "zzz"}, "unknown source 'zzz'. Known"),
        ({"domain": "../evil"}, "domain name"),
        ({"domain": "Digits"}, "domain name"),
        ({"domain": "a\n"}, "domain name"),
        ({"size": 0}, "size"),
        ({"limit": 0}, "limit"),
        ({"max_pixels": 1}, "max_pixels"),
        ({"kind": "folder"}, "needs a path"),
        ({"kind": "npz", "path": "nowhere.npz"}, "nowhere.npz does not exist"),
    ],
)
def test_wrong_values_are_named(changes: dict[str, str | int], message: str) -> None:
    with pytest.raises(UnseenError, match=message):
        sources.load(replace(SourceConfig(kind="digits", domain="digits"), **changes))
