"""Fine-tuning: what style noise makes of a perfect network, and that training really trains."""

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import integrate
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts.prior import style_law
from unseen_core.training.finetune import FinetuneConfig, finetune, unet_predict

SHAPE = (1, 2, 2)
SCHEDULE = Schedule.linear()
TINY = FinetuneConfig(steps=10, batch=8, learning_rate=2e-3, warmup=1)


@dataclass(frozen=True)
class StyleGaussianEps:
    """A perfect network for images N(μ, diag λ) trained with noise N(μ_s, diag ω).

    Everaert et al. 2023, "Diffusion in Style": the mean of the noise given a state x is
    eps(x, level) = μ_s + s ω (x - a μ - s μ_s) / (a² λ + s² ω).
    """

    law: Gaussian
    noise: Gaussian
    schedule: ClassVar[Schedule] = SCHEDULE
    shape: ClassVar[tuple[int, int, int]] = SHAPE

    def __call__(self, x, level):
        """Return the noise in states (b, c, h, w); level 0 is as in `GaussianEps`."""
        k = SCHEDULE.timestep(level) + 1
        a, s = SCHEDULE.a(k), SCHEDULE.s(k)
        x = x.double().flatten(1) * a / SCHEDULE.a(level)
        total = a**2 * self.law.diagonal + s**2 * self.noise.diagonal
        rest = x - a * self.law.mean - s * self.noise.mean
        return (self.noise.mean + s * self.noise.diagonal * rest / total).reshape(-1, *SHAPE)


def diagonal(mean, variance):
    """Return a law without a factor."""
    mean = torch.tensor(mean, dtype=torch.float64)
    return Gaussian(mean, torch.zeros(len(mean), 0), torch.tensor(variance, dtype=torch.float64))


IMAGES = diagonal([0.3, -0.5, 0.8, 0.0], [0.5, 0.05, 2.0, 9.0])
STYLE = diagonal([0.3, -0.4, 0.7, 0.1], [0.3, 0.2, 1.5, 4.0])


def moments(network, start, grid, method="ddim"):
    """Return mean and variance below a grid, of a start law above it; the network is affine."""
    points = torch.stack([start.mean, start.mean + start.diagonal.sqrt()]).reshape(2, *SHAPE)
    mean, off = integrate(network, points, grid[::-1], method=method).flatten(1)
    return mean, (off - mean).square()


def tiny_network(seed=0):
    """Return a U-Net of random weights for 16 x 16 images."""
    torch.manual_seed(seed)
    return UNet2DModel(sample_size=16, block_out_channels=(16, 16), layers_per_block=1,
                       norm_num_groups=8, down_block_types=("DownBlock2D",) * 2,
                       up_block_types=("UpBlock2D",) * 2).eval()


def pictures(count=8):
    """Return smooth pictures with a common layout, float32 in [-1, 1]."""
    generator = torch.Generator().manual_seed(5)
    slope = torch.linspace(-0.8, 0.8, 16).expand(3, 16, 16)
    return (slope + 0.2 * torch.randn(count, 3, 1, 1, generator=generator)).clamp(-1, 1)


@pytest.mark.parametrize("method", ["ddim", "dpm3m"])
def test_a_network_tuned_on_style_noise_returns_the_images_law_but_for_the_leak(method):
    network = StyleGaussianEps(IMAGES, STYLE)
    top = SCHEDULE.top
    mean, variance = moments(network, STYLE, SCHEDULE.grid(500, top), method)
    a, s = SCHEDULE.a(top), SCHEDULE.s(top)
    gain = IMAGES.diagonal / (a**2 * IMAGES.diagonal + s**2 * STYLE.diagonal)
    # The start lacks the trace of the image that level T still has: that is all of the error.
    leak = gain.sqrt() * (STYLE.mean - a * IMAGES.mean - s * STYLE.mean)
    assert torch.allclose(mean, IMAGES.mean + leak, atol=0.02)
    assert torch.allclose(mean, IMAGES.mean, atol=0.04)
    assert torch.allclose(variance, IMAGES.diagonal, rtol=0.03)


