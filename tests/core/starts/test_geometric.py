"""Blends on the shell: what is accepted, from whom it is made, and what happens when nothing is."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import STATISTICS, Envelope, shell_lengths
from unseen_core.starts import Geometric, StartContext, StartStates
from unseen_core.starts.parents import Parents, dirichlet


def bounded(context: StartContext, **bounds: tuple[float, float]) -> StartContext:
    """The context with an envelope that is open but for some statistics."""
    pairs = [bounds.get(name, (-1e9, 1e9)) for name in STATISTICS]
    table = torch.tensor(pairs, dtype=torch.float64)
    return replace(context, envelope=Envelope(table[:, 0], table[:, 1], 0.9))


def narrow(context: StartContext) -> StartContext:
    """The context with an envelope that rejects most candidates."""
    envelope = context.envelope
    centre, reach = (envelope.low + envelope.high) / 2, (envelope.high - envelope.low) / 6
    return replace(context, envelope=Envelope(centre - reach, centre + reach, 0.3))


def deviations(context: StartContext, starts: StartStates) -> Tensor:
    """Start states less the references' mean, float64 (n, d)."""
    return starts.x.flatten(1).double() - context.judge.mean


def test_accepted_states_lie_in_the_envelope(world) -> None:
    # Radius and centre distance do not depend on who judges.
    for sampler in (Geometric(parents=3), Geometric(near=8, shell=False), Geometric("empirical"),
                    Geometric("empirical", shell=False)):
        starts = sampler.draw(world.context, world.streams(120))
        x, envelope = starts.x.flatten(1).double(), world.context.envelope
        found = torch.stack([x.norm(dim=1), (x - world.context.judge.mean).norm(dim=1)], 1)
        assert starts.proposed > 120  # something was rejected
        assert ((found >= envelope.low[:2] - 1e-5) & (found <= envelope.high[:2] + 1e-5)).all()


def test_kept_states_are_the_first_that_pass(world) -> None:
    """A loop over single candidates in full dimension, on the same numbers."""
    context, sampler = world.context, Geometric(shell=False)
    n, total, references = 60, context.references.count, world.flat
    starts = sampler.draw(context, world.streams(n))
    kept, proposed, passed = [], 0, torch.zeros(len(STATISTICS)).double()
    for i in range(n):
        stream, inside = world.streams(n)[[i]], torch.zeros(1, dtype=torch.bool)
        while not inside.all():
            rows = Parents.among(references @ references.T, 2, 0).draw(stream)
            weights = dirichlet(stream, 2, 1.0)
            x = (weights[:, :, None] * references[rows]).sum(1)
            order = stream.choose(total, total)
            inside = context.envelope.inside(context.judge.statistics(x, order, rows))
            passed, proposed = passed + inside[0], proposed + 1
        kept.append(x[0])
    torch.testing.assert_close(starts.x.flatten(1).double(), torch.stack(kept), rtol=0, atol=1e-5)
    assert starts.proposed == proposed > n and starts.acceptance == n / proposed
    assert list(starts.passed) == list(STATISTICS)
    assert list(starts.passed.values()) == pytest.approx((passed / proposed).tolist())


def test_lengths_on_the_shell_are_the_references_own(world) -> None:
    lengths = shell_lengths(world.flat)
    for proposal in ("blend", "empirical"):
        starts = Geometric(proposal, tested=False).draw(world.context, world.streams(300))
        found = deviations(world.context, starts).norm(dim=1)
        gaps = (found[:, None] - lengths).abs()
        assert (gaps.min(1).values < 1e-5 * found).all()
        assert gaps.argmin(1).unique().numel() > 150  # drawn, not one and the same
        assert starts.proposed == 300 and not starts.passed
    loose = Geometric(shell=False, tested=False).draw(world.context, world.streams(300))
    gaps = deviations(world.context, loose).norm(dim=1)[:, None] - lengths
    assert (gaps.abs().min(1).values > 1e-3).sum() > 50


def test_one_parent_gives_its_direction(world) -> None:
    starts = Geometric(parents=1, tested=False).draw(world.context, world.streams(60))
    judge = world.context.judge
    wanted = world.flat[starts.parents[:, 0]] - judge.mean
    cosine = torch.cosine_similarity(deviations(world.context, starts), wanted)
    assert (cosine > 1 - 1e-9).all()


