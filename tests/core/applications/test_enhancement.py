"""Enlarging: the baseline, the measures, and a verdict that a planted winner wins."""

import pytest
import torch

from unseen_core.applications import consistency, enlarge, fidelity, preferred, shrink
from unseen_core.basics.images import to_float
from unseen_core.errors import UnseenError
from unseen_core.judging.features import RandomProjections
from unseen_core.sources.shapes import draw_shapes


@pytest.fixture(scope="module")
def originals():
    drawn = torch.from_numpy(draw_shapes(24, seed=5, size=16))
    return to_float(drawn.permute(0, 3, 1, 2).contiguous())


def test_shrinking_keeps_flat_images_and_means(originals):
    flat = torch.full((1, 3, 16, 16), 0.25)
    assert torch.allclose(shrink(flat, 4), flat[..., :4, :4], atol=1e-6)
    assert torch.allclose(enlarge(shrink(flat, 4), 4), flat, atol=1e-6)
    assert shrink(originals, 4).shape == (24, 3, 4, 4)
    with pytest.raises(UnseenError, match="factor 5 does not divide 16 x 16"):
        shrink(originals, 5)


def test_what_agrees_with_the_given_image_is_consistent(originals):
    small = shrink(originals.double(), 4)
    assert consistency(originals, small).max() < 1e-6
    other = originals.roll(1, dims=0)
    assert consistency(other, small).min() > 0.1
    shifted = consistency(originals + 0.1, small)
    assert torch.allclose(shifted, torch.full_like(shifted, 0.1), atol=1e-6)


def test_a_planted_better_enhancer_wins_and_a_worse_one_does_not(originals):
    small = shrink(originals, 4)
    bicubic = fidelity(enlarge(small, 4), originals, small, RandomProjections())
    noise = torch.randn(originals.shape, generator=torch.Generator().manual_seed(0))
    better, worse = (fidelity(x, originals, small, RandomProjections())
                     for x in (originals + 0.03 * noise, enlarge(small, 4) + 0.5 * noise))
    assert (better.psnr > bicubic.psnr).all() and (worse.psnr < bicubic.psnr).all()
    name, gain = preferred({"better": better.perceptual, "worse": worse.perceptual},
                           bicubic.perceptual)
    assert name == "better" and gain.high < 0
    name, gain = preferred({"worse": worse.perceptual}, bicubic.perceptual)
    assert name == "worse" and gain.low > 0


def test_the_original_itself_has_no_distance(originals):
    found = fidelity(originals, originals, shrink(originals, 2), RandomProjections())
    assert found.perceptual.max() == 0 and found.psnr.isinf().all()


def test_the_choice_is_judged_on_images_that_did_not_choose():
    baseline = torch.ones(8, dtype=torch.float64)
    lucky = torch.tensor([0.0, 2.0] * 4, dtype=torch.float64)  # only on the half that chooses
    name, gain = preferred({"lucky": lucky, "plain": baseline * 0.5}, baseline)
    assert name == "lucky" and gain.value == pytest.approx(1.0)
