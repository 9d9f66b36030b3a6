"""Signal leaks: their laws, and what a perfect network makes of them."""

from dataclasses import replace

import pytest
import torch
from closed_forms import dense, down, kappa
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.errors import UnseenError
from unseen_core.laws.frequency import dct
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts import Boomerang, SignalLeak, StartContext
from unseen_core.starts.leak import fit_leak

OBLONG = (3, 4, 6)
KINDS = [("diagonal", 1), ("dct", 3), ("dct", 24), ("low-rank", 5)]


def images(n: int = 40, seed: int = 0) -> Tensor:
    """Smooth pictures, float64 (n, 3, 4, 6), their mean not zero."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 2, 2, generator=generator, dtype=torch.float64)
    fine = torch.randn(n, *OBLONG, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, size=OBLONG[1:], mode="bilinear")
    return 0.2 + 0.4 * smooth + 0.1 * fine * torch.linspace(0.5, 2, 6, dtype=torch.float64)


def context(schedule: Schedule, level: int, pictures: Tensor) -> StartContext:
    """A context of which leaks read nothing but images, schedule and level."""
    states = References.of(pictures)
    return StartContext(schedule, level, states, {}, None, images=states)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind, rank", KINDS)
def test_a_leak_read_in_blocks_is_the_gaussian_of_all(kind: str, rank: int) -> None:
    x = images()
    blocks = References.of(x, block=7 * 72 * 8)  # 7 images at a time
    found = fit_leak(blocks, kind=kind, rank=rank)
    wanted = Gaussian.fit(x.flatten(1), kind=kind, rank=rank, shape=OBLONG)
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(found.diagonal, wanted.diagonal)
    torch.testing.assert_close(dense(found), dense(wanted))
    assert fit_leak(blocks, kind=kind, rank=rank) is found  # not fitted for every part again


def test_all_frequencies_leave_no_remainder() -> None:
    x = images(100)
    law = fit_leak(References.of(x), kind="dct", rank=24)
    assert law.diagonal.abs().max() == 0
    torch.testing.assert_close(dense(law), x.flatten(1).T.cov(), rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def source() -> Gaussian:
    """What the network has learnt: other pictures, darker, of 8 modes and a remainder."""
    return Gaussian.fit(images(30, seed=1).flatten(1) - 0.5, kind="low-rank", rank=8)


def made_of(
    source: Gaussian, schedule: Schedule, level: int, states: Gaussian
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what a network that knows ``source`` makes of a law of states."""
    model = GaussianEps(schedule, OBLONG, source)
    return down(model, schedule.grid(60, level)).of(states.mean, dense(states))


@pytest.mark.parametrize("kind, rank", KINDS)
@pytest.mark.parametrize("level", [300, 700])
def test_fitted_leaks_end_where_the_closed_form_says(
    schedule: Schedule, source: Gaussian, level: int, kind: str, rank: int
) -> None:
    """In every direction at once: sqrt(kappa) is a function of the network's covariance."""
    leak = fit_leak(References.of(images()), kind=kind, rank=rank)
    variances, directions = torch.linalg.eigh(dense(source))
    root = directions @ kappa(variances, schedule, level).sqrt().diag() @ directions.T
    states, a = leak.at(schedule, level), schedule.a(level)
    mean, covariance = made_of(source, schedule, level, states)
    torch.testing.assert_close(mean, source.mean + root @ (leak.mean - source.mean), rtol=0,
                               atol=2e-3)
    torch.testing.assert_close(covariance, root @ dense(states) @ root / a**2, rtol=0, atol=2e-3)


@pytest.mark.parametrize("level", [100, 500, 900])
def test_offsets_and_variances_along_a_mode(
    schedule: Schedule, source: Gaussian, level: int
) -> None:
    """A leak with modes of the network's own, three times as wide, and another mean."""
    directions, energies = source.modes()
    leak = Gaussian(source.mean + 0.7 * directions.sum(1), source.factor * 3**0.5,
                    source.diagonal * 3)
    mean, covariance = made_of(source, schedule, level, leak.at(schedule, level))
    variances = energies + source.diagonal
    share = kappa(variances, schedule, level)
    a, s = schedule.a(level), schedule.s(level)
    wanted = variances * (a**2 * 3 * variances + s**2) / (a**2 * variances + s**2)
    found = (directions.T @ covariance @ directions).diagonal()
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=1e-4)
    torch.testing.assert_close(directions.T @ (mean - source.mean), 0.7 * share.sqrt(), rtol=2e-2,
                               atol=1e-4)


