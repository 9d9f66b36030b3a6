"""Nearest-neighbour measures against scipy and against sets whose answer is known."""

import pytest
import torch
from draws import normal
from scipy.spatial.distance import cdist, pdist

from unseen_core.errors import UnseenError
from unseen_core.judging.audit import audit
from unseen_core.judging.novelty import (
    diversity,
    mean_distance,
    nearest,
    nearest_pictures,
    novelty,
    precision_recall,
)


def test_nearest_against_scipy() -> None:
    x, references = normal(600, 7, 0), normal(90, 7, 1)  # more rows than one block holds
    distances, rows = nearest(x, references)
    wanted = cdist(x.numpy(), references.numpy())
    assert rows.tolist() == wanted.argmin(1).tolist()
    torch.testing.assert_close(distances, torch.from_numpy(wanted.min(1)), rtol=1e-12, atol=0)


def test_nearest_pictures_are_exact_in_blocks_of_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3, 60, 50)  # 9,000 numbers: one block and a rest
    x = torch.randint(0, 256, (7, *shape), generator=generator, dtype=torch.uint8)
    references = torch.randint(0, 256, (5, *shape), generator=generator, dtype=torch.uint8)
    x[2], x[4] = references[3], references[1]
    x[4, 1, 3, 2] ^= 1  # one grey level away
    references = torch.cat([references, references[3:4]])  # a tie, which goes to the first
    distances, rows = nearest_pictures(x, references)
    wanted = cdist(x.flatten(1).double() / 255, references.flatten(1).double() / 255)
    assert rows.tolist() == wanted.argmin(1).tolist() and rows[2] == 3
    torch.testing.assert_close(distances, torch.from_numpy(wanted.min(1)), rtol=1e-12, atol=0)
    assert distances[2] == 0 and distances[4] == 1 / 255
    with pytest.raises(UnseenError, match="give uint8 of one size"):
        nearest_pictures(x, references[:, :, :-1])
    with pytest.raises(UnseenError, match="give uint8 of one size"):
        nearest_pictures(x.float(), references)


def test_nearest_sees_a_copy_far_from_the_origin() -> None:
    x = (1e4 + normal(30, 200, 0)).float()
    distances, rows = nearest(x, x.flip(0))
    assert (distances == 0).all()
    assert rows.tolist() == list(range(29, -1, -1))


def test_novelty_and_copies() -> None:
    fit, held_out, new = (normal(200, 3, seed) for seed in range(3))
    assert novelty(new, held_out, fit) == pytest.approx(1, abs=0.25)
    assert audit(new, fit, held_out).novelty == novelty(new, held_out, fit)
    assert novelty(fit, held_out, fit) == 0
    assert novelty(new * 30, held_out, fit) > 5


def test_diversity_is_a_ratio_of_mean_distances() -> None:
    x, y = normal(300, 4, 0), normal(40, 4, 1)
    wanted = pdist(x.numpy()).mean() / pdist(y.numpy()).mean()
    assert diversity(x, mean_distance(y)) == pytest.approx(wanted, rel=1e-12)
    assert diversity(3 * y, mean_distance(y)) == pytest.approx(3, rel=1e-12)
    assert diversity(y[:1].expand(5, -1), mean_distance(y)) == 0


def test_precision_recall() -> None:
    real = normal(120, 3, 0)
    precision, recall = precision_recall(real, normal(120, 3, 1))
    assert precision > 0.7 and recall > 0.7
    # One mode only: precise, but recalling little; and the two exchange places.
    narrow = normal(120, 3, 2) * 0.05
    precision, recall = precision_recall(real, narrow)
    assert precision > 0.95 and recall < 0.1
    assert precision_recall(narrow, real) == (recall, precision)
    assert precision_recall(real, real + 100) == (0, 0)


def test_precision_radius_is_the_kth_other_row() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    fake = torch.tensor([[-0.9], [2.5], [30.0], [50.0]])
    # Radii at k = 1 are 1, 1, 2, 7: rows -0.9 and 2.5 are inside, 30 and 50 are not.
    assert precision_recall(real, fake, k=1)[0] == 0.5


def test_bad_input_names_the_mend() -> None:
    x = normal(5, 3, 0)
    with pytest.raises(UnseenError, match="remove duplicates"):
        novelty(x, x, x)
    with pytest.raises(UnseenError, match="all are equal"):
        diversity(x, mean_distance(x[:1].expand(4, -1)))
    with pytest.raises(UnseenError, match="x: 1 images where at least 2"):
        diversity(x[:1], 1.0)
    with pytest.raises(UnseenError, match="fake: 3 images where at least 4"):
        precision_recall(x, x[:3])
    with pytest.raises(UnseenError, match="k >= 1"):
        precision_recall(x, x, k=0)
