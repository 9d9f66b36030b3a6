"""The local score: exact where the patch holds the whole image, local where it does not."""

import pytest
import torch
from draws import normal

from unseen_core.basics.rng import Streams
from unseen_core.diffusion.local_score import LocalEps, _summed
from unseen_core.diffusion.oracle import MixtureEps
from unseen_core.errors import UnseenError
from unseen_core.laws.references import References
from unseen_core.starts import LocalScore, StartContext, build_sampler

SHAPE = (2, 6, 6)


def images(n, seed=0, shape=SHAPE):
    return normal(n, shape[0] * shape[1] * shape[2], seed).reshape(n, *shape).double()


def context(schedule, states, level):
    return StartContext(schedule, level, References.of(states), {}, None,
                        images=References.of(states))


@pytest.mark.parametrize("level", [1, 50, 300, 700, 1000])
def test_a_patch_that_holds_the_image_gives_the_exact_score(schedule, level):
    """The empirical law is a mixture of points: the oracle with vanishing variances."""
    y = images(7)
    exact = MixtureEps(schedule, SHAPE, torch.ones(7), y.flatten(1), torch.zeros(7))
    x = schedule.a(level) * y[:3] + schedule.s(level) * images(3, 1)
    found = LocalEps(schedule, y, 99, 99)(x, level)
    assert torch.allclose(found, exact(x, level), atol=1e-9)


@pytest.mark.parametrize("level", [20, 200, 800])
def test_each_pixel_is_the_mean_of_its_patch_s_likely_images(schedule, level):
    """Against the formula, pixel by pixel."""
    y, x = images(5), images(2, 1)
    model = LocalEps(schedule, y, 3, 5)
    a, s, reach = schedule.a(level), schedule.s(level), model.side(level) // 2
    guess = torch.empty_like(x)
    for b in range(2):
        for i in range(6):
            for j in range(6):
                place = (slice(None), slice(max(i - reach, 0), i + reach + 1),
                         slice(max(j - reach, 0), j + reach + 1))
                error = torch.stack([(x[b][place] - a * one[place]).square().sum() for one in y])
                weight = (-error / (2 * s**2)).softmax(0)
                guess[b, :, i, j] = weight @ y[:, :, i, j]
    assert torch.allclose(model(x, level), (x - a * guess) / s, atol=1e-9)


def test_the_patch_shrinks_with_the_noise(schedule):
    model = LocalEps(schedule, images(2), 3, 31)
    sides = [model.side(level) for level in range(1, 1001)]
    assert sides == sorted(sides) and sides[0] == 3 and sides[-1] == 31
    assert all(side % 2 for side in sides)
    assert torch.equal(_summed(torch.ones(1, 1, 4, 4), 3)[0, 0, 0], torch.tensor([4.0, 6, 6, 4]))


def test_what_does_not_touch_a_pixel_s_patch_does_not_change_it(schedule):
    y, x = images(5), images(1, 1)
    other = x.clone()
    other[..., -1] += 3
    change = (LocalEps(schedule, y, 3, 3)(x, 300) - LocalEps(schedule, y, 3, 3)(other, 300)).abs()
    assert change[..., :-2].max() == 0 and change[..., -2].max() > 0


def test_parts_of_a_draw_come_from_different_images_unless_the_patch_is_whole(schedule):
    """Dark and bright images: whole patches copy one of them, small ones mix them."""
    y = torch.cat([images(3) * 0.05 - 0.6, images(3, 1) * 0.05 + 0.6])
    streams = Streams(0, "x", [str(i) for i in range(12)])
    copied = LocalScore(fine=15, coarse=15, calls=60).draw(context(schedule, y, 0), streams).x
    nearest = torch.cdist(copied.flatten(1).double(), y.flatten(1)).amin(1)
    assert (nearest < 0.05).all()
    streams = Streams(0, "x", [str(i) for i in range(12)])
    mixed = LocalScore(fine=1, coarse=1, calls=60).draw(context(schedule, y, 0), streams).x
    assert (torch.cdist(mixed.flatten(1).double(), y.flatten(1)).amin(1) > 0.5).all()


@pytest.mark.parametrize("level", [100, 300, 1000])
def test_a_start_state_is_on_the_way_to_its_image(schedule, level):
    """One image: its trajectory is known, x = a y + s n with the noise n it began with."""
    y = images(1)
    streams = Streams(0, "x", ["0", "1"])
    begun = Streams(0, "x", ["0", "1"]).normal(*SHAPE)
    found = LocalScore(calls=40).draw(context(schedule, y, level), streams)
    assert found.level == level and found.parents.shape == (2, 0)
    top = schedule.top
    noise = (begun - schedule.a(top) * y) / schedule.s(top)
    wanted = schedule.a(level) * y + schedule.s(level) * noise
    assert torch.allclose(found.x.double(), wanted, atol=2e-3)


def test_a_draw_does_not_depend_on_its_batch(schedule):
    y, ids = images(5), [str(i) for i in range(4)]
    whole = LocalScore().draw(context(schedule, y, 0), Streams(0, "x", ids)).x
    alone = LocalScore().draw(context(schedule, y, 0), Streams(0, "x", ids[2:3])).x
    assert torch.allclose(whole[2:3], alone, atol=1e-5)


@pytest.mark.parametrize("settings", [{"fine": 0}, {"fine": 9, "coarse": 5}, {"calls": 1}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(UnseenError, match=r"samplers\.x: fine"):
        build_sampler("x", {"sampler": "local-score", **settings})
