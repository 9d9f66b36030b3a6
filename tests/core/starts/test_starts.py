"""Each sampler's law, at the mixing level and after a perfect network has denoised it."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from unseen_core.diffusion.transport import denoise
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.truncated import truncated_variance
from unseen_core.starts import (
    STARTS,
    Bands,
    Boomerang,
    Crdi,
    Geometric,
    LocalScore,
    Noise,
    Prior,
    Reconstruction,
    SignalLeak,
    Slerp,
    StyleNoise,
    Teleport,
    build_sampler,
    slerp,
)

SAMPLES = 2000


def dense(law: Gaussian) -> Tensor:
    """The covariance as a matrix."""
    return law.factor @ law.factor.T + law.diagonal.expand(len(law.mean)).diag()


def exact_map(world) -> Tensor:
    """The matrix T of the network's flow from the level to clean, x0 - mu = T (x - a mu)."""
    schedule, level = world.context.schedule, world.context.level
    covariance = dense(world.source)
    at = schedule.a(level) ** 2 * covariance + schedule.s(level) ** 2 * torch.eye(12).double()
    root = [torch.from_numpy(sqrtm(c.numpy()).real) for c in (covariance, at)]
    return root[0] @ torch.linalg.inv(root[1])


def through(world, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of denoised starts, by the Gaussian flow in all directions."""
    shift = world.context.schedule.a(world.context.level) * world.source.mean
    matrix = exact_map(world)
    return world.source.mean + matrix @ (mean - shift), matrix @ covariance @ matrix.T


def assert_law(x: Tensor, mean: Tensor, covariance: Tensor, *, share: float) -> None:
    """Moments of rows within 5 standard errors, ``share`` = 1/n of all samples involved."""
    spread = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 5 * (spread * share).sqrt() + 1e-3).all()
    error = ((spread[:, None] * spread + covariance.square()) * share).sqrt()
    assert ((x.T.cov() - covariance).abs() < 5 * error + 1e-3).all()


def noise_row(world) -> None:
    """N(0, I) ends near the source's law, short of it by the Gaussian flow."""
    starts = Noise().draw(world.context, world.streams(SAMPLES))
    assert_law(starts.x.flatten(1).double(), torch.zeros(12).double(), torch.eye(12).double(),
               share=1 / SAMPLES)
    mean, covariance = through(world, torch.zeros(12).double(), torch.eye(12).double())
    assert_law(world.denoised(starts.x), mean, covariance, share=1 / SAMPLES)
    assert (mean - world.source.mean).norm() > 0.05  # the deficit is not noise


def reconstruction_row(world) -> None:
    """The images come back to solver accuracy."""
    starts = Reconstruction().draw(world.context, world.streams(len(world.images)))
    back = world.denoised(starts.x)
    torch.testing.assert_close(back, world.images.flatten(1), rtol=0, atol=5e-3)


def prior_row(world) -> None:
    """Empirical draws return the target's law; isotropic ones keep the source's covariance."""
    images = world.denoised(Prior("empirical").draw(world.context, world.streams(SAMPLES)).x)
    share = 1 / SAMPLES + 1 / len(world.images)
    assert_law(images, world.target.mean, dense(world.target), share=share)
    isotropic = world.fitted("isotropic")
    images = world.denoised(Prior("isotropic").draw(world.context, world.streams(SAMPLES)).x)
    assert_law(images, *through(world, isotropic.mean, dense(isotropic)), share=1 / SAMPLES)
    with pytest.raises(AssertionError):
        assert_law(images, world.target.mean, dense(world.target), share=share)


def slerp_row(world) -> None:
    """Points of great circles, mapped by the exact flow."""
    x = Slerp().draw(world.context, world.streams(300)).x.flatten(1).double()
    shift = world.context.schedule.a(world.context.level) * world.source.mean
    wanted = world.source.mean + (x - shift) @ exact_map(world).T
    torch.testing.assert_close(world.denoised(x.reshape(-1, 3, 2, 2)), wanted, rtol=0, atol=0.02)


def geometric_row(world) -> None:
    """Blends keep the references' mean and radius, and with them the target's mean."""
    starts = Geometric().draw(world.context, world.streams(SAMPLES))
    x, judge = starts.x.flatten(1).double(), world.context.judge
    share = 1 / SAMPLES + 1 / len(world.images)
    spread = world.flat.var(0)
    assert ((x.mean(0) - judge.mean).abs() < 5 * (spread * share).sqrt()).all()
    radii = world.flat.norm(dim=1)
    assert abs(x.norm(dim=1).mean() - radii.mean()) < 5 * radii.std() * share**0.5
    error = (dense(world.target).diagonal() * share).sqrt()
    assert ((world.denoised(starts.x).mean(0) - world.target.mean).abs() < 5 * error).all()


def bands_row(world) -> None:
    """Low frequencies of one reference and the rest of another keep the references' mean."""
    starts = Bands(cut=1.0, near=0, shell="none").draw(world.context, world.streams(SAMPLES))
    x, judge = starts.x.flatten(1).double(), world.context.judge
    share = 1 / SAMPLES + 1 / len(world.images)
    assert ((x.mean(0) - judge.mean).abs() < 5 * (world.flat.var(0) * share).sqrt()).all()
    error = (dense(world.target).diagonal() * share).sqrt()
    assert ((world.denoised(starts.x).mean(0) - world.target.mean).abs() < 5 * error).all()


def leak_row(world) -> None:
    """Draws have the law of noised images, and end where that law does."""
    starts = SignalLeak("low-rank", 8).draw(world.context, world.streams(SAMPLES))
    law = Gaussian.fit(world.images.flatten(1), kind="low-rank", rank=8)
    noised = law.at(world.context.schedule, world.context.level)
    assert_law(starts.x.flatten(1).double(), noised.mean, dense(noised), share=1 / SAMPLES)
    assert_law(world.denoised(starts.x), *through(world, noised.mean, dense(noised)),
               share=1 / SAMPLES)


def boomerang_row(world) -> None:
    """Over all images the states have the law of noised images, mixed as they are drawn."""
    starts = Boomerang().draw(world.context, world.streams(SAMPLES))
    law = Gaussian.fit(world.images.flatten(1), kind="empirical")
    noised = law.at(world.context.schedule, world.context.level)
    assert_law(starts.x.flatten(1).double(), noised.mean, dense(noised), share=1 / SAMPLES)


def crdi_row(world) -> None:
    """Noised images, each drawn at random."""
    starts = Crdi().draw(world.context, world.streams(SAMPLES))
    law = Gaussian.fit(world.images.flatten(1), kind="empirical")
    noised = law.at(world.context.schedule, world.context.level)
    assert_law(starts.x.flatten(1).double(), noised.mean, dense(noised), share=1 / SAMPLES)


def teleport_row(world) -> None:
    """Images of the network's own law, whatever the references are."""
    starts = Teleport().draw(world.context, world.streams(SAMPLES))
    source = world.source
    assert_law(world.denoised(starts.x), source.mean, dense(source), share=1.2 / SAMPLES)


def style_noise_row(world) -> None:
    """Mean and variances of the images at full strength, and the bias that they end with."""
    starts = StyleNoise().draw(world.context, world.streams(SAMPLES))
    flat = world.images.flatten(1)
    mean, covariance = flat.mean(0), flat.var(0).diag()
    assert_law(starts.x.flatten(1).double(), mean, covariance, share=1 / SAMPLES)
    assert_law(world.denoised(starts.x), *through(world, mean, covariance), share=1 / SAMPLES)


def local_row(world) -> None:
    """With patches that hold the whole image the states have the law of noised images."""
    starts = LocalScore(fine=9, coarse=9, calls=60).draw(world.context, world.streams(SAMPLES))
    law = Gaussian.fit(world.images.flatten(1), kind="empirical")
    noised = law.at(world.context.schedule, world.context.level)
    assert_law(starts.x.flatten(1).double(), noised.mean, dense(noised), share=1.5 / SAMPLES)


ROWS: dict[str, Callable[..., None]] = {
    "noise": noise_row,
    "reconstruction": reconstruction_row,
    "prior": prior_row,
    "slerp": slerp_row,
    "geometric": geometric_row,
    "bands": bands_row,
    "signal-leak": leak_row,
    "boomerang": boomerang_row,
    "crdi": crdi_row,
    "teleport": teleport_row,
    "style-noise": style_noise_row,
    "local-score": local_row,
}


@pytest.mark.parametrize("name", STARTS)
def test_every_sampler_has_its_law(world, name: str) -> None:
    ROWS[name](world)


@pytest.mark.parametrize("kind", ["isotropic", "empirical"])
def test_prior_draws_the_fitted_law(world, kind: str) -> None:
    starts = Prior(kind).draw(world.context, world.streams(SAMPLES))
    fitted = world.fitted(kind)
    assert_law(starts.x.flatten(1).double(), fitted.mean, dense(fitted), share=1 / SAMPLES)
    assert starts.x.dtype == torch.float32 and starts.parents.shape == (SAMPLES, 0)
    assert starts.acceptance == 1 and starts.level == 500 and not starts.passed


def test_pixel_space_is_left_alone_by_denoising(world) -> None:
    starts = Geometric().draw(world.pixels, world.streams(50))
    assert starts.level == 0
    assert torch.equal(denoise(world.model, starts.x, world.grid[:1]), starts.x)
    lengths = (starts.x.flatten(1).double() - world.images.flatten(1).mean(0)).norm(dim=1)
    assert lengths.mean() > 0.5  # blends of images, not of anything that was scaled down


def test_reconstruction_starts_again_when_references_run_out(world) -> None:
    starts = Reconstruction().draw(world.context, world.streams(402))
    assert starts.parents[[0, 399, 400, 401], 0].tolist() == [0, 399, 0, 1]
    assert torch.equal(starts.x[400], world.latents[0].float())


@pytest.mark.parametrize("partner", ["reference", "empirical"])
def test_slerp_draws_points_of_its_own_paths(world, partner: str) -> None:
    points, n = 4, 200
    starts = Slerp(partner=partner, points=points).draw(world.context, world.streams(n))
    flat, again = world.flat, world.streams(n)
    chosen = again.choose(len(flat), 2)
    if partner == "reference":
        ends = flat[chosen[:, 1]]
        assert torch.equal(starts.parents, chosen)
        assert (chosen[:, 0] != chosen[:, 1]).all()
    else:
        again.uniform(16)
        span = world.context.span(partner)
        ends = span.lift(span.draw(again), again)
        assert torch.equal(starts.parents, chosen[:, :1])
    weights = [torch.full((n,), k / (points + 1)) for k in range(1, points + 1)]
    paths = torch.stack([slerp(flat[chosen[:, 0]], ends, w) for w in weights], 1)
    gaps = (paths - starts.x.flatten(1)[:, None].double()).norm(dim=2)
    assert (gaps.min(1).values < 1e-5).all()
    assert gaps.argmin(1).unique().tolist() == list(range(points))


def test_slerp_keeps_points_inside_a_window(world) -> None:
    sampler = Slerp("isotropic", window="envelope")
    starts, alone = (sampler.draw(world.context, world.streams(40)[rows])
                     for rows in (slice(None), [7]))
    assert starts.proposed > 40 and starts.parents.shape == (40, 1)
    torch.testing.assert_close(alone.x[0], starts.x[7], rtol=1e-6, atol=1e-6)
    radius = starts.x.flatten(1).norm(dim=1)
    envelope = world.context.envelope
    assert ((radius >= envelope.low[0] - 1e-5) & (radius <= envelope.high[0] + 1e-5)).all()
    with pytest.raises(UnseenError, match=r"slerp .*2 of 2 start states found none in 5 trials"):
        Slerp(window="v2-published", trials=5).draw(world.context, world.streams(2))


@pytest.mark.parametrize("kind", ["isotropic", "empirical"])
def test_truncated_draws_keep_the_fitted_law(world, kind: str) -> None:
    starts = Prior(kind, truncate=1.0).draw(world.context, world.streams(SAMPLES))
    fitted, x = world.fitted(kind), starts.x.flatten(1).double()
    assert_law(x, fitted.mean, dense(fitted), share=1 / SAMPLES)
    if kind == "isotropic":
        bound = fitted.diagonal.sqrt() / truncated_variance(1.0) ** 0.5
        assert (x - fitted.mean).abs().max() <= bound * (1 + 1e-5)


@given(seed=st.integers(0, 10_000), weight=st.floats(0, 1), scale=st.floats(1e-3, 1e3))
def test_slerp_keeps_ends_and_lengths(seed: int, weight: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)
    y = y * scale
    at = slerp(x, y, torch.full((3,), weight, dtype=torch.float64))
    length = (1 - weight) * x.norm(dim=1) + weight * y.norm(dim=1)
    torch.testing.assert_close(at.norm(dim=1), length, rtol=1e-9, atol=0)
    torch.testing.assert_close(slerp(x, y, torch.zeros(3)), x, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(slerp(x, y, torch.ones(3)), y, rtol=1e-9, atol=1e-12)


def test_slerp_turns_evenly_and_goes_straight_between_parallels() -> None:
    x, y = torch.tensor([[1.0, 0], [2.0, 0]]).double(), torch.tensor([[0.0, 3], [6.0, 0]]).double()
    third = slerp(x, y, torch.full((2,), 1 / 3).double())
    wanted = 5 / 3 * torch.tensor([3**0.5 / 2, 0.5]).double()
    torch.testing.assert_close(third, torch.stack([wanted, torch.tensor([10 / 3, 0]).double()]))


@pytest.mark.parametrize("sampler", [
    Prior("empirical"), Slerp(), Noise(), Slerp("isotropic"), SignalLeak("dct", 2), Teleport(),
    SignalLeak("dct", 1, (0.0, 0.5, -0.5)), Boomerang(), StyleNoise()])
def test_a_row_depends_on_its_own_stream(world, sampler) -> None:
    together = sampler.draw(world.context, world.streams(5))
    alone = sampler.draw(world.context, world.streams(5)[[3]])
    torch.testing.assert_close(alone.x[0], together.x[3], rtol=1e-6, atol=1e-6)
    assert torch.equal(alone.parents[0], together.parents[3])


def test_build_sampler_sets_fields() -> None:
    assert build_sampler("mine", {"sampler": "slerp", "points": 3}) == Slerp(points=3)
    found = build_sampler("mine", {"sampler": "geometric", "alpha": 2, "shell": False})
    assert found == Geometric(alpha=2.0, shell=False)
    found = build_sampler("mine", {"sampler": "signal-leak", "rank": 1, "color": [0, 0.5, -1]})
    assert found == SignalLeak(rank=1, color=(0.0, 0.5, -1.0))


def test_controls_are_no_new_images_of_the_domain() -> None:
    controls = {name for name, sampler in STARTS.items() if sampler.control}
    assert controls == {"noise", "reconstruction", "teleport", "style-noise"}


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"sampler": "slrp"}, "'slrp' is not known; use one of bands, noise"),
        ({}, "'None' is not known"),
        ({"sampler": "noise", "kind": "isotropic"}, "no setting 'kind'; it takes no settings"),
        ({"sampler": "geometric", "parent": 2}, "no setting 'parent'; it takes alpha, eta"),
        ({"sampler": "geometric", "parents": "two"}, "'two' is not of type int"),
        ({"sampler": "geometric", "parents": 2.5}, "2.5 is not of type int"),
        ({"sampler": "geometric", "near": True}, "True is not of type int"),
        ({"sampler": "geometric", "shell": 1}, "1 is not of type bool"),
        ({"sampler": "geometric", "parents": 0}, "at least 1"),
        ({"sampler": "geometric", "trials": 0}, "at least 1"),
        ({"sampler": "geometric", "near": -1}, "near at least 0"),
        ({"sampler": "geometric", "alpha": 0}, "alpha 0 is out of range"),
        ({"sampler": "geometric", "alpha": float("nan")}, "alpha nan"),
        ({"sampler": "geometric", "alpha": float("inf")}, "alpha inf"),
        ({"sampler": "geometric", "parents": 4, "near": 2}, "near 2 is too small"),
        ({"sampler": "slerp", "points": 0}, "points 0 is too few"),
        ({"sampler": "slerp", "trials": 0}, "trials 0 is too few"),
        ({"sampler": "prior", "truncate": 0.01}, "truncate 0.01 is out of range"),
        ({"sampler": "signal-leak", "color": 0.5}, r"color: 0.5 is not a list of numbers"),
        ({"sampler": "signal-leak", "color": [0, "x", 0]}, "'x', 0. is not a list of numbers"),
        ({"sampler": "signal-leak", "kind": "isotropic"}, "not a kind of leak; use one"),
        ({"sampler": "boomerang", "eta": 2}, "eta 2 is out of range"),
        ({"sampler": "teleport", "level": 3}, "no setting 'level'; it takes no settings"),
    ],
)
def test_build_sampler_says_how_to_fix_it(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UnseenError, match=words) as caught:
        build_sampler("mine", settings)
    assert str(caught.value).startswith("samplers.mine") and "\n" not in str(caught.value)


def test_a_prior_that_was_not_fitted_is_named(world) -> None:
    for sampler in (Prior("spiked"), Slerp("spiked"), Geometric("spiked")):
        with pytest.raises(UnseenError, match="'spiked' was not fitted; add it to fit"):
            sampler.draw(world.context, world.streams(2))
