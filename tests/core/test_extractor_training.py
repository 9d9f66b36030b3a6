"""Training of the extractor on drawn patterns: it learns, repeats, and folds exactly."""

import dataclasses

import pytest
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.features import Features32, Features32Net, extract
from unseen_core.training.extractor import (
    ExtractorConfig,
    _augment,
    _folded,
    _with_norms,
    train_extractor,
)
from unseen_core.training.extractor_card import accuracy

SMALL = ExtractorConfig(steps=120, outline=0.1, batch=24, widths=(8, 12, 16), unflipped=(0,))


def patterns(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw domain 0: a bright half, its side the class; domain 1: stripes, without class."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2 * n, 3, 32, 32, generator=generator) * 90
    side = torch.randint(0, 2, (n,), generator=generator)
    for image, right in zip(x[:n], side, strict=True):
        image[:, :, 16 * right : 16 * right + 16] += 120
    x[n:, :, ::4] += 120
    domains = torch.arange(2).repeat_interleave(n)
    return x.to(torch.uint8), domains, torch.cat([side, torch.full((n,), -1)])


def test_it_learns_repeats_and_standardises() -> None:
    x, domains, classes = patterns(40, 0)
    seen: list[tuple[int, float]] = []
    state = torch.random.get_rng_state()
    network = train_extractor(x, domains, classes, SMALL, lambda *s: seen.append(s))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [step for step, _ in seen] == list(range(1, SMALL.steps + 1))
    domain, label = accuracy(network, *patterns(30, 1))
    assert domain > 0.95 and label > 0.9

    features = extract(Features32(network), x).double()
    torch.testing.assert_close(features.mean(0), torch.zeros(16).double(), rtol=0, atol=1e-4)
    spread = features.std(0, correction=0)
    assert ((spread - 1).abs() < 1e-3).sum() >= 8  # a feature that never fires has no spread

    again = train_extractor(x, domains, classes, SMALL)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_mirroring_would_confuse_an_unflipped_domain() -> None:
    x, domains, classes = patterns(40, 0)
    flipped = dataclasses.replace(SMALL, unflipped=())
    confused = accuracy(train_extractor(x, domains, classes, flipped), *patterns(30, 1))[1]
    assert confused < 0.8


def test_augmentation_moves_by_two_pixels_at_most() -> None:
    x = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    x[:, :, 10, 20] = 255
    found = _augment(x, torch.ones(200, dtype=torch.bool), torch.Generator().manual_seed(0))
    peaks = found.mean(1).flatten(1).argmax(1)
    rows, columns = peaks // 32, peaks % 32
    assert set(rows.tolist()) == {8, 9, 10, 11, 12}
    assert set(columns.tolist()) == {18, 19, 20, 21, 22}
    assert 0 <= found.min() and found.max() <= 1
    free = _augment(x, torch.zeros(200, dtype=torch.bool), torch.Generator().manual_seed(0))
    mirrored = free.mean(1).flatten(1).argmax(1) % 32 < 15
    assert 60 < mirrored.sum() < 140


def test_folding_changes_nothing() -> None:
    network = _with_norms(Features32Net((8, 12, 16), 2, 2))
    x = torch.rand(16, 3, 32, 32)
    with torch.no_grad():
        for _ in range(3):
            network.pooled(x)  # running statistics away from their defaults
        wanted = network.eval().pooled(x)
        torch.testing.assert_close(_folded(network).pooled(x), wanted, rtol=1e-4, atol=1e-5)
    kinds = {type(layer).__name__ for layer in network.trunk}
    assert kinds == {"Conv2d", "ReLU"}


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x, d, c: (x.float(), d, c, SMALL), "uint8"),
        (lambda x, d, c: (x[..., :16], d, c, SMALL), "3, 32, 32"),
        (lambda x, d, c: (x, d[1:], c, SMALL), "domains"),
        (lambda x, d, c: (x, d, c - 1, SMALL), "class labels"),
        (lambda x, d, c: (x, d, c, dataclasses.replace(SMALL, batch=1)), "batch"),
        (lambda x, d, c: (x, d, c, dataclasses.replace(SMALL, learning_rate=1e30)), "loss became"),
    ],
)
def test_bad_input_names_the_mend(change: object, words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        train_extractor(*change(*patterns(4, 0)))


def test_the_outline_keeps_a_domain_without_classes_spread_out() -> None:
    x, domains, classes = patterns(40, 0)
    striped = domains == 1
    levels = torch.linspace(20, 235, int(striped.sum())).to(torch.uint8)
    x[striped] = levels[:, None, None, None].expand_as(x[striped])  # only brightness differs

    def ratio(outline: float) -> float:
        config = dataclasses.replace(SMALL, outline=outline)
        network = train_extractor(x, domains, classes, config)
        features = extract(Features32(network), x).double()
        within = features[striped].var(0).sum()
        between = (features[striped].mean(0) - features[~striped].mean(0)).square().sum()
        return (within / between).item()

    assert ratio(1.0) > 1.2 * ratio(0.0)
