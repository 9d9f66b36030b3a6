"""Bootstrap of a difference of distances: exact values, pairing, and what is shared."""

import pytest
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import frechet_distance, kernel_distance
from unseen_core.judging.paired import frechet_difference, kernel_difference

BOTH = (kernel_difference, frechet_difference)


def features(seed: int, n: int, shift: float = 0.0, d: int = 5) -> Tensor:
    """Normal features about a shift."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double() + shift


@pytest.mark.parametrize("paired", [False, True])
def test_the_value_is_the_difference_of_the_distances(paired: bool) -> None:
    x, y, real = features(0, 30, 0.4), features(1, 30), features(2, 50)
    kernel = kernel_distance(x, real, draws=1).value - kernel_distance(y, real, draws=1).value
    found = kernel_difference(x, y, real, paired=paired, draws=300)
    assert found.value == pytest.approx(kernel, rel=1e-9)
    assert found.low < found.value < found.high
    frechet = frechet_distance(x, real) - frechet_distance(y, real)
    assert frechet_difference(x, y, real, paired=paired, draws=10).value == pytest.approx(frechet)


@pytest.mark.parametrize("difference", BOTH)
def test_pairs_are_drawn_together(difference) -> None:
    x, real = features(0, 40), features(2, 60)
    y = x + 0.01 * features(3, 40)  # the same images, hardly changed
    alone = difference(x, y, real, draws=60)
    together = difference(x, y, real, paired=True, draws=60)
    assert together.high - together.low < (alone.high - alone.low) / 5
    same = difference(x, x, real, paired=True, draws=20)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_shared_real_images_cancel() -> None:
    x, y, real = features(0, 80, 0.5), features(1, 80, 0.5), features(2, 15)
    found = kernel_difference(x, y, real, draws=400)
    width = sum(i.high - i.low for i in (kernel_distance(z, real, draws=400) for z in (x, y)))
    assert found.high - found.low < 0.7 * width
    assert found.low < 0 < found.high


@pytest.mark.parametrize("difference", BOTH)
def test_a_real_change_excludes_zero(difference) -> None:
    x, real = features(0, 60), features(2, 80)
    found = difference(x + 1, x, real, paired=True, draws=60)
    assert found.low > 0


@pytest.mark.parametrize("difference", BOTH)
def test_mistakes_are_named(difference) -> None:
    x, real = features(0, 10), features(1, 12)
    with pytest.raises(UnseenError, match="paired sets of 10 and 9"):
        difference(x, x[:9], real, paired=True)
    with pytest.raises(UnseenError, match="draws 0"):
        difference(x, x, real, draws=0)
    with pytest.raises(UnseenError, match="width"):
        difference(x, features(0, 10, d=4), real)
