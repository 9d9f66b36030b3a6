"""The embedded domains hold what their names promise."""

import hashlib
from dataclasses import replace

import pytest
import torch

from unseen_core import sources
from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig, SourceImages


@pytest.fixture(scope="module")
def domains() -> dict[str, SourceImages]:
    """Load every embedded domain once."""
    kinds = {"digits": None, "faces": None, "galaxies": None, "textures": None, "shapes": 512}
    return {k: sources.load(SourceConfig(kind=k, domain=k, limit=n)) for k, n in kinds.items()}


def test_counts_shapes_and_ids(domains: dict[str, SourceImages]) -> None:
    counts = {kind: len(domain) for kind, domain in domains.items()}
    expected = {"digits": 1797, "faces": 100, "galaxies": 345, "textures": 300, "shapes": 512}
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


def test_texture_crops_share_no_pixel() -> None:
    from unseen_core.sources.embedded import _tiles

    picture = torch.arange(512 * 512).reshape(512, 512).numpy()
    tiles = _tiles(picture)
    assert tiles.shape == (100, 48, 48, 1)
    assert len(set(tiles.ravel().tolist())) == tiles.size


def test_shapes_follow_the_seed_and_limit(domains: dict[str, SourceImages]) -> None:
    config = SourceConfig(kind="shapes", domain="shapes", limit=5)
    assert sources.load(config).ids == domains["shapes"].ids[:5]
    assert sources.load(replace(config, seed=1)).ids != domains["shapes"].ids[:5]
    assert len(sources.load(SourceConfig(kind="textures", domain="walls", limit=9))) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "galaxy"}, "did you mean 'galaxies'.*Known sources: digits, faces"),
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
