"""Coordinates against plain loops in full dimension: exact in each state, equal in law."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.basics.schedule import Schedule
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import BlendGaussian, fit_law
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.geometry import STATISTICS, Envelope, StateJudge, shell_lengths
from unseen_core.laws.references import References
from unseen_core.laws.span import Span, Whole, coordinates_of
from unseen_core.starts import Geometric, Slerp, StartContext

D, N = 192, 40
KINDS = ("isotropic", "empirical", "shrunk", "diagonal")
DIRECTION = torch.from_numpy(np.random.default_rng(9).standard_normal(D))


def streams(n: int, purpose: str = "span") -> Streams:
    """Streams of n samples."""
    return Streams(3, purpose, [str(i) for i in range(n)])


def latents(seed: int, n: int = N, d: int = D) -> Tensor:
    """Draws of a law with a mean, three strong directions and isotropic noise."""
    generator = np.random.default_rng(seed)
    strong = np.random.default_rng(1).standard_normal((3, d))
    x = 0.3 + generator.standard_normal((n, 3)) @ strong * 0.5 + generator.standard_normal((n, d))
    return torch.from_numpy(x)


def context() -> StartContext:
    """What ``fit`` hands to samplers."""
    references = References.of(latents(0).reshape(N, 3, 8, 8))
    priors = {kind: fit_law(references, kind=kind) for kind in KINDS}
    judge = StateJudge.of(references, neighbours=5)
    envelope = Envelope.calibrate(judge, streams(N, "order").choose(N, N), coverage=0.9)
    return StartContext(Schedule.linear(), 500, references, priors, envelope, 5)


def beside(fitted: Tensor, judges: Tensor, kind: str) -> BlendGaussian:
    """A law of some rows, as weights of judges and rows together, in this order."""
    law = BlendGaussian.fit(References.of(fitted), kind=kind)
    others = len(judges)
    return BlendGaussian(
        References.of(torch.cat([judges, fitted])),
        torch.cat([torch.zeros(others), law.mean]),
        torch.cat([torch.zeros(others, law.factor.shape[1]), law.factor]), law.variance)


def judge_of(span: Span, count: int) -> StateJudge:
    """The first references of a span as judges of its states."""
    return StateJudge.of(span.references.rows(range(count)), neighbours=5)


def on_shell(z: np.ndarray, x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One state put at a distance that the references have."""
    offset = z - x.mean(0)
    lengths = np.linalg.norm(x - x.mean(0), axis=1) * len(x) / (len(x) - 1)
    return x.mean(0) + random.choice(lengths) * offset / np.linalg.norm(offset)


def prior_draw(law: Gaussian, random: np.random.Generator) -> np.ndarray:
    """A draw m + F η + v^½ ε, in full."""
    factor = law.factor.numpy()
    return (law.mean.numpy() + factor @ random.standard_normal(factor.shape[1])
            + np.sqrt(law.diagonal.numpy()) * random.standard_normal(D))


def prior_on_shell(law: Gaussian, x: np.ndarray, random: np.random.Generator) -> tuple:
    """A prior draw on the shell."""
    return on_shell(prior_draw(law, random), x, random), []


def prior_alone(law: Gaussian, x: np.ndarray, random: np.random.Generator) -> tuple:
    """A prior draw where it falls."""
    return prior_draw(law, random), []


def blend(law: Gaussian, x: np.ndarray, random: np.random.Generator) -> tuple:
    """Dirichlet(2) blend of 3 references on the shell."""
    parents = random.permutation(N)[:3]
    return on_shell(random.dirichlet([2, 2, 2]) @ x[parents], x, random), parents


def great_circle(law: Gaussian, x: np.ndarray, random: np.random.Generator) -> tuple:
    """Slerp from a reference to a prior draw, one of 4 points."""
    parent = random.integers(N)
    a, b = x[parent], prior_draw(law, random)
    length = np.linalg.norm(a), np.linalg.norm(b)
    theta, w = np.arccos(a @ b / (length[0] * length[1])), random.integers(1, 5) / 5
    unit = (np.sin((1 - w) * theta) * a / length[0] + np.sin(w * theta) * b / length[1])
    return unit / np.sin(theta) * ((1 - w) * length[0] + w * length[1]), [parent]


def measured(states: Tensor, parents: Tensor, purpose: str) -> Tensor:
    """Statistics in full dimension, each state judged by random references but its parents."""
    n = len(states)
    return StateJudge.of(latents(0), neighbours=5).statistics(
        states, streams(n, purpose).choose(N, N), parents)


