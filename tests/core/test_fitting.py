"""The estimators behind `Gaussian.fit`, against dense formulas, scikit-learn and planted laws."""

from typing import get_args

import pytest
import torch
from scipy.fft import dctn
from sklearn.covariance import LedoitWolf
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.fitting import Kind
from unseen_core.laws.frequency import low_frequencies
from unseen_core.laws.gaussian import Gaussian

SHAPE = (3, 5, 4)


def rows(name: str, n: int, d: int) -> Tensor:
    """n rows of standard normals that belong to ``name``."""
    return Streams(0, "fitting", [name]).normal(n, d)[0]


def correlated(n: int, d: int) -> Tensor:
    """n rows with a mean, unequal variances and correlations."""
    mixed = rows(f"x{n}", n, d) @ (rows("mix", d, d) / d**0.5)
    return torch.linspace(-3, 3, d) + mixed * torch.linspace(0.5, 2, d)


def dense(gaussian: Gaussian) -> Tensor:
    """The covariance as a matrix."""
    d = len(gaussian.mean)
    return gaussian.factor @ gaussian.factor.T + torch.diag(gaussian.diagonal.expand(d))


@pytest.mark.parametrize("n", [6, 40])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_gives_the_sample_mean_and_a_law(kind: Kind, n: int) -> None:
    x = correlated(n, 60)
    gaussian = Gaussian.fit(x.float(), kind=kind, rank=2, shape=SHAPE)
    assert gaussian.mean.dtype == gaussian.factor.dtype == torch.float64
    assert torch.allclose(gaussian.mean, x.float().double().mean(0), rtol=1e-12)
    total = x.var(0).sum().item()
    if kind == "isotropic-reference":
        assert gaussian.trace > total
    elif kind == "shrunk":
        assert gaussian.trace == pytest.approx(total * (n - 1) / n, rel=1e-6)
    elif kind != "dct":
        assert gaussian.trace == pytest.approx(total, rel=1e-6)


def test_isotropic_is_unbiased_and_the_reference_is_too_wide() -> None:
    d, n, truth = 30, 5, 1.7
    mean = torch.linspace(-2, 2, d)
    fits = [mean + truth**0.5 * rows(f"iso{i}", n, d) for i in range(300)]
    average = sum(Gaussian.fit(x, kind="isotropic").diagonal.item() for x in fits) / 300
    assert abs(average - truth) < 5 * truth * (2 / (d * (n - 1) * 300)) ** 0.5
    x = fits[0]
    inside = Gaussian.fit(x, kind="isotropic").diagonal
    pooled = (1 - 1 / n) * inside + x.mean(0).var(correction=0)
    reference = Gaussian.fit(x, kind="isotropic-reference").diagonal
    assert torch.allclose(reference, pooled, rtol=1e-12) and reference > 1.3 * inside


@pytest.mark.parametrize("uneven", [0.0, 0.1, 0.5, 1.0])
def test_diagonal_shrinkage_never_hurts_on_average(uneven: float) -> None:
    truth = torch.logspace(-uneven, uneven, 50, dtype=torch.float64)
    errors = torch.zeros(3, dtype=torch.float64)
    for i in range(100):
        x = truth.sqrt() * rows(f"diagonal{i}", 8, 50)
        plain = x.var(0)
        shrunk = Gaussian.fit(x, kind="diagonal")
        assert shrunk.factor.shape == (50, 0)
        for j, estimate in enumerate((shrunk.diagonal, plain, plain.mean())):
            errors[j] += (estimate - truth).square().mean() / 100
    assert errors[0] < errors[1], "against one variance per coordinate"
    assert errors[0] < errors[2] or uneven < 0.5, "against one variance for all"


