"""The reference implementation's windows: the spread they are measured in, and what they accept."""

import math

import pytest
import torch
from torch import Tensor

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.geometry import STATISTICS, Envelope, StateJudge, angle_degrees
from unseen_core.laws.windows import natural_spread, reference_window
from unseen_core.starts import Geometric, Slerp

TESTED = [STATISTICS.index(name) for name in ("pair_distance", "origin_angle", "pair_angle")]


def isotropic(n: int, d: int, *, mean: float = 0.3, v: float = 0.8, seed: int = 0) -> Tensor:
    """Draws of N(mean, v I), float64 (n, d)."""
    generator = torch.Generator().manual_seed(seed)
    return mean + v**0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)


def targets(d: int, mean: float = 0.3, v: float = 0.8) -> tuple[float, float]:
    """Pair distance and origin angle of that law."""
    return (2 * d * v) ** 0.5, math.degrees(math.acos(mean**2 / (mean**2 + v)))


@pytest.mark.parametrize("k", [1, 2, 10])
def test_natural_spread_is_that_of_fresh_draws(k: int) -> None:
    d, n = 500, 3000
    x, references = isotropic(n, d)[:, None], isotropic(n * (k + 1), d, seed=1).reshape(n, k + 1, d)
    edge = references - x
    near, norms = edge.norm(dim=2), references.norm(dim=2)
    origin = angle_degrees((references * x).sum(2) / (norms * x.norm(dim=2)))[:, :-1]
    corner = angle_degrees((edge[:, 1:] * edge[:, :-1]).sum(2) / (near[:, 1:] * near[:, :-1]))
    found = torch.stack([y.mean(1).std() for y in (near[:, :-1], origin, corner)])
    wanted = natural_spread(*targets(d), dimension=d, neighbours=k)
    assert ((found / wanted - 1).abs() < 4 / (2 * n) ** 0.5).all(), found / wanted


@pytest.mark.parametrize("window, k, multiples", [("v1", 2, (6.873, 21.89, 21.45)),
                                                  ("v2", 10, (0.5397, 2.159, 1.556))])
def test_fitted_windows_follow_the_domain(window: str, k: int, multiples: tuple) -> None:
    d, n = 3000, 200
    references = isotropic(n, d)
    envelope, neighbours = reference_window(window, references)
    low, high = envelope.low[TESTED], envelope.high[TESTED]
    centre, reach = (low + high) / 2, (high - low) / 2
    spread = natural_spread(*targets(d), dimension=d, neighbours=k)
    assert neighbours == k
    assert ((centre - torch.tensor([*targets(d), 60.0])).abs() < 0.3 * spread).all()
    torch.testing.assert_close(reach / spread, torch.tensor(multiples).double(), rtol=0.2, atol=0)
    assert envelope.low[:2].isneginf().all() and envelope.high[:2].isposinf().all()
    fresh = StateJudge.of(references, neighbours=k).statistics(
        isotropic(400, d, seed=2), Streams(0, "t", [*map(str, range(400))]).choose(n, n))
    share = envelope.accept(fresh).double().mean().item()
    # v2 keeps a quarter to two fifths of real latents (method, section 11), v1 all of them.
    assert share > 0.99 if window == "v1" else 0.2 < share < 0.5
    assert abs(envelope.coverage - share) < 0.1


@pytest.mark.parametrize("window, bounds", [
    ("v1-published", [(572, 582), (88, 92), (58, 62)]),
    ("v2-published", [(611.1, 611.7), (87.9, 88.1), (59.9, 60.1)]),
])
def test_published_windows_are_the_authors_constants(window: str, bounds: list) -> None:
    envelope, _ = reference_window(window, isotropic(20, 50))
    found = torch.stack([envelope.low, envelope.high], 1)[TESTED]
    torch.testing.assert_close(found, torch.tensor(bounds).double())
    assert envelope.coverage == 0
    back = Envelope.from_state(envelope.state())
    assert torch.equal(back.low, envelope.low) and torch.equal(back.high, envelope.high)


def test_unknown_windows_are_named() -> None:
    for sampler in (Geometric, Slerp):
        with pytest.raises(UnseenError, match=r"'v3' is not known; use one of .*v2-published"):
            sampler(window="v3")
    with pytest.raises(UnseenError, match="'none'"):
        Geometric(window="none")