CASES = {
    "isotropic": (prior_alone, "isotropic", Geometric("isotropic", shell=False)),
    "isotropic-shell": (prior_on_shell, "isotropic", Geometric("isotropic")),
    "shrunk": (prior_alone, "shrunk", Geometric("shrunk", shell=False)),
    "shrunk-shell": (prior_on_shell, "shrunk", Geometric("shrunk")),
    "empirical": (prior_alone, "empirical", Geometric("empirical", shell=False)),
    "diagonal": (prior_on_shell, "diagonal", Geometric("diagonal")),
    "blend": (blend, "isotropic", Geometric(parents=3, alpha=2.0)),
    "slerp": (great_circle, "isotropic", Slerp("isotropic", points=4, window="envelope")),
}


@pytest.mark.parametrize("name", CASES)
def test_samplers_have_the_law_of_a_loop_in_full_dimension(name: str) -> None:
    loop: Callable[..., tuple]
    loop, kind, sampler = CASES[name]
    world, random, n = context(), np.random.default_rng(5), 1000
    x, law = latents(0).numpy(), Gaussian.fit(latents(0), kind=kind)
    drawn = [loop(law, x, random) for _ in range(n)]
    states = torch.from_numpy(np.stack([z for z, _ in drawn]))
    made_of = torch.tensor([[*p] for _, p in drawn], dtype=torch.int64)
    naive = measured(states, made_of, "naive")
    free = (Slerp("isotropic", points=4) if name == "slerp"
            else Geometric(sampler.proposal, sampler.parents, alpha=sampler.alpha,
                           shell=sampler.shell, tested=False))
    found = free.draw(world, streams(n))
    lifted = found.x.flatten(1).double()
    pairs = [*zip(naive.T, measured(lifted, found.parents, "found").T, strict=True),
             (states @ DIRECTION, lifted @ DIRECTION)]
    # Judges differ between the two, states are independent: equal laws, nothing else shared.
    p = [ks_2samp(a.numpy(), b.numpy()).pvalue for a, b in pairs]
    assert min(p) > 0.001, dict(zip([*STATISTICS, "projection"], p, strict=True))
    inside = world.envelope.inside(naive).double()
    share, kept = inside.prod(1).mean().item(), sampler.draw(world, streams(300, "kept"))
    error = (share * (1 - share) / n + share**2 * (1 - share) / 300) ** 0.5
    assert abs(kept.acceptance - share) < 4 * error
    accepted = states[inside.all(1)]
    lifted = kept.x.flatten(1).double()
    for a, b in [(accepted.norm(dim=1), lifted.norm(dim=1)),
                 (accepted @ DIRECTION, lifted @ DIRECTION)]:
        assert ks_2samp(a.numpy(), b.numpy()).pvalue > 0.001


@pytest.mark.parametrize("kind", ["isotropic", "empirical", "shrunk", "spiked"])
def test_lifted_states_have_the_statistics_of_their_coordinates(kind: str) -> None:
    references = latents(0)
    law = beside(latents(2), references, kind)
    span = Span.of(law.references, law)
    states = span.draw(streams(50))
    full = span.lift(states, streams(50, "lift"))
    order = streams(50, "order").choose(N, N)
    torch.testing.assert_close(StateJudge.of(references, neighbours=5).statistics(full, order),
                               judge_of(span, N).statistics(states, order),
                               rtol=1e-8, atol=1e-8)
    assert bool((states[:, -1] > 0).all()) == (kind != "empirical")


def test_blends_and_references_are_lifted_exactly() -> None:
    references = latents(0)
    span, random = Span.of(references), streams(60).uniform(N)
    lifted = span.lift(span.references.combine(random), streams(60, "lift"))
    torch.testing.assert_close(lifted, random @ references, rtol=0, atol=1e-9)
    torch.testing.assert_close(shell_lengths(span.references), shell_lengths(references),
                               rtol=1e-10, atol=0)


@pytest.mark.parametrize("d", [12, 45])
def test_lifted_draws_have_the_fitted_moments(d: int) -> None:
    law, n = Gaussian.fit(latents(2, d=d), kind="shrunk"), 8000
    fitted = beside(latents(2, d=d), latents(0, 20, d), "shrunk")
    span = Span.of(fitted.references, fitted)  # spans all of 12 dimensions, and all of 45
    assert span.basis.shape[1] == min(d, 20 + 40)
    x = span.lift(span.draw(streams(n)), streams(n, "lift"))
    wanted = law.factor @ law.factor.T + law.diagonal * torch.eye(d)
    spread = wanted.diagonal()
    assert ((x.mean(0) - law.mean).abs() < 5 * (spread / n).sqrt()).all()
    error = ((spread[:, None] * spread + wanted.square()) / n).sqrt()
    assert ((x.T.cov() - wanted).abs() < 5 * error).all()


