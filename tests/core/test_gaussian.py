"""The law N(m, F Fᵀ + diag v) against dense matrices."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import multivariate_normal
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian


def numbers(name: str, *shape: int) -> Tensor:
    """Standard normals that belong to ``name``."""
    return Streams(0, "gaussian", [name]).normal(*shape)[0]


def law(name: str, d: int = 7, rank: int = 3, *, vector: bool = False) -> Gaussian:
    """An arbitrary law."""
    diagonal = numbers(name + "v", d).square() + 0.1 if vector else torch.tensor(0.4)
    return Gaussian(numbers(name + "m", d), numbers(name + "f", d, rank), diagonal)


def dense(gaussian: Gaussian) -> Tensor:
    """The covariance as a matrix."""
    d = len(gaussian.mean)
    return gaussian.factor @ gaussian.factor.T + torch.diag(gaussian.diagonal.expand(d))


def dense_distance(mine: Gaussian, theirs: Gaussian) -> float:
    """The squared Fréchet distance by matrix square roots."""
    a, b = dense(mine).numpy(), dense(theirs).numpy()
    root = sqrtm(a)
    overlap = sqrtm(root @ b @ root).real.trace()
    shift = (mine.mean - theirs.mean).square().sum().item()
    return shift + a.trace() + b.trace() - 2 * overlap


VARIANTS = [
    law("plain"),
    law("empty", rank=0),
    law("wide", rank=11),
    law("vector", vector=True),
    law("vector-empty", rank=0, vector=True),
]
IDS = ["plain", "no factor", "rank above d", "per coordinate", "per coordinate, no factor"]


@pytest.mark.parametrize("gaussian", VARIANTS, ids=IDS)
def test_trace_and_log_density(gaussian: Gaussian) -> None:
    covariance = dense(gaussian)
    assert gaussian.trace == pytest.approx(covariance.trace().item(), rel=1e-12)
    x = 2 * numbers("x", 5, 7)
    expected = multivariate_normal(gaussian.mean.numpy(), covariance.numpy()).logpdf(x.numpy())
    assert torch.allclose(gaussian.log_prob(x), torch.from_numpy(expected), rtol=1e-10, atol=0)


@pytest.mark.parametrize("gaussian", VARIANTS, ids=IDS)
def test_law_of_noised_states(gaussian: Gaussian, schedule: Schedule) -> None:
    noised, a, s = gaussian.at(schedule, 400), schedule.a(400), schedule.s(400)
    expected = a**2 * dense(gaussian) + s**2 * torch.eye(7, dtype=torch.float64)
    assert torch.allclose(dense(noised), expected, rtol=1e-12, atol=1e-14)
    assert torch.allclose(noised.mean, a * gaussian.mean, rtol=1e-14, atol=0)
    assert torch.allclose(dense(gaussian.at(schedule, 0)), dense(gaussian), rtol=1e-14, atol=0)


@pytest.mark.parametrize("gaussian", VARIANTS, ids=IDS)
def test_draws_have_the_law(gaussian: Gaussian) -> None:
    count = 20_000
    draws = gaussian.sample(Streams(1, "draws", [str(i) for i in range(count)]))
    covariance = dense(gaussian)
    spread = covariance.diagonal()
    error = (draws.mean(0) - gaussian.mean) / (spread / count).sqrt()
    assert error.abs().max() < 5
    se = ((spread[:, None] * spread + covariance.square()) / count).sqrt()
    assert ((draws.T.cov() - covariance) / se).abs().max() < 5


def test_a_draw_belongs_to_its_stream() -> None:
    names = [str(i) for i in range(5)]
    whole = law("plain").sample(Streams(1, "draws", names))
    single = torch.cat([law("plain").sample(Streams(1, "draws", [name])) for name in names])
    assert whole.shape == (5, 7) and whole.dtype == torch.float64
    assert torch.allclose(whole, single, rtol=0, atol=1e-13)
    assert law("plain").sample(Streams(1, "draws", [])).shape == (0, 7)


@pytest.mark.parametrize("gaussian", [VARIANTS[i] for i in (0, 1, 2, 4)], ids=lambda _: "law")
@pytest.mark.parametrize(("source", "target"), [(0, 500), (500, 0), (900, 300), (300, 300)])
def test_transport_maps_one_law_to_the_other(
    gaussian: Gaussian, schedule: Schedule, source: int, target: int
) -> None:
    before, after = gaussian.at(schedule, source), gaussian.at(schedule, target)
    x = numbers("start", 5, 7)
    moved = gaussian.transport(x, schedule, source, target)
    # The map is m' + C'^½ C^-½ (x - m): the two covariances commute.
    root = torch.from_numpy(sqrtm(dense(after).numpy()).real)
    inverse = torch.linalg.inv(torch.from_numpy(sqrtm(dense(before).numpy()).real))
    expected = after.mean + (x - before.mean) @ (root @ inverse).T
    assert torch.allclose(moved, expected, rtol=1e-9, atol=1e-10)
    back = gaussian.transport(moved, schedule, target, source)
    assert torch.allclose(back, x, rtol=0, atol=1e-10)
    assert gaussian.transport(x.float(), schedule, source, target).dtype == torch.float32


def test_transport_without_a_remainder(schedule: Schedule) -> None:
    thin = Gaussian(numbers("m", 7), numbers("f", 7, 2), torch.tensor(0.0))
    image = thin.transport(numbers("start", 3, 7), schedule, 500, 0)
    directions = thin.modes()[0]
    deviation = image - thin.mean
    assert torch.allclose(deviation, deviation @ directions @ directions.T, rtol=0, atol=1e-12)
    with pytest.raises(UnseenError, match="variance 0"):
        thin.transport(image, schedule, 0, 500)
    assert torch.equal(thin.transport(image, schedule, 0, 0), image)
    with pytest.raises(UnseenError, match="closed-form"):
        law("vector", vector=True).transport(image, schedule, 500, 0)


@pytest.mark.parametrize("mine", VARIANTS, ids=IDS)
@pytest.mark.parametrize("theirs", VARIANTS, ids=IDS)
def test_distance_equals_the_dense_formula(mine: Gaussian, theirs: Gaussian) -> None:
    assert mine.distance(theirs) == pytest.approx(dense_distance(mine, theirs), rel=1e-7, abs=1e-6)


def test_distance_off_the_span_of_both_factors() -> None:
    d = 40
    mine = Gaussian(numbers("a", d), numbers("af", d, 3), torch.tensor(0.5))
    theirs = Gaussian(numbers("b", d), numbers("bf", d, 4), torch.tensor(1.7))
    expected = dense_distance(mine, theirs)
    assert mine.distance(theirs) == pytest.approx(expected, rel=1e-9)
    assert theirs.distance(mine) == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 10**6), rank=st.integers(0, 4), shift=st.floats(-3, 3))
def test_distance_is_a_distance(seed: int, rank: int, shift: float) -> None:
    one = law(f"one{seed}", rank=rank)
    other = law(f"other{seed}", rank=2)
    assert one.distance(one) == pytest.approx(0, abs=1e-10)
    assert one.distance(other) == pytest.approx(other.distance(one), rel=1e-9)
    moved = Gaussian(one.mean + shift, one.factor, one.diagonal)
    assert one.distance(moved) == pytest.approx(7 * shift**2, rel=1e-9, abs=1e-10)
    turn = torch.linalg.qr(numbers(f"turn{seed}", 7, 7))[0]
    turned = [Gaussian(turn @ g.mean + 1, turn @ g.factor, g.diagonal) for g in (one, other)]
    assert turned[0].distance(turned[1]) == pytest.approx(one.distance(other), rel=1e-8)


def test_high_dimensions_stay_cheap_or_are_refused() -> None:
    d = 50_000
    one = Gaussian(torch.zeros(d), numbers("tall", d, 2), torch.tensor(1.0))
    other = Gaussian(torch.ones(d), torch.zeros(d, 0), torch.tensor(4.0))
    singular = torch.linalg.svdvals(one.factor).square()
    within = ((1 + singular).sqrt() - 2).square().sum().item()
    assert one.distance(other) == pytest.approx(d + within + (d - 2), rel=1e-10)
    vector = Gaussian(torch.zeros(d), torch.zeros(d, 0), torch.full((d,), 4.0))
    assert vector.distance(other) == pytest.approx(d, rel=1e-12)
    with pytest.raises(UnseenError, match="4096"):
        one.distance(vector)


def test_state_round_trip() -> None:
    for gaussian in VARIANTS:
        again = Gaussian.from_state(gaussian.state())
        assert all(torch.equal(again.state()[k], v) for k, v in gaussian.state().items())
    half = {name: value.half() for name, value in law("plain").state().items()}
    assert Gaussian.from_state(half).factor.dtype == torch.float64
    with pytest.raises(UnseenError, match="lacks factor"):
        Gaussian.from_state({"mean": torch.zeros(2), "diagonal": torch.tensor(1.0)})


def test_things_that_are_no_law_are_refused() -> None:
    zero, one = torch.zeros(3), torch.tensor(1.0)
    for mean, factor, diagonal in (
        (zero, torch.zeros(2, 1), one),
        (zero, zero, one),
        (zero, torch.zeros(3, 1), torch.ones(2)),
        (zero, torch.zeros(3, 1), -one),
        (zero * math.nan, torch.zeros(3, 1), one),
    ):
        with pytest.raises(UnseenError, match="Gaussian"):
            Gaussian(mean, factor, diagonal)
    with pytest.raises(UnseenError, match="no density"):
        Gaussian(zero, torch.ones(3, 1), torch.tensor(0.0)).log_prob(torch.zeros(1, 3))
    with pytest.raises(UnseenError, match=r"needs \(n, 7\)"):
        law("plain").log_prob(torch.zeros(7))
    with pytest.raises(UnseenError, match="dimensions"):
        law("plain").distance(law("small", d=3))