def test_diagonal_shrinkage_of_equal_coordinates() -> None:
    same = Gaussian.fit(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), kind="diagonal")
    assert torch.allclose(same.diagonal, torch.full((2,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("n", [6, 40])
def test_empirical_is_the_sample_covariance(n: int) -> None:
    x = correlated(n, 12)
    assert torch.allclose(dense(Gaussian.fit(x, kind="empirical")), x.T.cov(), atol=1e-12)


@pytest.mark.parametrize("n", [8, 40])
def test_low_rank_keeps_the_leading_modes_and_averages_the_rest(n: int) -> None:
    x = correlated(n, 12)
    values, vectors = torch.linalg.eigh(x.T.cov())
    values[:9] = values[:9].mean()
    expected = vectors @ torch.diag(values) @ vectors.T
    fitted = Gaussian.fit(x, kind="low-rank", rank=3)
    assert fitted.factor.shape == (12, 3)
    assert torch.allclose(dense(fitted), expected, atol=1e-11)


@pytest.mark.parametrize(("n", "d"), [(40, 12), (12, 40), (3, 200), (60, 8)])
def test_shrunk_equals_scikit_learn(n: int, d: int) -> None:
    x = correlated(n, d)
    theirs = LedoitWolf().fit(x.numpy())
    ours = Gaussian.fit(x, kind="shrunk")
    assert (dense(ours) - torch.from_numpy(theirs.covariance_)).abs().max() < 1e-9
    tau = x.var(0, correction=0).mean()
    assert abs(ours.diagonal / tau - theirs.shrinkage_) < 1e-9


def test_spiked_recovers_planted_spikes_and_noise() -> None:
    d, n, noise = 2000, 60, 0.5
    spikes = torch.tensor([900.0, 400.0, 150.0], dtype=torch.float64)
    directions = torch.linalg.qr(rows("directions", d, 3))[0]
    ratios, floors, naive_floors, inflation = [], [], [], []
    for i in range(12):
        signal = rows(f"eta{i}", n, 3) * spikes.sqrt()
        x = signal @ directions.T + noise**0.5 * rows(f"noise{i}", n, d)
        fitted = Gaussian.fit(x, kind="spiked")
        naive = Gaussian.fit(x, kind="low-rank", rank=3)
        assert fitted.factor.shape == (d, 3), "only the planted modes stand above the edge"
        # Against the spikes as these n draws realised them, sqrt(2 / n) off the planted ones.
        realised = torch.linalg.eigvalsh(signal.T.cov()).flip(0)
        ratios.append(fitted.modes()[1] / realised)
        inflation.append(naive.modes()[1] / realised)
        floors.append(fitted.diagonal / noise)
        naive_floors.append(naive.diagonal / noise)
    assert (torch.stack(ratios).mean(0) - 1).abs().max() < 0.02
    assert abs(torch.stack(floors).mean() - 1) < 5e-3
    # What it corrects: modes inflated by gamma v = 17, and a floor low by the share 3 / (n - 1).
    assert torch.stack(inflation).mean(0)[2] > 1.09
    assert torch.stack(naive_floors).mean() < 0.965


def test_spiked_without_signal_is_isotropic_and_obeys_its_cap() -> None:
    x = rows("noise", 20, 400)
    fitted, isotropic = Gaussian.fit(x, kind="spiked"), Gaussian.fit(x, kind="isotropic")
    assert fitted.factor.shape == (400, 0)
    assert torch.allclose(fitted.diagonal, isotropic.diagonal, rtol=1e-12)
    strong = x + 50 * rows("eta", 20, 2) @ torch.linalg.qr(rows("two", 400, 2))[0].T
    assert Gaussian.fit(strong, kind="spiked").factor.shape[1] == 2
    capped = Gaussian.fit(strong, kind="spiked", rank=1)
    assert capped.factor.shape[1] == 1 and capped.diagonal > 2


def test_low_frequencies_are_those_of_the_transform() -> None:
    basis = low_frequencies(20, SHAPE)
    assert torch.allclose(basis.T @ basis, torch.eye(60, dtype=torch.float64), atol=1e-12)
    image = rows("image", 1, 60).reshape(SHAPE)
    spectrum = torch.from_numpy(dctn(image.numpy(), axes=(1, 2), norm="ortho"))
    kept = low_frequencies(4, SHAPE).T @ image.flatten()
    expected = [spectrum[:, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert torch.allclose(kept, torch.cat(expected), atol=1e-12)
    assert torch.allclose(kept[:3], image.mean((1, 2)) * 20**0.5), "sqrt(h w) times the mean"


@pytest.mark.parametrize("rank", [2, 6])
def test_dct_keeps_low_covariance_and_total_variance(rank: int) -> None:
    basis = low_frequencies(rank, SHAPE)
    x = 3 * rows("low", 80, 3 * rank) @ basis.T + 0.4 * correlated(80, 60)
    fitted = Gaussian.fit(x, kind="dct", rank=rank, shape=SHAPE)
    assert fitted.diagonal.shape == (60,) and fitted.factor.shape == (60, 3 * rank)
    kept = basis.T @ dense(fitted) @ basis
    assert torch.allclose(kept, (x @ basis).T.cov(), rtol=1e-9, atol=1e-9)
    assert fitted.trace == pytest.approx(x.var(0).sum().item(), rel=1e-10)
    rest = x - x @ basis @ basis.T
    shares = fitted.diagonal / rest.var(0)
    assert torch.allclose(shares, shares.mean().expand(60), rtol=1e-10) and shares.mean() > 1


def test_dct_of_all_frequencies_is_the_empirical_law() -> None:
    x = correlated(80, 60)
    fitted = Gaussian.fit(x, kind="dct", rank=20, shape=SHAPE)
    assert fitted.diagonal.abs().max() == 0
    assert torch.allclose(dense(fitted), x.T.cov(), atol=1e-10)


def test_dct_shrinks_when_samples_are_few() -> None:
    x = correlated(6, 60) + rows("low", 6, 12) @ low_frequencies(4, SHAPE).T * 5
    basis = low_frequencies(4, SHAPE)
    kept = basis.T @ dense(Gaussian.fit(x, kind="dct", rank=4, shape=SHAPE)) @ basis
    weight = LedoitWolf().fit((x @ basis).numpy()).shrinkage_
    sample = (x @ basis).T.cov()
    identity = torch.eye(12, dtype=torch.float64)
    expected = (1 - weight) * sample + weight * sample.trace() / 12 * identity
    assert torch.allclose(kept, expected, rtol=1e-8, atol=1e-8)


def test_identical_samples_give_a_point() -> None:
    x = torch.ones(4, 60)
    for kind in get_args(Kind):
        fitted = Gaussian.fit(x, kind=kind, rank=2, shape=SHAPE)
        assert fitted.trace == pytest.approx(0, abs=1e-20), kind


def test_mistakes_are_named() -> None:
    x = rows("x", 5, 60)
    with pytest.raises(UnseenError, match="at least 2 samples, has 1"):
        Gaussian.fit(x[:1], kind="isotropic")
    with pytest.raises(UnseenError, match="not finite"):
        Gaussian.fit(x / 0, kind="isotropic")
    with pytest.raises(UnseenError, match=r"needs \(n, d\)"):
        Gaussian.fit(x[0], kind="isotropic")
    with pytest.raises(UnseenError, match="kind: 'full'"):
        Gaussian.fit(x, kind="full")  # type: ignore[arg-type]
    for rank in (None, 0, 5):
        with pytest.raises(UnseenError, match="rank: low-rank needs 1 to 4"):
            Gaussian.fit(x, kind="low-rank", rank=rank)
    with pytest.raises(UnseenError, match="rank: spiked"):
        Gaussian.fit(x, kind="spiked", rank=0)
    for rank in (None, 0, 21):
        with pytest.raises(UnseenError, match="rank: dct needs 1 to 20"):
            Gaussian.fit(x, kind="dct", rank=rank, shape=SHAPE)
    for shape in (None, (3, 5), (3, 5, 5)):
        with pytest.raises(UnseenError, match="shape: dct"):
            Gaussian.fit(x, kind="dct", rank=2, shape=shape)
