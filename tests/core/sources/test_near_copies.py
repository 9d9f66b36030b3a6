"""Near copies share a group, so that no picture stands on both sides of a split."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unseen_core.sources import SourceConfig, load, split
from unseen_core.sources.near_copies import grouped, near_copies


def picture(seed, size=64):
    """A smooth picture with edges, as photographs are: PIL, size x size."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((size, size), Image.BICUBIC))
    left, top = random.integers(0, size // 2, 2)
    pixels[top : top + size // 3, left : left + size // 3] = random.integers(0, 256, 3)
    return Image.fromarray(pixels)


def two_sizes(image):
    return image.resize((32, 32), Image.LANCZOS)


def encoded_again(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return Image.open(stream)


def brighter(image):
    return image.point(lambda value: min(255, value + 6))


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes 20 pictures and what a change makes of each."""
    def write(change):
        (tmp_path / "set").mkdir()
        for i in range(20):
            picture(i).save(tmp_path / f"set/{i:02}-a.png")
            change(picture(i)).save(tmp_path / f"set/{i:02}-b.png")
        return load(SourceConfig("folder", "mine", path=str(tmp_path / "set"), size=32))
    return write


def apart(source, sides):
    """Return the numbers of pictures of which one version is fit and the other held out."""
    number = [file[:2] for file in source.files]
    return {number[i] for i in sides.fit.tolist()} & {number[i] for i in sides.held_out.tolist()}


@pytest.mark.parametrize("change", [two_sizes, encoded_again, brighter])
def test_versions_of_a_picture_stay_on_one_side(folder, change):
    source = folder(change)
    assert len(source) == 40 and source.groups is None
    assert apart(source, split(source, fit=20, held_out=20, seed=0))  # without grouping
    found, pairs = grouped(source, 0.003)
    assert {tuple(source.files[row][:2] for row in pair) for pair in pairs.tolist()} == {
        (f"{i:02}", f"{i:02}") for i in range(20)}
    assert len(found.groups.unique()) == 20
    for seed in range(5):
        sides = split(found, fit=20, held_out=20, seed=seed)
        assert not apart(found, sides)
        assert (len(sides.fit), len(sides.held_out)) == (20, 20)


def test_zero_lets_them_be_apart_and_others_are_never_grouped(folder):
    source = folder(two_sizes)
    twice = replace(source, images=source.images[:1].expand_as(source.images))
    for images in (source, twice):  # without a threshold not even equal images are grouped
        same, pairs = grouped(images, 0.0)
        assert same is images and not len(pairs)
    assert len(grouped(twice, 0.003)[0].groups.unique()) == 1
    for domain in ("digits", "faces", "galaxies"):
        real = load(SourceConfig(domain, domain, size=32, limit=400))
        same, pairs = grouped(real, 0.003)
        assert same is real and not len(pairs)


def test_groups_of_the_source_stay_whole_and_meet_through_copies(folder):
    source = folder(two_sizes)
    number = torch.tensor([int(file[:2]) for file in source.files])
    # The first versions of 0 and 1 are one patient's; their second versions have no name.
    rows = torch.arange(len(source))
    first = torch.tensor([file[3] == "a" for file in source.files])
    groups = torch.where((number < 2) & first, 100, rows)
    found, _ = grouped(replace(source, groups=groups), 0.003)
    assert len(found.groups[number < 2].unique()) == 1
    assert len(found.groups.unique()) == 19
    assert torch.equal(near_copies(source.images, 0.003).sort().values,
                       near_copies(source.images, 0.003))


def test_more_images_than_are_compared_at_a_time(monkeypatch, folder):
    source = folder(encoded_again)
    whole = near_copies(source.images, 0.003)
    monkeypatch.setattr("unseen_core.sources.near_copies._ROWS", 7)
    assert torch.equal(near_copies(source.images, 0.003), whole) and len(whole) == 20


def test_flat_images_are_no_copies():
    flat = torch.arange(5, dtype=torch.uint8).mul(40)[:, None, None, None].expand(5, 3, 32, 32)
    assert not len(near_copies(flat, 0.003))
