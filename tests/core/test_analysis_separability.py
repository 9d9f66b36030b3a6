"""Planted separations against their closed forms; classifiers against scikit-learn."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import SVC
from torch import Tensor

from unseen_core.analysis.latents import centroid_accuracy, separability
from unseen_core.errors import UnseenError


def normals(seed: int, n: int, d: int) -> Tensor:
    """Standard normals, float64 (n, d)."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_centre_distance_is_unbiased() -> None:
    delta = torch.zeros(60).double()
    delta[0] = 2.0
    found = torch.tensor([
        separability(normals(2 * i, 10, 60), delta + 1.5 * normals(2 * i + 1, 15, 60),
                     folds=2).centre_distance_square for i in range(60)])
    assert abs(found.mean() - 4) < 3 * found.std() / 60**0.5


@pytest.mark.parametrize(("separation", "sizes"), [(6.0, (200, 200)), (4.5, (60, 180))])
def test_isotropic_accuracy_is_that_predicted(separation: float, sizes: tuple[int, int]) -> None:
    d, v = 2000, 0.8
    delta = separation * v**0.5 * torch.nn.functional.normalize(normals(9, 1, d))
    found = separability(v**0.5 * normals(0, sizes[0], d),
                         delta + v**0.5 * normals(1, sizes[1], d))
    counts = (0.8 * sizes[0], 0.8 * sizes[1])
    truth = centroid_accuracy(v * separation**2, v, d, counts)
    assert 0.7 < truth < 0.99
    assert found.measured["centroid"].low <= truth <= found.measured["centroid"].high
    assert found.ratio == pytest.approx(separation, rel=0.1)
    assert found.threshold == pytest.approx(d**0.25)
    assert found.effective_dimension == pytest.approx(d, rel=0.05)
    for name in ("isotropic", "effective", "along"):
        assert found.predicted[name] == pytest.approx(truth, abs=0.05)
        # The same Δ² enters all three, and most of the error comes from it.
        assert found.predicted[name] == pytest.approx(found.predicted["isotropic"], abs=0.01)


def test_accuracy_along_the_means_of_an_anisotropic_law() -> None:
    d = 2000
    scale, delta = torch.ones(d).double(), torch.zeros(d).double()
    scale[:10] = 8.0
    delta[:10] = 4.0  # all of it where the variance is
    n = 200
    found = separability(scale * normals(0, n, d), delta + scale * normals(1, n, d))
    trace, square = scale.square().sum().item(), scale.pow(4).sum().item()
    assert found.effective_dimension == pytest.approx(trace**2 / square, rel=0.15)
    assert found.effective_variance == pytest.approx(square / trace, rel=0.15)
    accuracy = found.measured["centroid"]
    assert accuracy.low <= found.predicted["along"] <= accuracy.high
    assert found.predicted["isotropic"] > accuracy.high  # the variance along δ is 64, not 1.3


def test_unequal_covariances_and_sizes_do_not_favour_a_side() -> None:
    d = 1000
    found = separability(normals(0, 60, d), 7 / d**0.5 + 1.3 * normals(1, 300, d))
    accuracy = found.measured["centroid"]
    assert accuracy.low <= found.predicted["along"] <= accuracy.high


def test_equal_laws_cannot_be_told_apart() -> None:
    found = separability(normals(0, 200, 1500), normals(1, 200, 1500))
    for interval in found.measured.values():
        assert interval.value == pytest.approx(0.5, abs=0.08)
    assert max(found.predicted.values()) < 0.6
    assert abs(found.centre_distance_square) < 4 * (2 * 1500 * 2) ** 0.5 * 2 / 200


@pytest.mark.parametrize("d", [12, 300])
def test_classifiers_are_those_of_the_full_space(d: int) -> None:
    seen = normals(0, 40, d) * torch.linspace(0.5, 2, d, dtype=torch.float64)
    unseen = 0.25 + normals(1, 60, d)
    x, y = torch.cat([seen, unseen]), np.arange(100) >= 40
    correct = {"logistic": 0, "svm": 0}
    for train, test in StratifiedKFold(5, shuffle=True, random_state=3).split(y, y):
        centred = x - x[train].mean(0)
        scaled = (centred / centred[train].square().mean().sqrt()).numpy()
        for name, model in (("logistic", LogisticRegression(class_weight="balanced")),
                            ("svm", SVC(kernel="linear", class_weight="balanced"))):
            correct[name] += (model.fit(scaled[train], y[train]).predict(scaled[test])
                              == y[test]).sum()
    found = separability(seen.float(), unseen.float(), seed=3).measured
    assert {name: round(100 * found[name].value) for name in correct} == correct


def test_summary_is_json_and_bad_input_is_named() -> None:
    seen, unseen = normals(0, 8, 30).reshape(8, 3, 2, 5), normals(1, 9, 30).reshape(9, 3, 2, 5)
    found = separability(seen, unseen)
    assert json.loads(json.dumps(found.summary()))["measured"]["svm"]["low"] >= 0
    with pytest.raises(UnseenError, match="folds"):
        separability(normals(0, 4, 5), normals(1, 9, 5))
    with pytest.raises(UnseenError, match="width"):
        separability(normals(0, 9, 5), normals(1, 9, 6))
