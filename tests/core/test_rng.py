"""A sample's noise depends on (seed, purpose, id) and on nothing else."""

import pytest
import torch

from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError

NAMES = [f"s{i}" for i in range(6)]


def test_noise_belongs_to_the_id_not_to_the_batch_or_order() -> None:
    whole = Streams(3, "test", NAMES).normal(2, 5)
    turned = Streams(3, "test", NAMES[::-1]).normal(2, 5)
    single = torch.cat([Streams(3, "test", [name]).normal(2, 5) for name in NAMES])
    assert whole.shape == (6, 2, 5) and whole.dtype == torch.float64
    assert torch.equal(whole, turned.flip(0))
    assert torch.equal(whole, single)


def test_rows_share_generators_with_the_whole() -> None:
    streams = Streams(3, "test", NAMES)
    part = streams[2:4]
    assert part.ids == ("s2", "s3") and len(part) == 2
    first, rest = part.normal(20), streams.normal(20)
    reference = Streams(3, "test", NAMES)
    once, twice = reference.normal(20), reference.normal(20)
    assert torch.equal(first, once[2:4])
    assert torch.equal(rest[2:4], twice[2:4]), "the part must have advanced the whole"
    assert torch.equal(rest[:2], once[:2])
    assert Streams(3, "test", NAMES)[[4, 0]].ids == ("s4", "s0")


@pytest.mark.parametrize(
    "other",
    [Streams(4, "test", ["a"]), Streams(3, "tests", ["a"]), Streams(3, "test", ["b"]),
     Streams(3, "tes", ["ta"])],
    ids=["seed", "purpose", "id", "boundary"],
)
def test_seed_purpose_and_id_all_matter(other: Streams) -> None:
    assert not torch.equal(Streams(3, "test", ["a"]).normal(8), other.normal(8))


def test_normal_and_uniform_have_their_moments() -> None:
    streams = Streams(0, "moments", [str(i) for i in range(200)])
    normal, uniform = streams.normal(500), streams.uniform(500)
    se = 100_000**-0.5
    assert abs(normal.mean()) < 5 * se and abs(normal.var() - 1) < 5 * 2**0.5 * se
    assert abs(uniform.mean() - 0.5) < 5 * se / 12**0.5
    assert 0 <= uniform.min() and uniform.max() < 1
    between = torch.corrcoef(normal).fill_diagonal_(0).abs().max()
    assert between < 6 * 500**-0.5, "streams must not repeat each other"


def test_choose_draws_without_replacement_and_evenly() -> None:
    chosen = Streams(0, "choose", [str(i) for i in range(3000)]).choose(6, 3)
    assert chosen.shape == (3000, 3) and chosen.dtype == torch.int64
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    counts = torch.bincount(chosen.flatten(), minlength=6).double()
    assert len(counts) == 6 and (counts - 1500).abs().max() < 5 * 750**0.5


def test_no_streams_give_empty_draws() -> None:
    assert Streams(0, "none", []).normal(3).shape == (0, 3)
    assert Streams(0, "none", []).choose(3, 2).shape == (0, 2)


def test_mistakes_are_named() -> None:
    with pytest.raises(UnseenError, match="not unique"):
        Streams(0, "twice", ["a", "a"])
    with pytest.raises(UnseenError, match="choose 4 of 3"):
        Streams(0, "many", ["a"]).choose(3, 4)
