"""Extractors: determinism, resizing, storage, and the list of training images."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.features import (
    Features32,
    Features32Net,
    Pixels,
    RandomProjections,
    extract,
    image_hash,
    overlap,
)
from unseen_core.training.extractor import ExtractorConfig
from unseen_core.training.extractor_card import save_extractor
from unseen_core.types import FeatureExtractor


def images(n: int, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator, dtype=torch.uint8)


def untrained() -> Features32:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Features32(Features32Net((8, 12, 16), 3, 4).requires_grad_(False))


@pytest.fixture(params=[Pixels, RandomProjections, untrained])
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


def test_features32_survive_the_disk(tmp_path: Path) -> None:
    extractor, x = untrained(), images(6)
    config = ExtractorConfig(widths=(8, 12, 16))
    digest = save_extractor(tmp_path, extractor.network, x[:4], {"domains": ["a"]}, config)
    assert torch.equal(Features32.load(tmp_path)(x), extractor(x))
    about = json.loads((tmp_path / "config.json").read_text())
    assert about["sha256"] == digest
    assert digest == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert overlap(tmp_path, x[2:]) == 2
    assert overlap(tmp_path, x[4:]) == 0


def test_image_hash() -> None:
    image = images(1)[0]
    raw = image.numpy().tobytes()
    assert image_hash(image) == hashlib.sha256(raw).hexdigest()[:16]
    assert image_hash(image.permute(0, 2, 1)) != image_hash(image)
    # Memory order is not content.
    assert image_hash(image.permute(1, 2, 0).contiguous().permute(2, 0, 1)) == image_hash(image)


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UnseenError, match=r"config\.json: no such file"):
        Features32.load(tmp_path)
    with pytest.raises(UnseenError, match=r"training_images\.txt"):
        overlap(tmp_path, images(1))
    config = ExtractorConfig(widths=(8, 12, 16))
    save_extractor(tmp_path, untrained().network, images(1), {}, config)
    about = json.loads((tmp_path / "config.json").read_text())
    for changed, words in [
        ({**about, "widths": [8, 12, 20]}, "disagree"),
        ({k: v for k, v in about.items() if k != "domains"}, "disagree"),
        ({**about, "format": "other"}, "format"),
        ([], "format"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(UnseenError, match=words) as caught:
            Features32.load(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps(about))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UnseenError, match="pretrain"):
        Features32.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnseenError, match="pretrain"):
        Features32.load(tmp_path)


@pytest.mark.parametrize(
    "bad", [images(2).float(), images(2)[:, :2], images(2)[0], images(2)[:0]]
)
def test_bad_images_are_refused(bad: Tensor) -> None:
    with pytest.raises(UnseenError):
        extract(Pixels(), bad)
