"""Planted copies are found; new images are flagged as often as the summary says."""

import numpy as np
import pytest
import torch
from draws import normal

from unseen_core.errors import UnseenError
from unseen_core.judging.audit import audit
from unseen_core.judging.novelty import nearest
from unseen_core.judging.probe import wilson


def test_planted_copies_are_flagged() -> None:
    fit, held_out, new = (normal(100, 6, seed) for seed in range(3))
    rows = torch.arange(40).flip(0)
    copies = fit[rows] + 1e-3 * normal(40, 6, 3)
    found = audit(torch.cat([copies, fit[:5], new + 3]), fit, held_out)
    table = found.frame()
    assert table["near_duplicate"].tolist() == [True] * 45 + [False] * 100
    assert table["nearer_than_any"].tolist() == [True] * 45 + [False] * 100
    assert table["nearest_fit"].tolist()[:45] == [*rows.tolist(), 0, 1, 2, 3, 4]
    assert (table["distance"][40:45] == 0).all()
    summary = found.summary()
    share = wilson(45, 145)
    assert (summary["near_duplicates"], summary["near_duplicates_low"],
            summary["near_duplicates_high"]) == (share.value, share.low, share.high)
    assert summary["n"] == 145 and summary["held_out"] == 100


@pytest.mark.parametrize("m, quantile", [(100, 0.01), (60, 0.1)])
def test_new_images_are_flagged_at_the_nominal_rate(m: int, quantile: float) -> None:
    """Mean over fresh sets, within 4 of its standard errors.

    A run's share spreads by the binomial of its n images and about as much again by the
    threshold, a share of m images; at n = m its variance is 2 p (1 - p) / n.
    """
    runs = 400
    near, least = [], []
    for run in range(runs):
        fit, held_out, new = (normal(m, 4, 3 * run + i) for i in range(3))
        found = audit(new, fit, held_out, quantile=quantile).summary()
        near.append(found["near_duplicates"])
        least.append(found["nearer_than_any"])
    nominal, first = found["near_duplicates_nominal"], found["nearer_than_any_nominal"]
    assert first == 1 / (m + 1) and nominal > quantile
    for shares, p in ((near, nominal), (least, first)):
        error = (2 * p * (1 - p) / m / runs) ** 0.5
        assert np.mean(shares) == pytest.approx(p, abs=4 * error)
    # The test can tell the nominal share from the quantile itself.
    assert np.mean(near) > quantile + 4 * error


def test_near_duplicates_are_those_nearer_than_the_held_out_quantile() -> None:
    fit, held_out, new = normal(50, 3, 0), normal(70, 3, 1), normal(90, 3, 2) * 0.5
    found = audit(new, fit, held_out, quantile=0.2)
    distance, rows = nearest(new, fit)
    share = (distance < nearest(held_out, fit)[0].quantile(0.2)).double().mean().item()
    assert found.summary()["near_duplicates"] == share > 0.2
    assert torch.equal(found.distance, distance) and torch.equal(found.nearest_fit, rows)


def test_bad_input_names_the_mend() -> None:
    x = normal(5, 3, 0)
    with pytest.raises(UnseenError, match="quantile 2"):
        audit(x, x, x + 1, quantile=2)
    with pytest.raises(UnseenError, match="remove duplicates"):
        audit(x, x, x)
    with pytest.raises(UnseenError, match="width 3 beside 4"):
        audit(normal(5, 4, 0), x, x + 1)
