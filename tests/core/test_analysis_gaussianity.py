"""Calibration on exact Gaussians, planted departures, and moments by scipy."""

import json

import pytest
import torch
from scipy import stats
from torch import Tensor

from unseen_core.analysis.latents import gaussianity
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError

N, D = 100, 3072


def normals(seed: int, n: int = N, d: int = D) -> Tensor:
    """Standard normals, float64 (n, d)."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shares(latents: Tensor, name: str, projections: int = 400) -> tuple[float, float]:
    """Shares of projections or components rejected, raw and by Benjamini-Hochberg."""
    part = gaussianity(latents, projections=projections).summary()[name]
    return part["rejected"], part["rejected_bh"]


def test_exact_gaussians_are_rejected_at_the_nominal_rate() -> None:
    spectrum = torch.arange(1, D + 1, dtype=torch.float64) ** -0.25  # effective rank ~ d / 5
    found = [gaussianity(0.3 + spectrum * normals(seed), projections=300) for seed in range(3)]
    p = torch.cat([f.projection_p for f in found])
    assert (p < 0.05).double().mean().item() == pytest.approx(0.05, abs=0.025)
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    scores = torch.cat([f.component_p.flatten() for f in found])
    assert len(scores) == 120
    assert (scores < 0.05).sum() <= 13  # binomial (120, 5 %): 13 or fewer with 99.4 %
    for f in found:
        assert f.summary()["projections"]["rejected_bh"] < 0.01
        assert f.summary()["components"]["rejected_bh"] == 0


def test_two_far_clusters_are_rejected() -> None:
    sign = torch.arange(N, dtype=torch.float64)[:, None] % 2 * 2 - 1
    clusters = normals(0) + 6 * sign * normals(1, 1)
    raw, corrected = shares(clusters, "projections")
    assert raw > 0.8 and corrected > 0.8
    assert gaussianity(clusters, projections=1).component_p[:, 0].max() < 1e-4


def test_clusters_too_near_for_projections_show_in_the_first_component() -> None:
    sign = torch.arange(N, dtype=torch.float64)[:, None] % 2 * 2 - 1
    clusters = normals(0) + 0.5 * sign * normals(1, 1)
    assert shares(clusters, "projections")[1] < 0.01
    assert gaussianity(clusters, projections=1).component_p[:, 0].max() < 1e-3


def test_components_of_one_half_test_the_other() -> None:
    x = normals(0, 40, 30).exp() * torch.linspace(1, 3, 30)
    order = Streams(5, "gaussianity/halves", ["all"]).choose(40, 40)[0]
    for row, fitted, tested in ((0, order[:20], order[20:]), (1, order[20:], order[:20])):
        directions = torch.linalg.svd(x[fitted] - x[fitted].mean(0), full_matrices=False)[2]
        wanted = [stats.shapiro(x[tested] @ u).pvalue for u in directions[:4]]
        found = gaussianity(x, projections=1, components=4, seed=5).component_p[row]
        assert found.tolist() == pytest.approx(wanted, rel=1e-6)


def test_heavy_tails_are_rejected() -> None:
    length = torch.from_numpy(stats.chi2.ppf((torch.arange(N).numpy() + 0.5) / N, 3) / 3) ** 0.5
    tails = normals(0) / length[:, None]
    raw, corrected = shares(tails, "projections")
    assert raw > 0.8 and corrected > 0.8
    summary = gaussianity(tails, projections=1).summary()["norm"]
    assert summary["sd"] > 5 * summary["gaussian_sd"]


def test_projections_do_not_see_the_shape_of_coordinates() -> None:
    signs = normals(0).sign()
    assert shares(signs, "projections")[1] < 0.01
    assert gaussianity(signs, projections=1).summary()["coordinates"]["kurtosis"]["mean"] < -1.9


def test_coordinates_are_those_of_scipy() -> None:
    x = (0.4 * normals(0, 50, 48)).exp()
    x[:, 7] = 3.0
    found = gaussianity(x.float().reshape(50, 3, 4, 4), projections=1).coordinates
    x = x.float().double()
    varies = torch.arange(48) != 7
    for name, wanted in (("skew", stats.skew(x[:, varies])),
                         ("kurtosis", stats.kurtosis(x[:, varies])),
                         ("mean", x[:, varies].mean(0)), ("variance", x[:, varies].var(0))):
        torch.testing.assert_close(found[name][varies], torch.as_tensor(wanted))
    assert [found[name][7].item() for name in ("mean", "skew", "kurtosis")] == [3, 0, 0]


def test_normal_coordinates_have_the_stated_moments() -> None:
    summary = gaussianity(normals(0), projections=1).summary()
    null, skew, kurtosis = (summary["normal_coordinate"], summary["coordinates"]["skew"],
                            summary["coordinates"]["kurtosis"])
    assert kurtosis["mean"] == pytest.approx(null["kurtosis_mean"],
                                             abs=4 * null["kurtosis_sd"] / D**0.5)
    assert skew["q95"] == pytest.approx(1.645 * null["skew_sd"], rel=0.1)
    assert skew["q05"] == pytest.approx(-1.645 * null["skew_sd"], rel=0.1)


def test_norms_and_effective_rank_of_a_known_law() -> None:
    scale = torch.ones(D, dtype=torch.float64)
    scale[:20] = 6
    # The mean lies along the wide directions and widens the norms.
    mean = torch.zeros(D, dtype=torch.float64)
    mean[:20] = 5
    trace, square = scale.square().sum().item(), scale.pow(4).sum().item()
    found = gaussianity(mean + scale * normals(0, 400), projections=1)
    norm = found.summary()["norm"]
    radius = (trace + 500) ** 0.5
    sd = (2 * square + 4 * 36 * 500) ** 0.5 / (2 * radius)
    assert norm["gaussian_mean"] == pytest.approx(radius, rel=0.01)
    assert norm["gaussian_sd"] == pytest.approx(sd, rel=0.1)
    assert norm["mean"] == pytest.approx(radius, rel=0.01)
    assert norm["sd"] == pytest.approx(sd, rel=0.1)
    rank = found.summary()["effective_rank"]
    assert rank["debiased"] == pytest.approx(trace**2 / square, rel=0.06)
    assert rank["sample"] < 0.8 * trace**2 / square


def test_directions_do_not_depend_on_their_number_and_the_summary_is_json() -> None:
    x = normals(0, 40, 64)
    few, many = gaussianity(x, projections=5), gaussianity(x, projections=130)
    torch.testing.assert_close(few.projection_p, many.projection_p[:5])
    assert json.loads(json.dumps(many.summary()))["projections"]["tests"] == 130
    assert gaussianity(x[:, :3], projections=5).component_p.shape == (2, 3)


def test_bad_input_is_named() -> None:
    for latents, settings, word in ((normals(0, 15, 4), {}, "latents"),
                                    (normals(0, 20, 4), {"projections": 0}, "projections"),
                                    (torch.ones(20, 4), {}, "equal")):
        with pytest.raises(UnseenError, match=word):
            gaussianity(latents, **settings)
