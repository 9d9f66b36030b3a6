"""The choice of a cell on Gaussian features, where new real images can be drawn at will."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from unseen_core.errors import UnseenError
from unseen_core.judging.metrics import cubic_kernel, kernel_distance
from unseen_core.judging.novelty import nearest, novelty
from unseen_core.judging.selection import Candidate, choose

D, N = 8, 100


def normal(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, D, generator=generator, dtype=torch.float64)


def cell(name: str, features: Tensor, parents: object = None, calls: int = 20) -> Candidate:
    parents = [[]] * len(features) if parents is None else parents
    return Candidate(name, 501, features, parents, calls)


def copies(fit: Tensor, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(fit), (N, 1), generator=torch.Generator().manual_seed(seed))
    return fit[rows[:, 0]] + noise * normal(N, seed + 1), rows


def test_fresh_draws_win() -> None:
    fit = normal(N, 0)
    cells = [
        cell("shifted", normal(N, 1) + 0.5),
        cell("wide", normal(N, 2) * 1.5),
        cell("copies", *copies(fit, 0.0, 3)),
        cell("one", normal(1, 4).expand(N, -1) * 2),
        cell("fresh", normal(N, 5)),
    ]
    found = choose(cells, fit)
    assert found.chosen == "fresh"
    assert found.confidence > 0.99
    table = found.table().set_index("name")
    assert table["admissible"].to_dict() == {
        "shifted": True, "wide": True, "copies": False, "one": False, "fresh": True}
    assert table.loc["copies", "novelty"] == 0 and table.loc["one", "diversity"] == 0
    assert table["chosen"].tolist() == [False] * 4 + [True]
    assert table["share"].sum() == pytest.approx(1)
    # Only fresh draws, and what is new at a price, are on the front.
    assert table.loc["fresh", "frontier"] and not table.loc["shifted", "frontier"]
    # The order of cells and the cells beside one change nothing.
    assert choose(cells[::-1], fit).scores == found.scores[::-1]
    alone = choose(cells[:1], fit).scores[0]
    assert dataclasses.replace(alone, share=0.0, frontier=False) == found.scores[0]


def test_a_cell_that_copies_more_than_chance_is_not_chosen() -> None:
    """One image in seven is a near copy: the median, novelty, does not see it."""
    fit = normal(N, 0)
    some = normal(N, 1)
    some[: N // 7] = fit[: N // 7] + 0.01 * normal(N // 7, 2)
    cells = [cell("some copies", some), cell("worse", normal(N, 3) * 1.1)]
    found = choose(cells, fit)
    table = found.table().set_index("name")
    assert table.loc["some copies", "copies"] == pytest.approx((N // 7) / N, abs=0.02)
    assert table.loc["some copies", "novelty"] > 0.9 and not table.loc["some copies", "admissible"]
    assert found.chosen == "worse" and found.confidence == 1
    assert table.loc["worse", "copies"] < 0.03
    alone = choose(cells[:1], fit)
    assert alone.chosen is None and "14% near copies" in alone.reason


def test_without_parents_it_is_the_kernel_distance() -> None:
    fit, x = normal(60, 0), normal(80, 1) * 1.3
    found = choose([cell("x", x)], fit, draws=2000).scores[0]
    wanted = kernel_distance(x, fit, draws=2000)
    assert found.criterion == pytest.approx(wanted.value, rel=1e-10)
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=0.1)
    assert found.high == pytest.approx(wanted.high, rel=0.1)
    apart = torch.cat([nearest(fit[i : i + 1], fit[torch.arange(60) != i])[0] for i in range(60)])
    assert found.novelty * apart.quantile(0.5) == pytest.approx(nearest(x, fit)[0].quantile(0.5))
    assert found.novelty == pytest.approx(novelty(x, normal(60, 2), fit), rel=0.15)


def test_criterion_is_its_formula() -> None:
    """Where every fit image is a parent once, centring leaves the plain value as it is."""
    fit = normal(6, 0)
    pairs = torch.tensor([[0, 3], [5, 1], [2, 4]])
    x = fit[pairs].sum(1) / 2**0.5
    within = cubic_kernel(x, x).fill_diagonal_(0).sum() / 6
    real = cubic_kernel(fit, fit).fill_diagonal_(0).sum() / 30
    across = np.mean([[cubic_kernel(x[i : i + 1], fit[j : j + 1]).item()
                       for j in range(6) if j not in pairs[i]] for i in range(3)])
    wanted = (within + real - 2 * across).item()
    for parents in (pairs, pairs.tolist(), [[0, 3, 0], (1, 5), {4, 2}]):
        found = choose([cell("x", x, parents)], fit, novelty=0, draws=5)
        assert found.scores[0].criterion == pytest.approx(wanted, rel=1e-10)


def test_criterion_of_fresh_draws_is_zero_on_average() -> None:
    """Also for blends: a sum of two images over √2 is a new draw, but not of its parents."""
    runs = 150
    found = {name: [] for name in ("fresh", "blend", "forgotten")}
    for run in range(runs):
        fit = normal(60, 2 * run)
        pairs = torch.arange(60).reshape(30, 2)
        blend = fit[pairs].sum(1) / 2**0.5
        cells = [cell("fresh", normal(30, 2 * run + 1)), cell("blend", blend, pairs),
                 cell("forgotten", blend)]
        for score in choose(cells, fit, novelty=0, diversity=0, draws=2).scores:
            found[score.name].append(score.criterion)
    error = {name: np.std(values) / runs**0.5 for name, values in found.items()}
    mean = {name: np.mean(values) for name, values in found.items()}
    assert abs(mean["fresh"]) < 3 * error["fresh"]
    assert abs(mean["blend"]) < 3 * error["blend"]
    # E k(g, parent) - E k(g, other) of (f + f')/√2 and f, by moments of Gaussians; p / N = 1 / 30
    c = 2**-0.5
    second = c**2 * (D**2 + 2 * D) + c**2 * D - D
    third = c**3 * (D * (D + 2) * (D + 4)) + 3 * c**3 * D * (D + 2)
    excess = 3 * c + 3 * second / D**2 + third / D**3
    assert mean["forgotten"] == pytest.approx(-2 / 30 * excess, abs=4 * error["forgotten"])
    assert mean["forgotten"] < -10 * error["forgotten"]


def test_a_prior_leaks_unless_it_is_fitted_to_folds() -> None:
    """Against the distance to real images that no cell has seen, on average over fit sets."""

    def draws_of(fit: Tensor, n: int, seed: int) -> Tensor:
        return fit.mean(0) + normal(n, seed) @ torch.linalg.cholesky(torch.cov(fit.T)).T

    runs, whole, folded = 100, [], []
    for run in range(runs):
        fit, unseen = normal(60, 10 * run), normal(60, 10 * run + 1)
        parts = [torch.arange(60) % 4 != fold for fold in range(4)]
        x = draws_of(fit, 60, 10 * run + 2)
        y = torch.cat([draws_of(fit[part], 15, 10 * run + 3 + i) for i, part in enumerate(parts)])
        parents = [part.nonzero()[:, 0].tolist() for part in parts for _ in range(15)]
        for score, found in zip(
            choose([cell("x", x), cell("y", y, parents)], fit, novelty=0, draws=2).scores,
            (whole, folded), strict=True,
        ):
            features = x if score.name == "x" else y
            found.append(score.criterion - kernel_distance(features, unseen, draws=1).value)
    error = np.std(folded) / runs**0.5
    assert abs(np.mean(folded)) < 3 * error
    assert np.mean(whole) < -5 * error


def test_copies_gain_by_forgotten_parents_only() -> None:
    fit = normal(N, 0)
    near, parents = copies(fit, 0.1, 1)
    cells = [cell("recorded", near, parents), cell("forgotten", near), cell("new", normal(N, 7))]
    found = choose(cells, fit, novelty=0)
    scores = {score.name: score for score in found.scores}
    assert scores["forgotten"].criterion < scores["recorded"].criterion - 0.1
    assert scores["forgotten"].criterion < min(0, scores["new"].criterion)
    # What leaving parents out guards against, where no image is seen to be a copy.
    assert not scores["forgotten"].admissible and scores["forgotten"].copies == 1
    assert choose(cells, fit).chosen == "new"


def test_confidence_of_equals_and_of_unlike_cells() -> None:
    fit, x = normal(N, 0), normal(N, 1)
    same = choose([cell("a", x, calls=40), cell("b", x, calls=20), cell("c", x + 1)], fit)
    assert same.chosen == "b"  # as near, as new, and cheaper
    assert same.confidence == 0.5
    # Two sets of one law: neither is sure, over many pairs.
    shares = [choose([cell("a", normal(N, 10 + 2 * i)), cell("b", normal(N, 11 + 2 * i))],
                     fit, draws=100).scores[0].share for i in range(40)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.15)


def test_the_least_criterion_wins_however_new_the_others_are() -> None:
    """A wider set is the newest of all, yet too far; near-ties are told."""
    for run in range(5):
        cells = [cell(str(i), normal(N, 100 * run + i)) for i in range(8)]
        cells.append(cell("wide", normal(N, 100 * run + 8) * 1.5))
        found = choose(cells, normal(N, 100 * run + 9), draws=100)
        scores = {score.name: score for score in found.scores}
        assert scores["wide"].novelty > scores[found.chosen].novelty
        assert scores[found.chosen].criterion == min(s.criterion for s in found.scores)
        close = int(found.reason.split("; ")[1].split()[0])
        assert 1 <= close <= 7
        assert found.reason.startswith("least criterion of 9 admissible cells in 9")


def test_no_cell_is_admissible() -> None:
    fit = normal(N, 0)
    cells = [cell("exact", *copies(fit, 0.0, 1)), cell("near", *copies(fit, 0.1, 3))]
    found = choose(cells, fit, draws=20)
    assert found.chosen is None and found.confidence == 0
    assert "the newest, near, has" in found.reason
    assert found.table()["frontier"].any() and not found.table()["chosen"].any()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"parents": [[0]] * 4}, "parents of 4 images beside 5"),
        ({"parents": [[0]] * 4 + [[6]]}, "parents of image 4 must be rows of the 6"),
        ({"parents": [[0]] * 4 + [[-1]]}, "rows of the 6"),
        ({"parents": [range(6)] * 5}, "fewer than all"),
        ({"generated_features": torch.zeros(5, 3)}, "candidate x: features of width 3 beside 8"),
    ],
)
def test_bad_candidates_name_the_mend(change: dict[str, object], words: str) -> None:
    with pytest.raises(UnseenError, match=words):
        choose([dataclasses.replace(cell("x", normal(5, 1)), **change)], normal(6, 0))


def test_bad_input_names_the_mend() -> None:
    fit = normal(6, 0)
    x = cell("x", normal(5, 1))
    with pytest.raises(UnseenError, match="unique"):
        choose([x, x], fit)
    with pytest.raises(UnseenError, match="at least one"):
        choose([], fit)
    with pytest.raises(UnseenError, match="thresholds >= 0"):
        choose([x], fit, novelty=-1)
    with pytest.raises(UnseenError, match="duplicate"):
        choose([x], fit[:3].repeat(2, 1))
