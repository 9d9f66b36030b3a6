"""Tracing outputs to their sources: identity, shuffling, guessing."""

import pytest
import torch

from unseen_core.applications import anonymity
from unseen_core.errors import UnseenError


@pytest.fixture
def sources():
    return torch.randn(50, 8, generator=torch.Generator().manual_seed(0))


def test_untouched_images_are_all_traced_and_verified(sources):
    found = anonymity(sources, sources, torch.arange(50))
    assert found.reidentified.value == found.verified.value == 1
    assert found.reidentified.low < 1 and found.moved == 0 and found.chance == 1 / 50
    assert 0 < found.false_accepts <= 0.01


def test_outputs_of_the_wrong_source_are_not_traced(sources):
    found = anonymity(sources, sources, (torch.arange(50) + 1) % 50)
    assert found.reidentified.value == 0
    assert found.verified.value <= 0.1 and found.moved == pytest.approx(1, abs=0.2)


def test_guessing_reaches_chance(sources):
    outputs = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1))
    found = anonymity(outputs, sources, torch.arange(2000) % 50)
    assert found.reidentified.low <= 1 / 50 <= found.reidentified.high


def test_copies_count_each_and_noise_hides_more_and_more(sources):
    rows = torch.arange(50).repeat_interleave(4)
    noise = torch.randn(200, 8, generator=torch.Generator().manual_seed(2))
    shares = [anonymity(sources[rows] + size * noise, sources, rows).summary()["top1"]
              for size in (0.1, 1.0, 10.0)]
    assert shares[0] == 1 and shares[0] > shares[1] > shares[2]


def test_few_sources_verify_only_what_is_nearer_than_all_of_them():
    sources = torch.eye(4)
    found = anonymity(sources + 0.1, sources, torch.arange(4))
    assert found.false_accepts == 0 and found.verified.value == 1


def test_equal_sources_are_refused():
    with pytest.raises(UnseenError, match="equal; remove the copies"):
        anonymity(torch.ones(4, 3), torch.ones(4, 3), torch.arange(4))
