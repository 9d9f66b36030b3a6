"""Properties of the split: disjoint, deterministic, whole groups, held-out fixed by the seed."""

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unseen_core.errors import UnseenError
from unseen_core.sources import SourceImages, Split, split


def domain(count: int, groups: list[int] | None = None) -> SourceImages:
    """Return a domain of blank images with distinct ids."""
    return SourceImages(
        domain="toy",
        images=torch.zeros(count, 3, 8, 8, dtype=torch.uint8),
        ids=tuple(f"toy-{i:012x}" for i in range(count)),
        labels=None,
        groups=None if groups is None else torch.tensor(groups),
        skipped=(),
        licence="",
        origin="",
    )


def rows(found: Split) -> tuple[list[int], list[int], list[int]]:
    """Return the three sides as lists."""
    return found.fit.tolist(), found.held_out.tolist(), found.rest.tolist()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(2, 40), st.data(), st.integers(-5, 5))
def test_sides_partition_and_fit_never_moves_held_out(
    count: int, data: st.DataObject, seed: int
) -> None:
    held_out = data.draw(st.integers(1, count - 1))
    fit = data.draw(st.integers(1, count - held_out))
    first = rows(split(domain(count), fit=fit, held_out=held_out, seed=seed))
    assert (len(first[0]), len(first[1])) == (fit, held_out)
    assert sorted(chain(*first)) == list(range(count))
    assert first == rows(split(domain(count), fit=fit, held_out=held_out, seed=seed))
    smaller = rows(split(domain(count), fit=1, held_out=held_out, seed=seed))
    assert smaller[1] == first[1]
    assert smaller[0] == first[0][:1]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=8, max_size=40), st.integers(0, 5))
def test_groups_never_straddle(groups: list[int], seed: int) -> None:
    source = domain(len(groups), groups)
    try:
        found = split(source, fit=len(groups) // 2, held_out=len(groups) // 4, seed=seed)
    except UnseenError as error:
        assert "stays empty" in str(error)
        return
    sides = [{groups[row] for row in side} for side in rows(found)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sorted(chain(*rows(found))) == list(range(len(groups)))
    assert len(found.held_out) <= len(groups) // 4


def test_seed_moves_images_and_row_order_does_not_matter() -> None:
    source = domain(50)
    first = split(source, fit=10, held_out=20, seed=0)
    assert set(first.held_out.tolist()) != set(split(source, fit=10, held_out=20, seed=1).held_out)
    backwards = SourceImages(**(vars(source) | {"ids": source.ids[::-1]}))
    mirrored = split(backwards, fit=10, held_out=20, seed=0)
    assert torch.equal(49 - mirrored.held_out, first.held_out)


def test_too_few_images_name_domain_count_and_parameter() -> None:
    with pytest.raises(UnseenError, match=r"domain toy: 10 images are too few .*; lower fit"):
        split(domain(10), fit=6, held_out=5, seed=0)
    with pytest.raises(UnseenError, match=r"domain toy: 10 images are too few .*; lower held_out"):
        split(domain(10), fit=6, held_out=10, seed=0)
    with pytest.raises(UnseenError, match="fit must be >= 1"):
        split(domain(10), fit=0, held_out=5, seed=0)
    with pytest.raises(UnseenError, match="held_out stays empty"):
        split(domain(10, [0] * 10), fit=5, held_out=5, seed=0)


def test_images_behind_the_pool_move_neither_side() -> None:
    first = split(domain(30), fit=8, held_out=6, seed=0)
    more = split(domain(90), fit=8, held_out=6, seed=0, pool=30)
    assert rows(more)[:2] == rows(first)[:2]
    assert sorted(more.rest.tolist()) == sorted([*first.rest.tolist(), *range(30, 90)])
    assert rows(split(domain(90), fit=8, held_out=6, seed=0))[:2] != rows(first)[:2]
    assert rows(split(domain(30), fit=8, held_out=6, seed=0, pool=99)) == rows(first)
    # A group that reaches behind the pool goes there whole.
    pairs = [i // 2 for i in range(20)]
    for fit in (4, 5, 6):
        found = split(domain(20, pairs), fit=fit, held_out=4, seed=0, pool=11)
        assert max(found.fit.max(), found.held_out.max()) < 10
    with pytest.raises(UnseenError, match="10 images are too few for fit 8"):
        split(domain(90), fit=8, held_out=6, seed=0, pool=10)
