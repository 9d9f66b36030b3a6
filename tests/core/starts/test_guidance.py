"""What guides a frozen network: the parents' local score, and CRDI's closed form."""

from dataclasses import replace

import pytest
import torch
from draws import normal
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.diffusion.local_score import LocalEps
from unseen_core.diffusion.oracle import GaussianEps
from unseen_core.diffusion.transport import ancestral, denoise, integrate
from unseen_core.errors import UnseenError
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.starts import (
    Boomerang,
    Crdi,
    Geometric,
    StartStates,
    build_sampler,
    denoise_starts,
)
from unseen_core.starts.crdi import guidance_of

SHAPE = (2, 6, 6)
VARIANCE = 0.3


def images(n: int, seed: int = 0) -> Tensor:
    return normal(n, 72, seed).reshape(n, *SHAPE).double()


def knowing(schedule: Schedule, mean: Tensor) -> GaussianEps:
    """A perfect network of N(mean, VARIANCE I)."""
    law = Gaussian(mean.flatten(), torch.zeros(72, 0).double(), torch.tensor(VARIANCE).double())
    return GaussianEps(schedule, SHAPE, law)


def finish(sampler, network, starts, levels, clean: Tensor, **options: object) -> Tensor:
    streams = Streams(5, "down", [str(i) for i in range(len(starts.x))])
    return denoise_starts(sampler, network, starts, levels, images=References.of(clean),
                          streams=streams, **options)


