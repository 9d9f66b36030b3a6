"""Extractors: determinism and resizing."""

import pytest
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.features import (
    Pixels,
    RandomProjections,
    extract,
)
from unseen_core.types import FeatureExtractor


def images(n: int, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.fixture(params=[Pixels, RandomProjections])
def extractor(request: pytest.FixtureRequest) -> FeatureExtractor:
    return request.param()


def test_shape_type_and_batch_independence(extractor: FeatureExtractor) -> None:
    x = images(11)
    features = extract(extractor, x, batch=11)
    assert features.shape == (11, extractor.dimension) and features.dtype == torch.float32
    torch.testing.assert_close(extract(extractor, x, batch=4), features, rtol=0, atol=1e-5)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_other_sizes_are_resized(extractor: FeatureExtractor) -> None:
    """Enlarged by whole factors, an image averages back to itself under the antialiased filter."""
    flat = images(4, 1).expand(-1, -1, 32, 32)
    larger = flat.repeat_interleave(2, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(extract(extractor, larger), extract(extractor, flat),
                               rtol=0, atol=1e-4)


def test_downsizing_is_antialiased() -> None:
    lines = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    lines[..., ::3] = 255  # every third column: plain sampling would see all lines or none
    inner = Pixels()(lines).reshape(3, 32, 32)[:, :, 2:-2]
    assert (inner - 1 / 3).abs().max() < 0.01


def test_pixels_are_pixels() -> None:
    x = images(2)
    torch.testing.assert_close(Pixels()(x), x.flatten(1) / 255, rtol=0, atol=1e-7)


def test_projections_depend_on_the_seed_alone() -> None:
    x = images(5)
    first = RandomProjections(16, seed=1)(x)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert torch.equal(RandomProjections(16, seed=1)(x), first)
    assert not torch.equal(RandomProjections(16, seed=2)(x), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    # A squashed feature would say nothing: the typical one uses the range.
    assert first.abs().max() < 1 and first.std() > 0.05


@pytest.mark.parametrize(
    "bad", [images(2).float(), images(2)[:, :2], images(2)[0], images(2)[:0]]
)
def test_bad_images_are_refused(bad: Tensor) -> None:
    with pytest.raises(UnseenError):
        extract(Pixels(), bad)