def test_ddim_between_two_levels_multiplies_by_the_factor_of_the_closed_form():
    network = StyleGaussianEps(IMAGES, STYLE)
    high, low = 700, 400
    a, s = SCHEDULE.a([high, low]), SCHEDULE.s([high, low])
    exact = Gaussian(a[0] * IMAGES.mean + s[0] * STYLE.mean, IMAGES.factor,
                     a[0] ** 2 * IMAGES.diagonal + s[0] ** 2 * STYLE.diagonal)
    mean, variance = moments(network, exact, (low, high))
    factor = (a[0] * a[1] * IMAGES.diagonal + s[0] * s[1] * STYLE.diagonal) / exact.diagonal
    assert torch.allclose(mean, a[1] * IMAGES.mean + s[1] * STYLE.mean)
    assert torch.allclose(variance, factor**2 * exact.diagonal)


def test_a_frozen_network_loses_contrast_and_overdrives_the_mean():
    frozen = GaussianEps(SCHEDULE, SHAPE, IMAGES)
    top = SCHEDULE.top
    mean, variance = moments(frozen, STYLE, SCHEDULE.grid(200, top), "dpm3m")
    a, s = SCHEDULE.a(top), SCHEDULE.s(top)
    gain = IMAGES.diagonal / (a**2 * IMAGES.diagonal + s**2)
    assert torch.allclose(mean, IMAGES.mean + gain.sqrt() * (STYLE.mean - a * IMAGES.mean),
                          rtol=0.01, atol=0.01)
    assert torch.allclose(variance, STYLE.diagonal * gain, rtol=0.02)


@pytest.mark.parametrize("level", [0, 1, 300, 1000])
def test_with_white_noise_the_style_oracle_is_the_gaussian_one(level):
    white = diagonal([0.0] * 4, [1.0] * 4)
    x = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    style, plain = StyleGaussianEps(IMAGES, white), GaussianEps(SCHEDULE, SHAPE, IMAGES)
    assert torch.allclose(style(x, level), plain(x, level), rtol=1e-12)


