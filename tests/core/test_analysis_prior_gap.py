"""Noised images have no gap; inversion through another Gaussian has that of the closed form."""

import json

import pytest
import torch
from torch import Tensor

from unseen_core.analysis.latents import frequency_bands, prior_gap
from unseen_core.analysis.latents.gram import gram
from unseen_core.analysis.latents.prior_gap import _log_prob
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import invert
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

SHAPE = (1, 8, 8)
LEVEL = 500


def normals(seed: int, n: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Standard normals, float64 (n, *shape)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator, dtype=torch.float64)


def test_bands_are_octaves_up_to_the_corner() -> None:
    edges, index = frequency_bands(32, 24)
    assert edges == ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32), (32, 64))
    i, j = torch.meshgrid(torch.arange(32.0), torch.arange(24.0), indexing="ij")
    radius = (i.square() + j.square()).double().sqrt()
    bounds = torch.tensor(edges)[index]
    assert ((radius >= bounds[..., 0]) & (radius < bounds[..., 1])).all()


@pytest.mark.parametrize("n", [16, 90])
def test_likelihood_is_that_of_the_shrunk_gaussian(schedule: Schedule, n: int) -> None:
    latents = 1 + normals(0, n, (48,)) * torch.linspace(0.3, 2, 48, dtype=torch.float64)
    images = latents.flip(0) * 0.5 + 0.2
    rows, products = torch.cat([latents, images]), gram(latents, images)
    fit, test = torch.arange(n - 6), torch.arange(n - 6, n)
    for chosen, level in ((fit, 0), (fit + n, LEVEL)):
        a, s = schedule.a(level).item(), schedule.s(level).item()
        law = Gaussian.fit(rows[chosen], kind="shrunk").at(schedule, level)
        found = _log_prob(products, chosen, test, 48, a, s)
        torch.testing.assert_close(found, law.log_prob(rows[test]), rtol=1e-9, atol=1e-9)


def test_noised_images_have_no_gap(schedule: Schedule) -> None:
    shape, n = (3, 16, 16), 200
    smooth = torch.nn.functional.interpolate(normals(0, n, (3, 4, 4)), scale_factor=4)
    images = 0.2 + 0.5 * smooth + 0.1 * normals(1, n, shape)
    a, s = schedule.a(LEVEL).item(), schedule.s(LEVEL).item()
    found = prior_gap((a * images + s * normals(2, n, shape)).float(), images.float(), schedule,
                      LEVEL)
    assert found.trace_ratio == pytest.approx(1, abs=0.02)
    for ratio, sd in zip(found.variance_ratio, found.variance_ratio_sd, strict=True):
        assert abs(ratio - 1) < 4 * sd and sd < 0.1
    assert found.mean_offset == pytest.approx(found.paired_noise, rel=0.1)
    assert found.paired_noise == pytest.approx(s * (768 / n) ** 0.5, rel=0.02)
    assert abs(found.log_likelihood_gap) < 0.01


def test_inverted_images_show_the_gap_of_the_closed_form(schedule: Schedule) -> None:
    n, variance, mine, shift = 400, 0.5, 0.1, 0.6
    d = 64
    law = Gaussian(torch.zeros(d), torch.zeros(d, 0), torch.tensor(variance))
    images = shift + mine**0.5 * normals(0, n)
    latents = invert(GaussianEps(schedule, SHAPE, law), images, schedule.grid(60, LEVEL))
    found = prior_gap(latents, images, schedule, LEVEL)
    a, s = schedule.a(LEVEL).item(), schedule.s(LEVEL).item()
    gain = (a**2 * variance + s**2) / variance  # of variances, along the flow
    ratio = mine * gain / (a**2 * mine + s**2)
    assert ratio < 0.3
    assert found.trace_ratio == pytest.approx(ratio, rel=0.05)
    # Latents are a linear image of the pictures: even single bands scatter little.
    assert found.variance_ratio == pytest.approx([ratio] * 5, rel=0.2)
    assert found.mean_offset == pytest.approx((gain**0.5 - a) * shift * d**0.5, rel=0.02)
    # Expected log-density of both laws under the true one, a shifted Gaussian.
    closed = a**2 * mine + s**2
    squared = ((gain**0.5 - a) * shift) ** 2 / closed
    gap = (ratio + squared - 1 - torch.tensor(ratio).log().item()) / 2
    assert found.log_likelihood_gap == pytest.approx(gap, rel=0.05)
    assert found.log_likelihood_gap_sd < 0.05 * gap


def test_bands_find_the_frequency_that_differs(schedule: Schedule) -> None:
    images = normals(0, 300)
    a, s = schedule.a(LEVEL).item(), schedule.s(LEVEL).item()
    latents = a * images + s * normals(1, 300)
    level = latents.mean((2, 3), keepdim=True)
    found = prior_gap(latents + level, images, schedule, LEVEL)  # twice the mean: 4 the variance
    assert found.variance_ratio[0] == pytest.approx(4, rel=0.25)
    assert found.variance_ratio[1:] == pytest.approx([1] * 4, abs=0.15)


def test_summary_is_json_and_bad_input_is_named(schedule: Schedule) -> None:
    x = normals(0, 10)
    summary = prior_gap(x, x, schedule, LEVEL).summary()
    assert json.loads(json.dumps(summary))["bands"][0]["high"] == 1
    for arguments, word in (((x, x[:9], schedule, LEVEL), "same images"),
                            ((x, x, schedule, 0), "level"), ((x[:7], x[:7], schedule, 9), "folds")):
        with pytest.raises(UnseenError, match=word):
            prior_gap(*arguments)
