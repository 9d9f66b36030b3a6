"""The exact noise predictors, and what priors become under an exact network."""

import pytest
import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps, MixtureEps
from unseen_core.diffusion.transport import denoise, invert
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian

SHAPE = (1, 2, 2)
LEVEL = 500


def numbers(name: str, *shape: int) -> Tensor:
    """Standard normals that belong to ``name``."""
    return Streams(0, "oracle", [name]).normal(*shape)[0]


def dense(gaussian: Gaussian) -> Tensor:
    """The covariance as a matrix."""
    d = len(gaussian.mean)
    return gaussian.factor @ gaussian.factor.T + torch.diag(gaussian.diagonal.expand(d))


@pytest.mark.parametrize("remainder", [0.0, 0.3])
@pytest.mark.parametrize("rank", [0, 2, 6])
@pytest.mark.parametrize("level", [1, 300, 1000])
def test_gaussian_answers_solve_the_dense_system(
    schedule: Schedule, remainder: float, rank: int, level: int
) -> None:
    law = Gaussian(numbers("m", 4), numbers("f", 4, rank), torch.tensor(remainder))
    x = numbers("x", 5, *SHAPE)
    a, s = schedule.a(level), schedule.s(level)
    covariance = a**2 * dense(law) + s**2 * torch.eye(4, dtype=torch.float64)
    expected = s * torch.linalg.solve(covariance, (x.flatten(1) - a * law.mean).T).T
    answer = GaussianEps(schedule, SHAPE, law)(x, level)
    assert answer.shape == x.shape and answer.dtype == torch.float64
    assert torch.allclose(answer.flatten(1), expected, rtol=1e-8, atol=1e-9)


def test_answers_are_the_score(schedule: Schedule) -> None:
    law = Gaussian(numbers("m", 4), numbers("f", 4, 2), torch.tensor(0.3))
    means, variances = numbers("means", 3, 4), numbers("variances", 3, 4).square() + 0.1
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    mixture = MixtureEps(schedule, SHAPE, 7 * weights, means, variances)
    x = numbers("x", 5, *SHAPE).requires_grad_()
    for level in (1, 400):
        parts = [
            Gaussian(mean, torch.zeros(4, 0), v).at(schedule, level).log_prob(x.flatten(1))
            for mean, v in zip(means, variances, strict=True)
        ]
        logs = {
            GaussianEps(schedule, SHAPE, law): law.at(schedule, level).log_prob(x.flatten(1)),
            mixture: torch.logsumexp(weights.log() + torch.stack(parts, 1), 1),
        }
        for model, log_prob in logs.items():
            (score,) = torch.autograd.grad(log_prob.sum(), x)
            expected = -schedule.s(level) * score
            assert torch.allclose(model(x, level), expected, rtol=1e-9, atol=1e-10)


def test_a_mixture_of_one_is_a_gaussian(schedule: Schedule) -> None:
    mean, x = numbers("m", 4), numbers("x", 5, *SHAPE)
    law = Gaussian(mean, torch.zeros(4, 0), torch.tensor(0.2))
    twin = MixtureEps(schedule, SHAPE, torch.ones(2), mean.expand(2, 4), torch.full((2,), 0.2))
    variances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    vector = MixtureEps(schedule, SHAPE, torch.ones(1), mean[None], variances)
    per_pixel = Gaussian(mean, torch.zeros(4, 0), variances[0])
    for level in (0, 1, 700):
        expected = GaussianEps(schedule, SHAPE, law)(x, level)
        assert torch.allclose(twin(x, level), expected, rtol=1e-7, atol=1e-9)
        expected = GaussianEps(schedule, SHAPE, per_pixel)(x, level)
        assert torch.allclose(vector(x, level), expected, rtol=1e-9, atol=1e-10)


def test_clean_images_are_shown_at_level_one(schedule: Schedule) -> None:
    law = Gaussian(numbers("m", 4), numbers("f", 4, 2), torch.tensor(0.1))
    model, x = GaussianEps(schedule, SHAPE, law), numbers("x", 5, *SHAPE)
    assert torch.allclose(model(x, 0), model(schedule.a(1) * x, 1), rtol=1e-12, atol=1e-14)
    assert model(law.mean.reshape(1, *SHAPE), 0).abs().max() < 1e-15