@pytest.mark.parametrize("level", [100, 300, 500, 700, 900])
def test_the_networks_own_statistics_return_its_images_and_noise_does_not(
    schedule: Schedule, source: Gaussian, level: int
) -> None:
    """From any level exactly N(mu, Sigma); N(0, I) there falls short as predicted."""
    mean, covariance = made_of(source, schedule, level, source.at(schedule, level))
    torch.testing.assert_close(mean, source.mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(covariance, dense(source), rtol=0, atol=2e-3)
    noise = Gaussian(torch.zeros(72), torch.zeros(72, 0), torch.tensor(1.0))
    mean, covariance = made_of(source, schedule, level, noise)
    directions, energies = source.modes()
    variances = energies + source.diagonal
    a, s = schedule.a(level), schedule.s(level)
    state = a**2 * variances + s**2
    ratio = ((directions.T @ covariance @ directions).diagonal() / variances).sqrt()
    torch.testing.assert_close(ratio, 1 / state.sqrt(), rtol=2e-2, atol=0)
    shift = directions.T @ (mean - source.mean)
    wanted = -a * (directions.T @ source.mean) * (variances / state).sqrt()
    torch.testing.assert_close(shift, wanted, rtol=2e-2, atol=1e-3)
    if level <= 500:  # above, little signal is left that noise could lack
        assert shift.abs().max() > 0.1 and ratio.min() < 0.99


def test_draws_are_those_of_the_noised_law(schedule: Schedule, world) -> None:
    for kind, rank in KINDS:
        leak = fit_leak(References.of(images()), kind=kind, rank=rank)
        starts = SignalLeak(kind, rank).draw(context(schedule, 400, images()), world.streams(3))
        wanted = leak.at(schedule, 400).sample(world.streams(3))
        assert torch.equal(starts.x.flatten(1), wanted.float())
        assert starts.parents.shape == (3, 0) and starts.acceptance == 1 and starts.eta == 0


def test_a_leak_of_one_image_is_where_boomerang_starts(schedule: Schedule, world) -> None:
    twice = context(schedule, 400, images(1).expand(2, *OBLONG))
    leak = SignalLeak("diagonal").draw(twice, world.streams(5))
    torch.testing.assert_close(leak.x, Boomerang().draw(twice, world.streams(5)).x)


@pytest.mark.parametrize("rank", [1, 4])
def test_a_colour_is_the_mean_of_its_channel(schedule: Schedule, world, rank: int) -> None:
    colour = (0.8, -0.5, 0.0)
    starts = SignalLeak("dct", rank, colour).draw(context(schedule, 0, images()), world.streams(20))
    waves = dct(starts.x)
    wanted = torch.tensor(colour).double() * 24**0.5  # sqrt(height width) times the mean
    torch.testing.assert_close(waves[..., 0, 0], wanted.expand(20, 3), rtol=0, atol=1e-5)
    if rank == 4:  # (0, 0), (0, 1), (1, 0), (1, 1): no other low frequency is left
        assert waves[..., [0, 1, 1], [1, 0, 1]].abs().max() < 1e-5
    assert waves[..., 2:, 2:].var(0).min() > 1e-4  # the rest is drawn


@pytest.mark.parametrize("level", [300, 600, 900])
def test_a_colour_moves_images_by_the_root_of_kappa(
    schedule: Schedule, world, level: int
) -> None:
    """The slope of channel means over the colour set, for a network with lambda at the mean."""
    variance = 3.0
    flat = torch.zeros(3, 3, 24).double()
    flat[range(3), range(3)] = 24**-0.5
    law = Gaussian(torch.full((72,), 0.1), flat.flatten(1).T * (variance - 0.05) ** 0.5,
                   torch.tensor(0.05))
    through = down(GaussianEps(schedule, OBLONG, law), schedule.grid(60, level))
    means = []
    for colour in (-0.5, 0.5):
        starts = SignalLeak("dct", 1, (colour,) * 3).draw(context(schedule, level, images()),
                                                         world.streams(4))
        ends = starts.x.flatten(1).double() @ through.matrix.T + through.shift
        means.append(ends.reshape(4, 3, 24).mean(2))
    slope = means[1] - means[0]  # the same noise: nothing but the colour differs
    wanted = kappa(torch.tensor(variance).double(), schedule, level).sqrt()
    torch.testing.assert_close(slope, wanted.expand(4, 3), rtol=5e-3, atol=0)


@pytest.mark.parametrize("settings, words", [
    ({"kind": "shrunk"}, "'shrunk' is not a kind of leak; use one of diagonal, dct, low-rank"),
    ({"rank": 0}, "rank 0 is too small"),
    ({"kind": "diagonal", "color": (0.0,)}, "color goes with kind dct, not diagonal"),
    ({"color": (0.0, 1.5, 0.0)}, "out of range; use -1 to 1"),
    ({"color": (float("nan"),)}, "out of range"),
])
def test_wrong_settings_are_named(settings: dict, words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        SignalLeak(**settings)


def test_what_a_leak_cannot_be_fitted_to_is_named(schedule: Schedule, world) -> None:
    pictures, streams = context(schedule, 400, images(6)), world.streams(1)
    for sampler, words in (
        (SignalLeak("low-rank", 6), "rank: low-rank needs 1 to 5 for 6 samples"),
        (SignalLeak("dct", 25), "rank: dct needs 1 to 24 frequencies"),
        (SignalLeak("dct", 1, (0.0, 0.0)), "color has 2 numbers for 3 channels"),
    ):
        with pytest.raises(UnseenError, match=words):
            sampler.draw(pictures, streams)
    with pytest.raises(UnseenError, match="needs at least 2 fit images, has 1"):
        SignalLeak().draw(context(schedule, 400, images(1)), streams)
    with pytest.raises(UnseenError, match="'isotropic' is not a kind of leak"):
        fit_leak(References.of(images(5)), kind="isotropic", rank=1)
    with pytest.raises(UnseenError, match="need the clean fit images"):
        SignalLeak().draw(replace(pictures, images=None), streams)
