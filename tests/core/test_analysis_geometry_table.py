"""The table against a loop and, on Gaussians of known moments, against the closed forms."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unseen_core.analysis.latents import ROWS, geometry_table, identities
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError


def normals(seed: int, n: int, d: int) -> Tensor:
    """Standard normals, float64 (n, d)."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angle(u: np.ndarray, v: np.ndarray) -> float:
    """Degrees between two vectors."""
    return math.degrees(math.acos(u @ v / (np.linalg.norm(u) * np.linalg.norm(v))))


def test_table_equals_a_loop() -> None:
    x = (1 + normals(0, 7, 24)).float()
    rows, centre = x.double().numpy(), x.double().mean(0).numpy()
    columns = {name: [] for name in ROWS}
    names = [str(i) for i in range(50)]
    for i, j, k in Streams(3, "geometry table", names).choose(7, 3).tolist():
        p, q, r = rows[i], rows[j], rows[k]
        values = (np.linalg.norm(p), np.linalg.norm(p - centre), np.linalg.norm(centre),
                  np.linalg.norm(p - q), angle(p, q), angle(q - p, r - p))
        for name, value in zip(ROWS, values, strict=True):
            columns[name].append(value)
    found = geometry_table(x.reshape(7, 2, 3, 4), draws=50, seed=3)
    for name, values in columns.items():
        assert found[name]["mean"] == pytest.approx(np.mean(values), rel=1e-9)
        assert found[name]["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-9)


def law(wide: float) -> tuple[Tensor, Tensor]:
    """A mean and standard deviations; the mean lies along directions of large variance."""
    d = 3072
    scale, mean = torch.full((d,), 0.9).double(), torch.zeros(d).double()
    scale[:200], mean[:400] = wide, 1.2
    return mean, scale


@pytest.mark.parametrize("wide", [0.9, 3.0])
def test_gaussians_follow_the_identities(wide: float) -> None:
    mean, scale = law(wide)
    trace, square = scale.square().sum().item(), scale.pow(4).sum().item()
    energy = mean.square().sum().item()
    radius = (energy + trace) ** 0.5
    n = 400
    x = mean + scale * normals(0, n, len(mean))
    truth = {"radius": radius, "distance_to_mean": trace**0.5, "centre_norm": energy**0.5,
             "pair_distance": (2 * trace) ** 0.5,
             "origin_angle": math.degrees(math.acos(energy / radius**2)), "third_angle": 60.0}
    table, closed = geometry_table(x, draws=2000), identities(x)
    for name in ROWS:
        # The draws share n latents, of which each enters the mean of a row about once.
        error = closed[name]["sd"] * (3 / n + 1 / 2000) ** 0.5 + truth[name] / trace**2 * square
        assert closed[name]["mean"] == pytest.approx(truth[name], abs=4 * error + 0.05)
        if name not in ("centre_norm", "distance_to_mean"):
            assert table[name]["mean"] == pytest.approx(truth[name], abs=4 * error)
            assert table[name]["sd"] == pytest.approx(closed[name]["sd"], rel=0.1)
    assert closed["pair_distance"]["sd"] == pytest.approx((square / trace) ** 0.5, rel=0.1)
    # Noise of the centre, as documented.
    assert table["centre_norm"]["mean"] == pytest.approx((energy + trace / n) ** 0.5, rel=0.02)
    assert table["distance_to_mean"]["mean"] == pytest.approx(
        ((1 - 1 / n) * trace) ** 0.5, rel=0.005)
    assert table["centre_norm"]["sd"] == pytest.approx(0, abs=1e-9)


def test_results_are_json_and_repeat() -> None:
    x = normals(0, 10, 30)
    assert geometry_table(x, seed=1) == geometry_table(x, seed=1) != geometry_table(x, seed=2)
    assert tuple(json.loads(json.dumps(identities(x)))) == ROWS


def test_bad_input_is_named() -> None:
    with pytest.raises(UnseenError, match="draws"):
        geometry_table(normals(0, 10, 3), draws=1)
    with pytest.raises(UnseenError, match="at least 4"):
        geometry_table(normals(0, 3, 3))