def source_and_target() -> tuple[Gaussian, Gaussian]:
    """The network's domain and an unseen one, of unlike means and axes."""
    turn = torch.linalg.qr(numbers("turn", 4, 4))[0]
    spectrum = torch.tensor([2.0, 0.8, 0.3, 0.1], dtype=torch.float64)
    source = Gaussian(torch.full((4,), 0.3), turn * spectrum.sqrt(), torch.tensor(0.0))
    other = torch.linalg.qr(numbers("other", 4, 4))[0]
    spectrum = torch.tensor([1.0, 0.5, 0.2, 0.05], dtype=torch.float64)
    target = Gaussian(torch.tensor([-0.8, 0.5, 0, 1]), other * spectrum.sqrt(), torch.tensor(0.0))
    return source, target


def check_moments(images: Tensor, mean: Tensor, covariance: Tensor, count: int) -> None:
    """Assert both moments within 5 standard errors of ``count`` draws, and 1 % of solver error."""
    flat = images.flatten(1)
    spread = covariance.diagonal()
    allowed = 5 * (spread / count).sqrt() + 0.01 * spread.sqrt()
    assert ((flat.mean(0) - mean).abs() < allowed).all()
    scale = spread[:, None] * spread
    allowed = 5 * ((scale + covariance.square()) / count).sqrt() + 0.01 * scale.sqrt()
    assert ((flat.T.cov() - covariance).abs() < allowed).all()


def test_inverted_prior_returns_the_target_and_isotropic_does_not(schedule: Schedule) -> None:
    source, target = source_and_target()
    model, grid = GaussianEps(schedule, SHAPE, source), schedule.grid(60, LEVEL)
    count = 4000
    names = [str(i) for i in range(count)]
    images = target.sample(Streams(0, "target", names)).reshape(-1, *SHAPE)
    latents = invert(model, images, grid).flatten(1)

    def generate(prior: Gaussian) -> Tensor:
        draws = prior.sample(Streams(0, "draws", names))
        return denoise(model, draws.reshape(-1, *SHAPE), grid)

    # Both the fit and the draws have the error of `count` samples.
    full = generate(Gaussian.fit(latents, kind="empirical"))
    check_moments(full, target.mean, dense(target), count // 2)

    isotropic = Gaussian.fit(latents, kind="isotropic")
    directions, variances = source.modes()
    a, s = schedule.a(LEVEL), schedule.s(LEVEL)
    ends = isotropic.diagonal * variances / (a**2 * variances + s**2)
    covariance = directions @ torch.diag(ends) @ directions.T
    out = generate(isotropic)
    check_moments(out, target.mean, covariance, count // 2)
    assert (out.flatten(1).T.cov() - dense(target)).abs().max() > 0.2


@pytest.mark.parametrize("own", [True, False], ids=["own statistics", "target statistics"])
def test_closed_prior_keeps_offsets_by_the_root_of_kappa(schedule: Schedule, own: bool) -> None:
    source, target = source_and_target()
    target = source if own else target
    model, grid = GaussianEps(schedule, SHAPE, source), schedule.grid(60, LEVEL)
    closed = target.at(schedule, LEVEL)
    draws = closed.sample(Streams(0, "closed", [str(i) for i in range(4000)]))
    images = denoise(model, draws.reshape(-1, *SHAPE), grid)
    directions, variances = source.modes()
    a, s = schedule.a(LEVEL), schedule.s(LEVEL)
    gain = (variances / (a**2 * variances + s**2)).sqrt()
    offset = directions @ (gain * (directions.T @ (a * (target.mean - source.mean))))
    root = directions @ torch.diag(gain) @ directions.T
    check_moments(images, source.mean + offset, root @ dense(closed) @ root, 4000)


def test_mistakes_are_named(schedule: Schedule) -> None:
    law = Gaussian(torch.zeros(3), torch.zeros(3, 0), torch.tensor(1.0))
    with pytest.raises(UnseenError, match=r"law has 3 dimensions, \(1, 2, 2\) needs 4"):
        GaussianEps(schedule, SHAPE, law)
    mixed = Gaussian(torch.zeros(4), torch.ones(4, 1), torch.ones(4))
    with pytest.raises(UnseenError, match="closed-form"):
        GaussianEps(schedule, SHAPE, mixed)
    one, means = torch.ones(1), torch.zeros(1, 4)
    for weights, centres, variances, named in (
        (torch.ones(2), means, one, "weights"),
        (one, torch.zeros(1, 3), one, "means has 3"),
        (one, means, torch.ones(1, 3), "variances"),
        (-one, means, one, "positive"),
        (one, means, -one, "positive"),
    ):
        with pytest.raises(UnseenError, match=named):
            MixtureEps(schedule, SHAPE, weights, centres, variances)
