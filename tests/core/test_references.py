"""References read in blocks against the whole tensor; laws in weights against dense fits."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from unseen_core.basics.images import to_float
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import BlendGaussian, fit_law, law_from_state
from unseen_core.laws.gaussian import Gaussian
from unseen_core.laws.references import References
from unseen_core.laws.span import Span
from unseen_core.store import (
    Scratch,
    TensorStore,
    latent_manifest,
    part_name,
    save_part,
    write_index,
)

SHAPE, N = (3, 6, 5), 23
D = 90
KINDS = ("isotropic", "isotropic-reference", "empirical", "shrunk", "spiked", "low-rank")
FOUR_ROWS = 4 * D * 8  # bytes of a block


def latents(n: int = N) -> Tensor:
    """Correlated states off the origin, float64 (n, 3, 6, 5)."""
    random = np.random.default_rng(0)
    x = 0.7 + random.standard_normal((n, 4)) @ random.standard_normal((4, D)) * 0.8
    return torch.from_numpy(x + random.standard_normal((n, D))).reshape(n, *SHAPE)


def streams(n: int) -> Streams:
    """Streams of n samples."""
    return Streams(3, "references", [str(i) for i in range(n)])


def stored(folder: Path, x: Tensor) -> TensorStore:
    """A store of states in parts of 5, float32."""
    parts = x.split(5)
    rows = [len(part) for part in parts]
    index = pd.DataFrame([{"id": f"i{5 * p + r}", "part": p, "row": r}
                          for p, count in enumerate(rows) for r in range(count)])
    with Scratch(folder / "work", "store") as work:
        for number, part in enumerate(parts):
            work.add(part_name(300, number), lambda path, part=part: save_part(
                path, part, "float32"))
        work.add("index.parquet", lambda path: write_index(path, index))
        names = [part_name(300, number) for number in range(len(parts))]
        work.publish(folder / "store", [*names, "index.parquet"],
                     latent_manifest(TensorStore.format, SHAPE, "float32", [300], rows, "0"))
    return TensorStore(folder / "store")


@pytest.mark.parametrize("rows", [1, 4, 22, 23, 1000])
def test_blocks_of_any_size_give_the_sums_of_the_whole(rows: int) -> None:
    x = latents()
    flat, found = x.flatten(1), References.of(x, block=rows * D * 8)
    assert (found.count, found.shape, found.dimension) == (N, SHAPE, D)
    assert [len(block) for _, block in found.blocks()][:-1] == [rows] * ((N - 1) // rows)
    torch.testing.assert_close(found.gram, flat @ flat.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.mean, flat.mean(0), rtol=1e-12, atol=1e-13)
    other = streams(3).normal(D)
    torch.testing.assert_close(found.products(other), other @ flat.T, rtol=1e-12, atol=1e-12)
    weights = streams(6).normal(N)
    torch.testing.assert_close(found.combine(weights), weights @ flat, rtol=1e-12, atol=1e-12)
    assert torch.equal(found.rows([7, 7, 0]), x[[7, 7, 0]])


def test_a_store_is_read_by_rows_and_bytes_become_floats(tmp_path: Path) -> None:
    x = latents().float()
    found = References.stored(stored(tmp_path, x), 300, block=FOUR_ROWS)
    flat = x.flatten(1).double()
    torch.testing.assert_close(found.gram, flat @ flat.T, rtol=1e-12, atol=1e-12)
    assert torch.equal(found.rows(torch.tensor([22, 3])), x[[22, 3]])
    images = torch.randint(0, 256, (N, *SHAPE), dtype=torch.uint8)
    flat = to_float(images).flatten(1).double()
    pixels = References.of(images, block=FOUR_ROWS)
    torch.testing.assert_close(pixels.gram, flat @ flat.T, rtol=1e-12, atol=1e-12)


def test_no_more_than_two_blocks_are_read_at_a_time() -> None:
    x, asked = latents(), []

    def read(rows: list[int]) -> Tensor:
        asked.append(len(rows))
        return x[rows]

    found = References(N, SHAPE, read, block=FOUR_ROWS)
    assert found.gram.shape == (N, N)
    law = BlendGaussian.fit(found, kind="shrunk")
    law.sample(streams(2))
    Span.of(found, law).lift(streams(2).normal(N + 1), streams(2))
    assert max(asked) == 4
    asked.clear()
    assert found.gram is found.gram and not asked  # computed once


def test_inner_products_of_other_images_are_refused() -> None:
    with pytest.raises(UnseenError, match=r"\(5, 5\) do not belong to 23 inverted images"):
        References.of(latents(), torch.zeros(5, 5))


@pytest.mark.parametrize("n", [6, N, 120])  # fewer and more rows than dimensions
@pytest.mark.parametrize("kind", KINDS)
def test_laws_in_weights_are_those_of_dense_rows(kind: str, n: int) -> None:
    x = latents(n)
    rank = 3 if kind in ("spiked", "low-rank") else None
    dense = Gaussian.fit(x.flatten(1), kind=kind, rank=rank)
    law = BlendGaussian.fit(References.of(x, block=FOUR_ROWS), kind=kind, rank=rank)
    flat = x.flatten(1)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(law.mean @ flat, dense.mean, **close)
    factor = flat.T @ law.factor
    torch.testing.assert_close(factor @ factor.T, dense.factor @ dense.factor.T, **close)
    torch.testing.assert_close(law.variance, dense.diagonal, **close)
    assert law.trace == pytest.approx(dense.trace, rel=1e-9)
    others = latents(n + 3)[:7].flatten(1) + 0.3
    if kind == "empirical":
        with pytest.raises(UnseenError, match="remainder variance 0 has no density"):
            law.log_prob(others)
    else:
        torch.testing.assert_close(law.log_prob(others), dense.log_prob(others), **close)
        with pytest.raises(UnseenError, match=r"x has shape \(7, 89\), needs \(n, 90\)"):
            law.log_prob(others[:, 1:])


@pytest.mark.parametrize("kind", ["isotropic", "isotropic-reference", "empirical", "shrunk",
                                  "diagonal"])
def test_draws_and_files_are_those_of_the_dense_law(kind: str) -> None:
    x = latents()
    references = References.of(x, block=FOUR_ROWS)
    law = fit_law(references, kind=kind)
    wanted = Gaussian.fit(x.flatten(1), kind=kind).sample(streams(5))
    torch.testing.assert_close(law.sample(streams(5)), wanted, rtol=1e-10, atol=1e-10)
    state = law.state()
    again = law_from_state(state, references)
    assert type(again) is type(law) and torch.equal(again.sample(streams(5)),
                                                    law.sample(streams(5)))
    if kind != "diagonal":  # nothing of the size of a state
        assert max(t.numel() for t in state.values()) <= N**2
        with pytest.raises(UnseenError, match="do not belong to 20 inverted images"):
            law_from_state(state, References.of(x[:20]))
        with pytest.raises(UnseenError, match="lacks mean; run fit again"):
            law_from_state({"factor": state["factor"], "variance": state["variance"]}, references)


@pytest.mark.parametrize("kind", ["isotropic", "empirical", "shrunk"])
def test_states_are_lifted_as_a_basis_in_full_lifts_them(kind: str) -> None:
    x = latents()
    references = References.of(x, block=FOUR_ROWS)
    span = Span.of(references, BlendGaussian.fit(references, kind=kind))
    states = span.draw(streams(9))
    basis = x.flatten(1).T @ span.basis  # Q, which the library never forms
    torch.testing.assert_close(basis.T @ basis, torch.eye(N).double(), rtol=0, atol=1e-9)
    h = streams(9).normal(D)
    h -= h @ basis @ basis.T
    wanted = states[:, :-1] @ basis.T + states[:, -1:] * h / h.norm(dim=1, keepdim=True)
    torch.testing.assert_close(span.lift(states, streams(9)), wanted, rtol=1e-9, atol=1e-9)


def test_mistakes_are_named() -> None:
    references = References.of(latents())
    with pytest.raises(UnseenError, match="needs at least 2 inverted images, has 1"):
        fit_law(References.of(latents(1)), kind="shrunk")
    with pytest.raises(UnseenError, match="not finite; invert again"):
        fit_law(References.of(latents() / 0), kind="diagonal")
    with pytest.raises(UnseenError, match="kind: 'dct' is not one of"):
        fit_law(references, kind="dct")
    whole = torch.zeros(N), torch.zeros(N, 2)
    for mean, factor, variance, words in (
        (*whole, torch.tensor(-1.0), "negative"),
        (*whole, torch.tensor(torch.inf), "variance holds values that are not finite"),
        (whole[0][1:], whole[1], torch.tensor(1.0), "do not belong to 23"),
        (whole[0], whole[1].T, torch.tensor(1.0), "do not belong to 23"),
        (*whole, torch.ones(1), "do not belong to 23"),
    ):
        with pytest.raises(UnseenError, match=words):
            BlendGaussian(references, mean, factor, variance)
