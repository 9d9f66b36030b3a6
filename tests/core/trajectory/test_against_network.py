"""Approximations of a network, its measured modes, and domains in them."""

import pytest
import torch
from torch import Tensor

from unseen_core.analysis.trajectory import (
    DeltaEps,
    Spectrum,
    best_of,
    clean_of,
    closed_forms,
    content,
    explained_variance,
    half_levels,
    misfit,
    mode_groups,
    rank_correlation,
)
from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps, MixtureEps
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

SHAPE = (1, 2, 3)
D = 6


def normals(name: str, *shape: int) -> Tensor:
    """Standard normals, float64, that belong to ``name``."""
    return Streams(0, name, ["all"]).normal(*shape)[0]


@pytest.fixture
def law() -> Gaussian:
    """Two large modes and a remainder."""
    directions = torch.linalg.qr(normals("directions", D, 2)).Q
    scale = torch.tensor([3.0, 1.5], dtype=torch.float64)
    return Gaussian(torch.full((D,), 0.2), directions * scale, torch.tensor(0.05))


def test_memory_is_a_mixture_of_points(schedule: Schedule) -> None:
    centres, x = normals("centres", 7, D), normals("x", 4, *SHAPE)
    memory = DeltaEps(schedule, SHAPE, centres)
    mixture = MixtureEps(schedule, SHAPE, torch.ones(7), centres, torch.zeros(7))
    for level in (30, 300, 1000):
        torch.testing.assert_close(memory(x, level), mixture(x, level), rtol=1e-7, atol=1e-9)
    near = schedule.a(20) * centres[:4] + schedule.s(20) * normals("noise", 4, D)
    torch.testing.assert_close(clean_of(memory, near.reshape(4, *SHAPE), 20)[1], centres[:4])
    with pytest.raises(UnseenError, match="flattened"):
        DeltaEps(schedule, SHAPE, centres[:, :5])


def test_the_right_approximation_explains_everything(schedule: Schedule, law: Gaussian) -> None:
    network = GaussianEps(schedule, SHAPE, law)
    images = law.sample(Streams(0, "images", [str(i) for i in range(40)]))
    others = closed_forms(law, images[:20], schedule, SHAPE)
    for level in (100, 500, 900):
        a, s = schedule.a(level), schedule.s(level)
        x = (a * images[20:] + s * normals("noise", 20, D)).reshape(-1, *SHAPE)
        found = misfit(network, others, x, level)
        clean = {name: explained_variance(m.clean) for name, m in found.items()}
        assert clean["gaussian"].value == pytest.approx(1)
        for name in ("mean", "delta"):
            assert clean[name].low <= clean[name].value <= clean[name].high < 1
            noise = explained_variance(found[name].noise)
            if level == 900:  # where the noise is predictable without any idea of the image
                assert noise.value > 0.98 and noise.value > clean[name].value
        torch.testing.assert_close(clean_of(others["mean"], x, level)[1],
                                   law.mean.expand(20, -1), rtol=1e-7, atol=1e-7)
        assert best_of({name: 1 - ev.value for name, ev in clean.items()}) == "gaussian"
    with pytest.raises(UnseenError, match="level 1"):
        misfit(network, others, images.reshape(-1, *SHAPE), 0)


def test_a_share_must_stay_above_one_half(schedule: Schedule) -> None:
    levels = (900, 700, 500, 300, 100)
    curves = torch.tensor([
        [0.9, 0.2, 0.4, 0.6, 1.0],  # the network's first guess of a mode may be far too large
        [0.6, 0.7, 0.8, 0.9, 1.0],
        [0.0, 0.0, 0.1, 0.2, 0.4],
    ]).T
    found = half_levels(curves, levels, schedule)
    assert found[1:] == [900, 1]
    # Half way between the nodes in log sigma.
    middle = (schedule.sigma(500) * schedule.sigma(300)).sqrt().item()
    assert schedule.sigma(round(found[0])).item() == pytest.approx(middle, rel=0.02)


def test_groups_cover_every_mode_once() -> None:
    for count in (1, 3, 16, 17, 100, 256):
        groups = mode_groups(count)
        assert [i for group in groups for i in group] == list(range(count))
        assert all(len(group) == 1 for group in groups[:16])


def test_rank_correlation_and_its_interval() -> None:
    x = list(range(20))
    perfect = rank_correlation(x, [value**3 for value in x])
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1, 1, 1))
    assert rank_correlation(x, x[::-1]).value == pytest.approx(-1)
    loose = rank_correlation(x, normals("y", 20).tolist())
    assert loose.low < 0 < loose.high
    with pytest.raises(UnseenError, match="three or more"):
        rank_correlation([1, 2], [1, 2])


def test_a_domain_in_the_modes_of_the_seen_one(schedule: Schedule, law: Gaussian) -> None:
    spectrum = Spectrum.of(law)
    torch.testing.assert_close(spectrum.variances, torch.tensor([9.05, 2.3]).double())
    inside = law.mean + normals("a", 30, 2) @ spectrum.directions.T
    found = content(inside, spectrum, schedule, [1, 500, 1000])
    assert found["energy_inside"] == pytest.approx(1)
    assert found["variance_inside"] == pytest.approx(1)
    assert [row["settled"] for row in found["settled"]] == pytest.approx([1, 0, 0])
    # sigma is 2.1 at level 410, between the two modes.
    row, = content(inside, spectrum, schedule, [410])["settled"]
    own = (inside - inside.mean(0)) @ spectrum.directions
    share = own.square().sum(0) / own.square().sum()
    noise = schedule.sigma(410).square()
    assert row["settled"] == pytest.approx(share[0].item())
    assert row["kept"] == pytest.approx(
        (share * spectrum.variances / (spectrum.variances + noise)).sum().item())
    outside = spectrum.off_span(normals("b", 30, D)) + spectrum.mean
    assert content(outside, spectrum, schedule, [500])["energy_inside"] == pytest.approx(0)
    with pytest.raises(UnseenError, match="no variance"):
        content(inside[:1].expand(4, -1), spectrum, schedule, [500])


def test_a_law_without_modes_is_refused() -> None:
    with pytest.raises(UnseenError, match="no principal modes"):
        Spectrum.of(Gaussian(torch.zeros(D), torch.zeros(D, 0), torch.tensor(1.0)))
