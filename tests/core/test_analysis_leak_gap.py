"""Leaks and latents: noised images are their leak's own, inverted ones differ as predicted."""

import json

import pytest
import torch
from torch import Tensor

from unseen_core.analysis.latents import frequency_bands, leak_gap
from unseen_core.analysis.latents.leak_gap import band_variances
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import invert
from unseen_core.errors import UnseenError
from unseen_core.laws.frequency import dct
from unseen_core.laws.gaussian import Gaussian

SHAPE = (2, 6, 8)
LEVEL = 500


def normals(seed: int, n: int) -> Tensor:
    """Standard normals, float64 (n, *SHAPE)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kind, rank", [("diagonal", None), ("dct", 4), ("empirical", None)])
def test_band_variances_are_those_of_the_dense_covariance(kind: str, rank: int | None) -> None:
    law = Gaussian.fit(normals(0, 30).flatten(1).cumsum(1) / 9, kind=kind, rank=rank, shape=SHAPE)
    edges, index = frequency_bands(6, 8)
    waves = dct(torch.eye(96).double().reshape(96, *SHAPE)).flatten(1).T
    covariance = law.factor @ law.factor.T + law.diagonal.expand(96).diag()
    variances = (waves @ covariance @ waves.T).diagonal().reshape(SHAPE)
    wanted = torch.stack([variances[:, index == band].mean() for band in range(len(edges))])
    torch.testing.assert_close(band_variances(law, SHAPE, index), wanted)


def test_noised_images_of_independent_pixels_are_their_leaks_own(schedule: Schedule) -> None:
    """The leak that pools nothing is as good as the prior; no band differs."""
    images = 0.3 + 0.4 * normals(1, 400)
    a, s = schedule.a(LEVEL), schedule.s(LEVEL)
    found = leak_gap(a * images + s * normals(2, 400), images, schedule, LEVEL)
    for twin in found.leaks.values():
        assert abs(twin.gap) < 0.01 and twin.gap_sd < 0.01
        assert torch.tensor(twin.variance_ratio).sub(1).abs().max() < 0.15
    entropy = 0.5 * torch.log(2 * torch.pi * torch.e * (0.16 * a**2 + s**2)).item()
    assert found.prior_nats == pytest.approx(-entropy, abs=0.01)
    assert found.frechet < found.frechet_noise < 0.3


def test_inverted_images_differ_as_the_closed_form_says(schedule: Schedule) -> None:
    """A network that knows variance 0.5 stretches images of variance 0.1 by another factor."""
    n, variance, mine = 300, 0.5, 0.1
    law = Gaussian(torch.zeros(96), torch.zeros(96, 0), torch.tensor(variance))
    images = mine**0.5 * normals(3, n)
    latents = invert(GaussianEps(schedule, SHAPE, law), images, schedule.grid(40, LEVEL))
    a, s = schedule.a(LEVEL).item(), schedule.s(LEVEL).item()
    ratio = mine * (a**2 + s**2 / variance) / (a**2 * mine + s**2)
    found = leak_gap(latents, images, schedule, LEVEL)
    gap = (ratio - 1 - torch.tensor(ratio).log().item()) / 2
    for twin in found.leaks.values():
        assert twin.variance_ratio == pytest.approx([ratio] * len(found.bands), rel=0.1)
        assert twin.gap == pytest.approx(gap, rel=0.05) and twin.gap_sd < 0.05 * gap
        assert found.prior_nats - twin.nats == pytest.approx(twin.gap)
    spread = (mine * (a**2 + s**2 / variance)) ** 0.5 - (a**2 * mine + s**2) ** 0.5
    assert found.frechet == pytest.approx(spread**2, rel=0.1)


def test_a_leak_of_frequencies_beats_one_of_pixels_on_smooth_images(schedule: Schedule) -> None:
    level = 200
    mean = normals(4, 200).mean((2, 3), keepdim=True) * 4
    images = mean + 0.1 * normals(5, 200)
    noised = schedule.a(level) * images + schedule.s(level) * normals(6, 200)
    leaks = leak_gap(noised, images, schedule, level).leaks
    assert leaks["dct"].nats > leaks["pixel"].nats + 0.02
    assert leaks["dct"].variance_ratio[0] == pytest.approx(1, abs=0.05)
    assert leaks["pixel"].variance_ratio[0] > 5  # pixels on their own have no common brightness


def test_summary_is_json_and_bad_input_is_named(schedule: Schedule) -> None:
    x = normals(0, 10)
    summary = json.loads(json.dumps(leak_gap(x, x, schedule, LEVEL).summary()))
    assert summary["bands"][0].keys() == {"low", "high", "pixel", "dct"}
    assert summary["latents"] == 10 and summary["rank"] == 6
    for arguments, words in (((x, x[:9], schedule, LEVEL), "same 8 images"),
                             ((x[:7], x[:7], schedule, LEVEL), "8 images or more"),
                             ((x, x, schedule, 0), "level 0 is out of range")):
        with pytest.raises(UnseenError, match=words):
            leak_gap(*arguments)
