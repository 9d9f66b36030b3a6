"""Paths against their closed forms: ends, lengths, angles."""

import pytest
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.starts.paths import path

KINDS = ("slerp", "shell", "linear")


def state(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ends_are_exact(kind: str, dtype: torch.dtype) -> None:
    x, y, mean = state(0, dtype), 3 * state(1, dtype), state(2, dtype)
    found = path(x, y, 11, kind=kind, mean=mean)
    assert found.shape == (11, 3, 8, 8) and found.dtype == dtype
    assert torch.equal(found[0], x) and torch.equal(found[-1], y)
    # The other way round it is the same path.
    torch.testing.assert_close(path(y, x, 11, kind=kind, mean=mean).flip(0), found)
    # Twice as many steps pass through the same points.
    torch.testing.assert_close(path(x, y, 21, kind=kind, mean=mean)[::2], found)


@pytest.mark.parametrize("kind, about", [("slerp", 0.0), ("shell", 2.0)])
def test_lengths_and_angles_go_evenly(kind: str, about: float) -> None:
    x, y, mean = state(0) + about, 1.7 * state(1) + about, torch.full((3, 8, 8), about).double()
    deviation = (path(x, y, 9, kind=kind, mean=mean) - (mean if kind == "shell" else 0)).flatten(1)
    length = deviation.norm(dim=1)
    torch.testing.assert_close(
        length, torch.linspace(length[0], length[-1], 9, dtype=torch.float64), rtol=1e-12, atol=0)
    assert (length.diff() > 0).all()
    angle = torch.cosine_similarity(deviation[1:], deviation[:-1]).arccos()
    whole = torch.cosine_similarity(deviation[:1], deviation[-1:]).arccos()
    torch.testing.assert_close(angle, (whole / 8).expand(8), rtol=1e-9, atol=0)


def test_shell_keeps_equal_distances_and_linear_does_not() -> None:
    mean = state(2)
    x, y = (mean + 5 * d / d.norm() for d in (state(0), state(1)))
    distance = (path(x, y, 7, kind="shell", mean=mean) - mean).flatten(1).norm(dim=1)
    torch.testing.assert_close(distance, torch.full((7,), 5.0).double(), rtol=1e-12, atol=0)
    straight = path(x, y, 7, kind="linear")
    torch.testing.assert_close(straight.diff(dim=0), ((y - x) / 6).expand(6, -1, -1, -1))
    assert (straight[3] - mean).norm() < 4.5


def test_shell_about_the_origin_is_slerp() -> None:
    x, y = state(0), state(1)
    assert torch.equal(path(x, y, 5, kind="shell", mean=torch.zeros_like(x)),
                       path(x, y, 5, kind="slerp"))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: path(x, x, 1, kind="linear"), "points 1"),
        (lambda x: path(x, x, 3, kind="shell"), "give mean"),
        (lambda x: path(x, x[:1], 3, kind="linear"), "one shape"),
        (lambda x: path(x, x, 3, kind="shell", mean=x[:1]), "one shape"),
        (lambda x: path(x, x, 3, kind="arc"), "'arc' is not known"),
    ],
)
def test_bad_input_names_the_mend(call: object, words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        call(state(0))
