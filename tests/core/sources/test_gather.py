"""What every source has in common: duplicates, labels, the limit, memory, the content's hash."""

import hashlib
from collections.abc import Iterator

import pytest
import torch

from unseen_core.errors import UnseenError
from unseen_core.sources import SourceConfig, content_hash, gather
from unseen_core.sources.gather import Found, collect

CONFIG = SourceConfig(kind="folder", domain="mine", size=8)
IMAGES = torch.randint(
    0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def entries(order: list[int]) -> Iterator[Found]:
    """Yield images as entries, labelled by their number."""
    return (Found(f"image {row}", IMAGES[row], row) for row in order)


@pytest.mark.parametrize("rows", [1, 3, 5, 10, 100])
def test_images_keep_their_order_over_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_BLOCK", rows * 3 * 8 * 8)
    source = collect(CONFIG, entries([*range(10), 3]), licence="CC0", origin="here")
    assert torch.equal(source.images, IMAGES)
    assert source.labels is not None and source.labels.tolist() == list(range(10))
    assert source.skipped == (("image 3", "same pixels as image 3"),)
    assert (source.licence, source.origin, len(source)) == ("CC0", "here", 10)


def test_of_many_that_are_left_out_the_first_are_named() -> None:
    source = collect(CONFIG, entries([*range(10), *range(10), 0, 1]), licence="", origin="")
    lines = list(source.warnings())
    assert lines[0] == "skipped image 0: same pixels as image 0" and len(lines) == 11
    assert lines[-1] == "skipped 2 more, which the report beside the images names"


def test_labels_that_are_unknown() -> None:
    mixed = [Found("a", IMAGES[0], 4), Found("b", IMAGES[1]), Found("c", IMAGES[2], 0)]
    source = collect(CONFIG, mixed, licence="", origin="")
    assert source.labels is not None and source.labels.tolist() == [4, -1, 0]
    plain = (Found("a", image) for image in IMAGES)
    assert collect(CONFIG, plain, licence="", origin="").labels is None


def test_slices_of_a_volume_are_a_group_and_equal_names_are_none() -> None:
    alike = (Found("000.jpg", image) for image in IMAGES)  # of ten shards
    assert collect(CONFIG, alike, licence="", origin="").groups is None
    volumes = (Found(f"{row % 3}[{row}]", image, volume=None if row == 9 else f"{row % 3}.nii")
               for row, image in enumerate(IMAGES))
    groups = collect(CONFIG, volumes, licence="", origin="").groups
    assert groups is not None and groups.tolist() == [0, 1, 2] * 3 + [3]


def test_nothing_is_asked_for_beyond_the_limit() -> None:
    def found() -> Iterator[Found]:
        yield Found("bad", UnseenError("bad: damaged"))
        yield from entries([0, 0, 1])
        raise AssertionError("the limit was reached")

    config = SourceConfig(kind="folder", domain="mine", size=8, limit=2)
    source = collect(config, found(), licence="", origin="")
    assert source.skipped == (("bad", "damaged"), ("image 0", "same pixels as image 0"))
    assert len(source) == 2


def test_the_content_hash_knows_pixels_and_order() -> None:
    digests = b"".join(hashlib.sha256(bytes(i.flatten().tolist())).digest() for i in IMAGES)
    assert content_hash(IMAGES) == hashlib.sha256(digests).hexdigest()
    assert content_hash(IMAGES.clone()) == content_hash(IMAGES)
    changed = IMAGES.clone()
    changed[4, 0, 0, 0] ^= 1
    assert len({content_hash(x) for x in (IMAGES, IMAGES.flip(0), IMAGES[:9], changed)}) == 4