def test_the_part_outside_has_chi_squared_length_and_leaves_the_span() -> None:
    references = latents(0)
    law = BlendGaussian(References.of(references), torch.zeros(N), torch.empty(N, 0),
                        torch.tensor(0.7))
    span = Span.of(law.references, law)
    states = span.draw(streams(2000))
    assert kstest((states[:, -1] ** 2 / 0.7).numpy(), "chi2", (D - N,)).pvalue > 0.001
    states[:, :-1] = 0
    outside = span.lift(states[:100], streams(100, "lift"))
    assert (outside @ references.T).abs().max() < 1e-9
    torch.testing.assert_close(outside.norm(dim=1), states[:100, -1], rtol=1e-12, atol=0)
    cosine = torch.cosine_similarity(outside[0:1], outside[1:])
    assert abs(cosine.mean()) < 5 / (99 * (D - N)) ** 0.5  # each has a direction of its own


def test_repeated_references_add_no_direction() -> None:
    references = torch.cat([latents(0), latents(0)[:7]])
    span = Span.of(references, fit_law(References.of(references), kind="empirical"))
    assert span.basis.shape == (N + 7, N)
    lifted = span.lift(span.references.rows(range(N + 7)), streams(N + 7))
    torch.testing.assert_close(lifted, references, rtol=0, atol=1e-9)


def test_a_variance_per_coordinate_is_drawn_in_full() -> None:
    references = References.of(latents(0))
    law = fit_law(references, kind="diagonal")
    whole = coordinates_of(references, law)
    assert isinstance(whole, Whole) and isinstance(coordinates_of(references), Span)
    states = whole.draw(streams(5))
    assert torch.equal(states, law.sample(streams(5)))
    assert torch.equal(whole.lift(states, streams(5)), states)


@pytest.mark.parametrize("fitted", [10, 40])
def test_few_shot_bias_and_its_cure(fitted: int) -> None:
    """Biased for draws judged by the images they were fitted to, unbiased for others'."""
    d, v, rounds, n = 2000, 0.8, 30, 100
    mean = torch.full((d,), 0.4, dtype=torch.float64)
    cured, biased = [], []
    for seed in range(rounds):
        random = streams(2 * fitted, f"few {seed}").normal(d)
        fit, others = (mean + v**0.5 * random).split(fitted)
        centre = fit.mean(0)
        variance = (fit - centre).square().sum() / ((fitted - 1) * d)
        for judges, scale, into in ((others, 1 - 1 / fitted, cured), (fit, 1.0, biased)):
            both = torch.cat([judges, fit])
            weights = torch.cat([torch.zeros(fitted), torch.full((fitted,), 1 / fitted)])
            span = Span.of(both, BlendGaussian(References.of(both), weights,
                                               torch.empty(2 * fitted, 0), scale * variance))
            order = streams(n, f"order {seed}").choose(fitted, fitted)
            states = span.draw(streams(n, f"draws {seed}"))
            values = judge_of(span, fitted).statistics(states, order)
            into.append(torch.stack([values[:, 0].square().mean(), values[:, 2].square().mean(),
                                     values[:, 3].deg2rad().cos().mean(), values[:, 4].mean()]))
    length, total = (mean @ mean).item(), d * v
    for values, wanted in (
        (cured, [length + total, 2 * total, length / (length + total), 60]),
        (biased, [length + total * (1 + 1 / fitted), total * (2 - 1 / fitted),
                  (length + total / fitted)
                  / ((length + total) * (length + total * (1 + 1 / fitted))) ** 0.5]),
    ):
        table = torch.stack(values)[:, : len(wanted)]
        error = table.std(0) / rounds**0.5
        gap = (table.mean(0) - torch.tensor(wanted, dtype=torch.float64)).abs()
        # First order in 1 / d, and the mean of squares is not the square of the mean distance.
        assert (gap < 4 * error + torch.tensor([0, 1.0, 1e-3, 0.02])[: len(wanted)]).all()
    shift = torch.stack(biased).mean(0)[2] - torch.stack(cured).mean(0)[2]
    assert shift > 10 * error[2]  # the bias is there to be cured


def test_a_prior_of_other_references_is_refused() -> None:
    law = fit_law(References.of(latents(0)), kind="shrunk")
    with pytest.raises(UnseenError, match="prior of 40 inverted images beside 30"):
        Span.of(latents(0, 30), law)