@pytest.mark.parametrize("noise", [None, STYLE], ids=["white", "style"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_perfect_predictor_is_where_the_loss_is_least(noise, prediction):
    """The gradient of the loss vanishes at the oracle's coefficients: the target is the right one.

    One coordinate at one level: the output is weight x + bias, and least squares are known.
    """
    schedule = replace(Schedule.linear(1, 0.4, 0.4), prediction=prediction)
    law = noise or diagonal([0.0] * 4, [1.0] * 4)
    a, s = schedule.a(1), schedule.s(1)
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(1000, 4, dtype=torch.float64, generator=generator)
    white = (white - white.mean(0)) / white.std(0, correction=0)
    states = (IMAGES.mean + IMAGES.diagonal.sqrt() * white).reshape(-1, *SHAPE)
    total = a**2 * IMAGES.diagonal + s**2 * law.diagonal
    weight = s * law.diagonal / total
    bias = law.mean - weight * (a * IMAGES.mean + s * law.mean)
    if prediction == "v_prediction":  # e = a v + s x
        weight, bias = (weight - s) / a, bias / a
    parameters = [torch.nn.Parameter(value.clone()) for value in (weight, bias)]
    before = torch.stack([weight, bias])

    def predict(x, timesteps):
        assert timesteps.shape == (len(x),) and not timesteps.any()
        return (x.flatten(1) * parameters[0] + parameters[1]).reshape(x.shape)

    config = FinetuneConfig(steps=150, batch=1000, learning_rate=1e-2, warmup=1, clip=100.0)
    finetune(predict, parameters, schedule, states, noise, config)
    after = torch.stack([p.detach() for p in parameters])
    assert (after - before).abs().max() < 0.05
    with torch.no_grad():  # and from elsewhere the way leads there
        parameters[0] += 0.3
        parameters[1] -= 0.3
    finetune(predict, parameters, schedule, states, noise, config)
    again = torch.stack([p.detach() for p in parameters])
    assert (again - before).abs().max() < 0.06


def test_ten_steps_change_the_weights_and_lower_the_loss_but_leave_the_frozen_network():
    frozen = tiny_network()
    kept = {name: value.clone() for name, value in frozen.state_dict().items()}
    network = copy.deepcopy(frozen)
    states, schedule = pictures(), Schedule.linear(4, 0.1, 0.9)
    law = style_law(References.of(states))
    told = []
    losses = finetune(unet_predict(network, precision="float32"), network.parameters(), schedule,
                      states, law, TINY, each=lambda step, loss: told.append((step, loss)))
    assert told == list(enumerate(losses, start=1)) and len(losses) == 10
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    changed = [not torch.equal(value, kept[name])
               for name, value in network.state_dict().items()]
    assert all(changed)
    assert all(torch.equal(value, kept[name]) for name, value in frozen.state_dict().items())
    assert all(p.grad is None for p in frozen.parameters())


def test_a_long_training_passes_through_the_end_of_a_short_one():
    states, schedule = pictures(5), Schedule.linear(10, 0.01, 0.5)
    seen = {}

    def train(steps, note=None):
        network = tiny_network()
        finetune(unet_predict(network), network.parameters(), schedule, states, None,
                 replace(TINY, steps=steps, batch=4), each=note and note(network))
        return network.state_dict()

    def note(network):
        def each(step, loss):
            seen[step] = {name: x.clone() for name, x in network.state_dict().items()}
        return each

    train(4, note)
    torch.manual_seed(99)  # the global state has no say
    short = train(2)
    assert all(torch.equal(value, short[name]) for name, value in seen[2].items())
    assert any(not torch.equal(value, short[name]) for name, value in seen[4].items())


def test_every_image_comes_once_before_any_comes_again_and_levels_are_spread():
    states = torch.arange(6.0)[:, None, None, None].expand(6, *SHAPE)
    weight, means, levels = torch.nn.Parameter(torch.zeros(())), [], []
    schedule = Schedule.linear(100, 1e-6, 1e-6)  # hardly any noise: states show through

    def predict(x, timesteps):
        means.extend(x.mean((1, 2, 3)).round().int().tolist())
        levels.append(timesteps.tolist())
        return weight * x

    finetune(predict, [weight], schedule, states, None, FinetuneConfig(steps=3, batch=4))
    assert sorted(means[:6]) == sorted(means[6:]) == list(range(6))
    for drawn in levels:
        assert [int(t) * 4 // 100 for t in drawn] == [0, 1, 2, 3]
    assert levels[0] != levels[1]


def test_style_statistics_are_those_of_numpy():
    images = pictures(7)
    law, flat = style_law(References.of(images)), images.flatten(1).double().numpy()
    assert np.allclose(law.mean.numpy(), flat.mean(0), atol=1e-12)
    assert np.allclose(law.diagonal.numpy(), flat.var(0, ddof=1), atol=1e-12)


@pytest.mark.parametrize(("change", "message"), [
    ({"steps": 0}, "steps 0 is out of range"), ({"batch": 0}, "batch 0"),
    ({"warmup": 0}, "warmup 0"), ({"learning_rate": 0.0}, "learning_rate 0.0"),
    ({"clip": -1.0}, "clip -1.0"),
])
def test_settings_out_of_range_are_one_line(change, message):
    with pytest.raises(UnseenError, match=message):
        replace(TINY, **change)


def test_what_does_not_fit_together_is_one_line():
    weight = torch.nn.Parameter(torch.ones(()))
    states = torch.zeros(2, *SHAPE)

    def train(states, noise=None, factor=1.0, rate=1e-3):
        return finetune(lambda x, t: weight * factor * x, [weight], SCHEDULE, states, noise,
                        FinetuneConfig(steps=2, batch=2, learning_rate=rate))

    with pytest.raises(UnseenError, match=r"states of torch.uint8 and shape \(2, 1, 2, 2\)"):
        train(states.to(torch.uint8))
    with pytest.raises(UnseenError, match=r"shape \(0, 1, 2, 2\)"):
        train(states[:0])
    with pytest.raises(UnseenError, match="noise of 4 dimensions and rank 0; give one of 12"):
        train(torch.zeros(2, 3, 2, 2), STYLE)
    with pytest.raises(UnseenError, match="rank 1"):
        train(states, replace(STYLE, factor=torch.ones(4, 1)))
    with pytest.raises(UnseenError, match="the loss became inf at step 1; lower learning_rate"):
        train(states, factor=1e30)