def test_images_of_its_own_guide_each_state(schedule: Schedule) -> None:
    """As the same model made for one state after another."""
    x, own = images(3, 1), torch.stack([images(4, seed) for seed in (2, 3, 4)])
    together = LocalEps(schedule, own, 3, 5)(x, 300)
    alone = [LocalEps(schedule, y, 3, 5)(x[i : i + 1], 300) for i, y in enumerate(own)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
def test_a_guided_network_pulls_by_the_closed_form(schedule: Schedule, weight: float) -> None:
    """One parent y at the network's own mean: u = x/a - y obeys a linear equation in sigma.

    du/dsigma = u ((1 - w) sigma / (v + sigma²) + w / sigma), so that u falls by the factor
    ((v + sigma_l²) / (v + sigma_k²))^((1 - w)/2) (sigma_l / sigma_k)^w from level k to l.
    """
    y, high, low = images(1), 400, 20
    starts = StartStates.untested(images(2, 1), high, torch.zeros(2, 1, dtype=torch.int64))
    model = Geometric(guide=weight).guided(knowing(schedule, y), starts, References.of(y), (), None)
    x = schedule.a(high) * y + images(2, 1)
    end = integrate(model, x, list(range(low, high + 1))[::-1])
    sigma, rest = schedule.sigma(high), schedule.sigma(low)
    share = ((VARIANCE + rest**2) / (VARIANCE + sigma**2)) ** ((1 - weight) / 2) \
        * (rest / sigma) ** weight
    torch.testing.assert_close(end / schedule.a(low) - y, share * (x / schedule.a(high) - y),
                               rtol=1e-4, atol=1e-7)


def test_where_parents_differ_each_place_goes_to_one_of_them(schedule: Schedule) -> None:
    """The mean of two flat images, dark and bright, is a ghost; guided, it is one of the two."""
    dark, bright = torch.full((1, *SHAPE), -0.6).double(), torch.full((1, *SHAPE), 0.6).double()
    clean, level = torch.cat([dark, bright]), 300
    network, levels = knowing(schedule, torch.zeros(SHAPE)), schedule.grid(40, level)
    starts = StartStates.untested(schedule.s(level) * images(8, 3), level,
                                  torch.tensor([[0, 1]] * 8))
    ends = {guide: finish(Geometric(guide=guide), network, starts, levels, clean)
            for guide in (0.0, 0.5)}
    far = {guide: (x.abs() - 0.6).abs().mean().item() for guide, x in ends.items()}
    assert far[0.5] < 0.5 * far[0.0]
    plain = denoise(network, starts.x, levels)
    assert torch.equal(ends[0.0], plain)


def test_rows_are_guided_by_their_own_parents_in_every_batch(schedule: Schedule) -> None:
    clean, level = images(5), 300
    network, levels = knowing(schedule, torch.zeros(SHAPE)), schedule.grid(20, level)
    parents = torch.tensor([[0, 1], [2, 3], [4, 0], [1, 3]])
    starts = StartStates.untested(images(4, 3), level, parents)
    sampler = Geometric(guide=0.4)
    whole = finish(sampler, network, starts, levels, clean)
    part = finish(sampler, network, starts.rows(slice(1, 3)), levels, clean)
    torch.testing.assert_close(whole[1:3], part)
    assert not torch.allclose(whole, finish(sampler, network, replace(
        starts, parents=starts.parents.flip(0)), levels, clean), atol=0.01)


def test_start_states_end_as_their_sampler_asks(schedule: Schedule) -> None:
    """Level 0 stays; fresh noise is that of the ancestral sampler; CRDI steps by DDIM."""
    clean, network, levels = images(3), knowing(schedule, images(1)[0]), schedule.grid(10, 300)
    still = StartStates.untested(images(2, 1), 0)
    assert torch.equal(finish(Geometric(), network, still, (0,), clean), still.x)
    noisy = replace(StartStates.untested(images(2, 1), 300), eta=0.5)
    streams = Streams(5, "down", ["0", "1"])
    wanted = ancestral(network, noisy.x, levels, eta=0.5, streams=streams)
    assert torch.equal(finish(Boomerang(0.5), network, noisy, levels, clean), wanted)
    starts = StartStates.untested(images(2, 1), 300, torch.tensor([[0], [1]]))
    found = [finish(Crdi(), network, starts, levels, clean, method=method)
             for method in ("dpm3m", "ddim")]
    assert torch.equal(*found)


def test_crdi_s_guidance_is_the_best_there_is(schedule: Schedule) -> None:
    """No other guidance of a step has less of the published losses, over the same noise."""
    clean, network, (low, high) = images(2), knowing(schedule, images(1, 9)[0]), (200, 300)
    g = guidance_of(network, clean, (0, low, high), last=250, draws=3)
    assert list(g) == [high]
    a, s, a_low, s_low = (f(k).item() for k in (high, low) for f in (schedule.a, schedule.s))
    streams = Streams(0, f"crdi/{high}", ["0", "1"])
    noises = [streams.normal(*SHAPE) for _ in range(3)]

    def loss(g: Tensor) -> Tensor:
        total = torch.zeros(())
        for noise in noises:
            x = a * clean + s * noise
            eps = network(x, high) - s * g
            guess = (x - s * eps) / a
            end = a_low * guess + s_low * eps
            total = total + (guess - clean).square().sum() + (end - a_low * clean).square().sum()
        return total

    best = g[high].clone().requires_grad_()
    slope, = torch.autograd.grad(loss(best), best)
    scale, = torch.autograd.grad(loss(at := torch.zeros_like(best).requires_grad_()), at)
    assert slope.abs().max() < 1e-9 * scale.abs().max()


def test_crdi_leads_back_to_the_only_image_there_is(schedule: Schedule) -> None:
    """A network that knows other images alone loses it; with guidance it comes back."""
    clean, level = images(1), 800
    network, levels = knowing(schedule, clean[0] + 2), schedule.grid(40, level)
    starts = StartStates.untested(schedule.a(level) * clean + schedule.s(level) * images(4, 5),
                                  level, torch.zeros(4, 1, dtype=torch.int64))
    far = [(finish(sampler, network, starts, levels, clean, method="ddim") - clean).square().mean()
           for sampler in (Crdi(relax=0.0, draws=8), Geometric())]
    assert far[0] < 0.2 * far[1]
    moved = finish(Crdi(relax=1.0), network, starts, levels, clean)
    assert (moved - clean).square().mean() > far[0]


@pytest.mark.parametrize(("settings", "said"), [
    ({"sampler": "geometric", "guide": 1.5}, "guide 1.5 is out of range"),
    ({"sampler": "geometric", "proposal": "empirical", "guide": 0.2}, "have no parents"),
    ({"sampler": "crdi", "relax": -1.0}, "relax -1.0"),
    ({"sampler": "crdi", "draws": 0}, "at least 1 draw"),
])
def test_wrong_settings_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UnseenError, match=rf"samplers\.x: .*{said}"):
        build_sampler("x", settings)