@pytest.mark.parametrize("near, parents", [(0, 4), (3, 2), (6, 4)])
def test_parents_are_distinct_and_near_ones_true_neighbours(world, near: int, parents: int) -> None:
    sampler = Geometric(parents=parents, near=near, tested=False)
    starts = sampler.draw(world.context, world.streams(300))
    rows = starts.parents
    assert rows.shape == (300, parents) and all(len({*r}) == parents for r in rows.tolist())
    assert rows[:, 0].unique().numel() > 150
    references = world.flat
    ranks = []
    for first, *others in rows.tolist():
        order = (references - references[first]).norm(dim=1).argsort().tolist()
        assert order[0] == first
        ranks += [order.index(other) for other in others]
    if near:
        assert {*ranks} == set(range(1, near + 1))
    else:
        assert max(ranks) > 300  # from all of the 400


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("parents", [2, 3])
def test_blend_weights_are_dirichlet(world, alpha: float, parents: int) -> None:
    n, context = 2000, world.context
    sampler = Geometric(parents=parents, alpha=alpha, shell=False, tested=False)
    starts = sampler.draw(context, world.streams(n))
    basis = (world.flat - context.judge.mean)[starts.parents]  # (n, p, d)
    target = deviations(context, starts)[..., None]
    weights = torch.linalg.lstsq(basis.transpose(1, 2), target).solution[..., 0]
    torch.testing.assert_close(weights.sum(1), torch.ones(n).double(), rtol=0, atol=1e-4)
    law = beta(alpha, (parents - 1) * alpha)  # of each weight alone
    mean, variance = 1 / parents, (parents - 1) / parents**2 / (parents * alpha + 1)
    fourth = law.stats("k") + 3  # of the marginal: scatter of a sample variance
    for weight in weights.T:
        assert abs(weight.mean() - mean) < 5 * (variance / n) ** 0.5
        assert abs(weight.var() / variance - 1) < 5 * ((fourth - 1) / n) ** 0.5
    assert kstest(weights[:, 0].numpy(), law.cdf).pvalue > 1e-4


@pytest.mark.parametrize("sampler", [Geometric(shell=False), Geometric(near=5, parents=3),
                                     Geometric("empirical", shell=False)])
def test_a_row_depends_on_its_own_stream(world, sampler: Geometric) -> None:
    ids = ["a", "b", "c", *map(str, range(40))]
    context = narrow(world.context)
    together = sampler.draw(context, Streams(3, "p", ids))
    assert together.proposed > 1.5 * len(ids)  # rows are rejected in between
    for i in (1, 2, 20):
        alone = sampler.draw(context, Streams(3, "p", [ids[i]]))
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-6, atol=1e-6)
        assert torch.equal(alone.parents[0], together.parents[i])


@pytest.mark.parametrize("worst", STATISTICS)
def test_giving_up_names_level_trials_and_the_worst_statistic(world, worst: str) -> None:
    context = bounded(world.context, **{worst: (1e6, 1e7)})
    with pytest.raises(UnseenError) as caught:
        Geometric(trials=3).draw(context, world.streams(4))
    message = str(caught.value)
    assert "\n" not in message and "level 500" in message
    assert "4 of 4" in message and "3 trials" in message and f"{worst} fails most" in message


def test_fresh_noise_is_handed_on(world) -> None:
    assert Geometric(eta=0.2).draw(world.context, world.streams(2)).eta == 0.2
    with pytest.raises(UnseenError, match=r"eta 1\.5 is out of range"):
        Geometric(eta=1.5)


def test_windows_replace_the_envelope(world) -> None:
    closed = bounded(world.context, radius=(1e6, 1e7))
    starts = Geometric(window="v1").draw(closed, world.streams(50))
    assert starts.passed["radius"] == starts.passed["centre_distance"] == 1
    narrower = Geometric(window="v2").draw(closed, world.streams(50))
    assert narrower.acceptance < starts.acceptance < 1.01
    with pytest.raises(UnseenError, match=r"20 trials; pair_distance fails most.*window"):
        Geometric(window="v1-published", trials=20).draw(world.context, world.streams(4))


def test_untested_ignores_the_envelope(world) -> None:
    context = bounded(world.context, radius=(1e6, 1e7))
    assert len(Geometric(tested=False, trials=1).draw(context, world.streams(4)).x) == 4


def test_more_neighbours_than_images(world) -> None:
    with pytest.raises(UnseenError, match="near 400 needs more than 400 fit images"):
        Geometric(near=400).draw(world.context, world.streams(2))
    with pytest.raises(UnseenError, match="choose 401 of 400"):
        Geometric(parents=401).draw(world.context, world.streams(2))


def test_a_small_alpha_leaves_finite_weights(world) -> None:
    sampler = Geometric(alpha=0.05, parents=2, tested=False)
    starts = sampler.draw(world.context, world.streams(500))
    assert starts.x.isfinite().all()


def test_no_streams_give_no_states(world) -> None:
    starts = Geometric().draw(world.context, world.streams(0))
    assert starts.x.shape == (0, 3, 2, 2) and starts.proposed == 0
