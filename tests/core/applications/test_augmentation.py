"""The classifier with few labels, and the comparison of what it is trained on."""

import pytest
import torch

from unseen_core.applications import (
    Classifier,
    accuracy,
    compare_arms,
    draw_labels,
    summary,
    train_classifier,
)
from unseen_core.errors import UnseenError

CONFIG = Classifier(steps=30, batch=16, widths=(8, 16))


def pictures(count, seed):
    """Return noise with a bright half, left or right, and which one."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 90, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 2
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, :, 8 * label : 8 * label + 8] += 120
    return images, labels


def test_a_separable_set_is_learnt_and_unrelated_labels_are_not():
    images, labels = pictures(32, 0)
    test = pictures(64, 1)
    network = train_classifier(images, labels, CONFIG, classes=2, seed=0)
    assert accuracy(network, *test) == 1
    noise = torch.randint(0, 2, (64,), generator=torch.Generator().manual_seed(0))
    assert 0.3 < accuracy(network, test[0], noise) < 0.7


def test_training_repeats_and_leaves_the_callers_random_numbers_alone():
    images, labels = pictures(8, 0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (train_classifier(images, labels, CONFIG, classes=2, seed=5, classical=True)
                     for _ in range(2))
    assert torch.rand(1).equal(expected)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert one.equal(other)


def test_copies_with_what_originals_lack_help_and_wrong_ones_harm():
    images, labels = pictures(8, 0)
    dark = (images // 6).clone()  # the test is dark: only the copies show that
    test = pictures(64, 1)
    test = (test[0] // 6, test[1])
    copies = {0.1: dark[:, None], 0.9: dark.flip(0)[:, None]}  # flipped: labels 1, 0, 1, 0 ...
    found = compare_arms((images, labels), test, copies, CONFIG, seed=0)
    assert set(found) == {"none", "classical", "boomerang 0.1", "both 0.1", "boomerang 0.9",
                          "both 0.9"}
    assert found["boomerang 0.1"] == 1 > found["boomerang 0.9"]


def test_the_summary_pairs_seeds():
    found = [{"none": 0.5, "other": 0.6}, {"none": 0.7, "other": 0.8}, {"none": 0.6, "other": 0.7}]
    plain, other = summary(found)
    assert plain["gain"] == plain["gain_low"] == 0 and other["seeds"] == 3
    assert other["accuracy"] == pytest.approx(0.7) and other["sd"] == pytest.approx(0.1)
    # Every seed gains 0.1: the paired interval has no width, that of the mean has.
    assert other["gain_low"] == pytest.approx(other["gain_high"]) == pytest.approx(0.1)
    assert other["accuracy_low"] < 0.5


def test_few_labels_are_drawn_of_every_class():
    labels = torch.tensor([0, 1, 2] * 10 + [-1] * 5)
    rows = draw_labels(labels, 4, seed=0)
    assert labels[rows].bincount().tolist() == [4, 4, 4] and len(rows.unique()) == 12
    assert not rows.equal(draw_labels(labels, 4, seed=1))
    with pytest.raises(UnseenError, match="class 0 has 10 images where 11"):
        draw_labels(labels, 11, seed=0)
    with pytest.raises(UnseenError, match="two classes"):
        draw_labels(torch.zeros(5, dtype=torch.int64), 1, seed=0)


def test_copies_of_another_size_are_refused():
    images, labels = pictures(4, 0)
    with pytest.raises(UnseenError, match="copies of the same size"):
        train_classifier(images, labels, CONFIG, classes=2, seed=0, copies=images[:3, None])
    with pytest.raises(UnseenError, match="2 labels of 2 classes"):
        train_classifier(images, labels[:2], CONFIG, classes=2, seed=0)
