"""The cosine transform against SciPy's, and bands that cover every coefficient once."""

import pytest
import torch
from scipy.fft import dctn

from unseen_core.laws.frequency import band_masks, dct, idct, low_mask

SHAPES = [(8, 8), (5, 12), (1, 7), (32, 32)]


@pytest.mark.parametrize("shape", SHAPES)
def test_dct_is_scipys_and_idct_undoes_it(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)).double()
    found = dct(x)
    torch.testing.assert_close(found, torch.from_numpy(dctn(x.numpy(), axes=(2, 3), norm="ortho")))
    torch.testing.assert_close(idct(found), x)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


def test_single_precision_is_transformed_in_double() -> None:
    x = torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
    assert dct(x).dtype == torch.float64
    torch.testing.assert_close(idct(dct(x)), x.double(), rtol=0, atol=1e-14)


def test_low_mask_is_strict() -> None:
    mask = low_mask(6, 9, 5.0)
    assert mask[4, 2] and not mask[3, 4] and not mask[0, 5]  # sqrt(20) < 5 = sqrt(9 + 16)
    assert low_mask(6, 9, 0.5).sum() == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_bands_are_octaves_that_cover_once(shape: tuple[int, int]) -> None:
    masks = band_masks(*shape)
    assert (masks.sum(0) == 1).all()
    assert masks[0].sum() == 1 and masks[0, 0, 0]
    assert masks.flatten(1).any(1).all()
    for b in range(1, len(masks)):
        octave = low_mask(*shape, 2.0**b) & ~low_mask(*shape, 2.0 ** (b - 1))
        assert torch.equal(masks[b], octave)
