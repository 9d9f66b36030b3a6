"""Coarse-to-fine blends: whose band is whose, on which shell, and which settings are refused."""

import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import Envelope, StateJudge, shell_lengths
from unseen_core.laws.references import References
from unseen_core.starts import Geometric, Reconstruction, StartContext
from unseen_core.starts.bands import Bands
from unseen_core.starts.parents import Parents, dirichlet

SHAPE, N, CUT = (3, 6, 5), 40, 2.5
LOW = torch.tensor([[(i * i + j * j) ** 0.5 < CUT for j in range(5)] for i in range(6)])


@pytest.fixture(scope="module")
def context() -> StartContext:
    """Latents of two far clusters, float32 as ``fit`` hands them over."""
    x = ids(N, "references").normal(*SHAPE) + 3
    x[N // 2 :] += 5
    references = x.float()
    judge = StateJudge.of(references)
    envelope = Envelope.calibrate(judge, ids(N, "order").choose(N, N), coverage=0.95)
    return StartContext(Schedule.linear(), 500, References.of(references), {}, envelope)


def ids(n: int, purpose: str = "bands") -> Streams:
    """Streams of n samples."""
    return Streams(3, purpose, [str(i) for i in range(n)])


def bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """SciPy's coefficients below and above the cut, (n, ...) each."""
    found = torch.from_numpy(dctn(x.double().numpy(), axes=(2, 3), norm="ortho"))
    return found[:, :, LOW].flatten(1), found[:, :, ~LOW].flatten(1)


def chosen(context: StartContext, places: Tensor) -> Tensor:
    """The references at places of any shape."""
    return context.references.rows(places.flatten()).reshape(*places.shape, *SHAPE)


def everything(context: StartContext) -> Tensor:
    """All references."""
    return chosen(context, torch.arange(N))


def centred(context: StartContext, x: Tensor) -> Tensor:
    """States less the references' mean."""
    return x.double() - context.judge.mean.reshape(SHAPE)


def test_one_and_one_is_the_low_band_of_one_and_the_high_band_of_the_other(context) -> None:
    starts = Bands(cut=CUT, near=0, shell="none").draw(context, ids(30))
    low, high = bands(starts.x)
    coarse, fine = (chosen(context, starts.parents[:, k]) for k in (0, 1))
    torch.testing.assert_close(low, bands(coarse)[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(high, bands(fine)[1], rtol=0, atol=1e-5)


def test_groups_are_blended_by_weights_that_sum_to_one(context) -> None:
    starts = Bands(cut=CUT, coarse=3, fine=2, near=0, alpha=1e6, shell="none").draw(
        context, ids(30))
    made = chosen(context, starts.parents).double()
    low, high = bands(starts.x)
    torch.testing.assert_close(low, bands(made[:, :3].mean(1))[0], rtol=0, atol=0.05)
    torch.testing.assert_close(high, bands(made[:, 3:].mean(1))[1], rtol=0, atol=0.05)
    assert not torch.allclose(low, bands(made.mean(1))[0], rtol=0, atol=0.05)


def test_band_lengths_are_those_of_one_reference(context) -> None:
    starts = Bands(cut=CUT, coarse=2, fine=2, near=0).draw(context, ids(30))
    lengths = torch.stack([part.norm(dim=1) for part in bands(centred(context, starts.x))], 1)
    own = torch.stack([shell_lengths(part) for part in bands(everything(context))], 1)
    gap, whose = (lengths[:, None] - own).abs().amax(2).min(1)
    assert gap.max() < 1e-4
    assert len(whose.unique()) > 10


def test_parents_shell_gives_back_what_a_blend_loses(context) -> None:
    settings = {"cut": CUT, "coarse": 2, "fine": 2, "near": 0, "alpha": 1e6}
    starts = Bands(shell="parents", **settings).draw(context, ids(30))
    made = centred(context, chosen(context, starts.parents.flatten()))
    own = [part.norm(dim=1).reshape(30, 4) for part in bands(made)]
    found = [part.norm(dim=1) for part in bands(centred(context, starts.x))]
    for length, parents in zip(found, (own[0][:, :2], own[1][:, 2:]), strict=True):
        torch.testing.assert_close(length, parents.mean(1), rtol=2e-3, atol=0)
    free = Bands(shell="none", **settings).draw(context, ids(30))
    assert (bands(centred(context, free.x))[1].norm(dim=1) < 0.9 * found[1]).all()


def test_whole_shell_rescales_the_blend_of_none(context) -> None:
    free, shell = (Bands(cut=CUT, coarse=2, shell=kind).draw(context, ids(30))
                   for kind in ("none", "whole"))
    before, after = (centred(context, s.x).flatten(1) for s in (free, shell))
    cosine = torch.nn.functional.cosine_similarity(before, after)
    torch.testing.assert_close(cosine, torch.ones(30).double(), rtol=0, atol=1e-6)
    gap = (after.norm(dim=1)[:, None] - shell_lengths(context.references)).abs().amin(1)
    assert gap.max() < 1e-4


@pytest.mark.parametrize("settings", [{}, {"coarse": 2, "fine": 3, "match": "low"},
                                      {"tested": True, "near": 0}])
def test_a_row_depends_on_its_own_stream_alone(context, settings: dict) -> None:
    sampler = Bands(cut=CUT, **settings)
    whole = sampler.draw(context, ids(40))
    part = sampler.draw(context, ids(40)[[31, 4]])
    alone = sampler.draw(context, ids(40)[[31]])
    assert torch.equal(whole.x[[31, 4]], part.x)
    assert torch.equal(whole.parents[[31]], alone.parents) and torch.equal(part.x[:1], alone.x)


@pytest.mark.parametrize("near", [0, 6])
def test_parents_are_distinct_and_recorded(context, near: int) -> None:
    starts = Bands(cut=CUT, coarse=2, fine=3, near=near).draw(context, ids(60))
    assert starts.parents.shape == (60, 5)
    assert all(len(row.unique()) == 5 for row in starts.parents)
    same_cluster = (starts.parents < N // 2).double().mean(1)
    assert ((same_cluster == 0) | (same_cluster == 1)).all() == bool(near)


def test_low_match_measures_the_low_band_only(context) -> None:
    sampler = Bands(cut=CUT, near=1, match="low")
    starts = sampler.draw(context, ids(30))
    low = bands(everything(context))[0]
    distance = torch.cdist(low, low).fill_diagonal_(torch.inf)
    assert torch.equal(starts.parents[:, 1], distance.argmin(1)[starts.parents[:, 0]])
    whole = Bands(cut=CUT, near=1).draw(context, ids(30))
    assert not torch.equal(whole.parents, starts.parents)


def test_tested_states_lie_in_the_envelope(context) -> None:
    starts = Bands(cut=CUT, near=0, shell="none", tested=True).draw(context, ids(40))
    assert starts.proposed > 40 and 0 < starts.passed["radius"] <= 1
    radius = starts.x.flatten(1).norm(dim=1)
    low, high = context.envelope.low[0], context.envelope.high[0]
    assert ((radius > low - 1e-4) & (radius < high + 1e-4)).all()


def test_no_accepted_candidate_is_one_line_as_geometric_says_it(context) -> None:
    nowhere = StartContext(context.schedule, 500, context.references, {},
                           Envelope(context.envelope.high * 9, context.envelope.high * 10, 0.9))
    with pytest.raises(UnseenError, match=r"bands sampling at level 500: 4 of 4 .* in 3 trials"):
        Bands(cut=CUT, tested=True, trials=3).draw(nowhere, ids(4))


def test_shared_steps_are_those_of_geometric(context) -> None:
    starts = Geometric(parents=3, near=8, shell=False, tested=False, alpha=2.0).draw(
        context, ids(20))
    streams = ids(20)
    made_of = Parents.among(context.references.gram, 3, 8).draw(streams)
    weights = dirichlet(streams, 3, 2.0)
    assert torch.equal(made_of, starts.parents)
    blend = (weights[:, :, None] * chosen(context, made_of).flatten(2)).sum(1)
    torch.testing.assert_close(blend.float(), starts.x.flatten(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"cut": 0.0}, "cut 0.0 leaves no low band"), ({"coarse": 0}, "at least 1"),
     ({"fine": 0}, "at least 1"), ({"near": -1}, "near at least 0"),
     ({"coarse": 3, "near": 2}, "near 2 is too small for 4 parents"),
     ({"alpha": 0.01}, "alpha 0.01"),
     ({"shell": "band"}, "shell 'band' .* none, parents, whole, bands"),
     ({"match": "high"}, "match 'high' .* whole, low"), ({"eta": 1.5}, "eta 1.5 .* 0 to 1"),
     ({"eta": float("nan")}, "eta nan"), ({"trials": 0}, "trials")],
)
def test_bad_settings_are_one_line(settings: dict, message: str) -> None:
    with pytest.raises(UnseenError, match=message) as error:
        Bands(**settings)
    assert "\n" not in str(error.value)


def test_settings_that_the_images_refuse(context) -> None:
    with pytest.raises(UnseenError, match="cut 7 leaves no high band in images of 6 x 5"):
        Bands(cut=7).draw(context, ids(2))
    with pytest.raises(UnseenError, match="near 40 needs more than 40 fit images"):
        Bands(cut=CUT, near=40).draw(context, ids(2))


def test_eta_is_handed_on(context) -> None:
    assert Bands(cut=CUT, eta=0.2).draw(context, ids(2)).eta == 0.2
    assert Bands(cut=CUT, eta=0.3, tested=True, near=0).draw(context, ids(2)).eta == 0.3
    assert Reconstruction(eta=0.1).draw(context, ids(2)).eta == 0.1
    assert Reconstruction().draw(context, ids(2)).eta == 0
    with pytest.raises(UnseenError, match=r"eta -0\.1"):
        Reconstruction(eta=-0.1)


@pytest.mark.parametrize("settings", [{}, {"match": "low", "shell": "parents", "fine": 2},
                                      {"shell": "whole", "tested": True, "near": 0}])
def test_references_in_blocks_give_the_same_states(context, settings: dict) -> None:
    few = References.of(everything(context), block=7 * 90 * 8)
    blocks = StartContext(context.schedule, 500, few, {}, context.envelope)
    sampler = Bands(cut=CUT, coarse=2, **settings)
    whole, found = sampler.draw(context, ids(20)), sampler.draw(blocks, ids(20))
    assert torch.equal(whole.parents, found.parents)
    torch.testing.assert_close(whole.x, found.x, rtol=1e-6, atol=1e-6)
