"""Ghosts planted in handwritten digits are found; real images and other defects are told apart."""

import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import ks_2samp
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from unseen_core.errors import UnseenError
from unseen_core.judging.ghost_probe import (
    GhostProbe,
    fit_ghost_probe,
    ghost_bounds,
    ghost_score,
    superpose,
)
from unseen_core.judging.ghosts import MEASURES, ghost_measures, ghosts, octave_energies


def digits(first: int, n: int) -> Tensor:
    """Handwritten digits, uint8 (n, 3, 32, 32)."""
    # Shuffled, since each writer's come together.
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))[first : first + n]
    x = torch.from_numpy(load_digits().images)[order] / 16 * 255
    x = interpolate(x[:, None], (32, 32), mode="bicubic").clamp(0, 255).round()
    return x.to(torch.uint8).expand(-1, 3, -1, -1)


FIT, HELD_OUT, OTHERS = digits(0, 150), digits(150, 150), digits(400, 150)


@pytest.fixture(scope="module")
def probe() -> GhostProbe:
    """Trained on the fit digits."""
    return fit_ghost_probe(FIT)


def planted(kind: str) -> Tensor:
    """Superpositions of digits that nothing else uses, plain or with contrast restored."""
    x = superpose(OTHERS, FIT.double().mean(0), seed=5)
    return x[:150] if kind == "plain" else x[150:]


def blurred(x: Tensor) -> Tensor:
    """Images out of focus."""
    return torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 2, 2)))


@pytest.mark.parametrize("kind", ["plain", "restored"])
def test_planted_ghosts_score_at_the_ceiling_and_reals_at_the_floor(probe, kind: str) -> None:
    assert probe.auc > 0.8
    ghost, real = (ghost_score(x, HELD_OUT, probe) for x in (planted(kind), OTHERS))
    assert real.ceiling - real.floor > 0.4
    assert abs(real.generated.value - real.floor) < 0.1
    assert abs(ghost.generated.value - ghost.ceiling) < 0.2
    assert ghost.generated.low < ghost.generated.value < ghost.generated.high
    assert ghost.generated.value == pytest.approx(ghost.probabilities.mean().item())
    assert ghost.auc == probe.auc
    assert ghost_bounds(HELD_OUT, probe) == (ghost.floor, ghost.ceiling)
    given = ghost_score(OTHERS, HELD_OUT, probe, bounds=(0.125, 0.75))
    assert (given.floor, given.ceiling) == (0.125, 0.75)
    assert given.generated == real.generated


def test_a_probe_of_nothing_is_blind() -> None:
    # Superpositions of white noise in colour differ from it in contrast alone.
    noise = torch.Generator().manual_seed(0)
    flat = (127 + 10 * torch.randn(100, 3, 32, 32, generator=noise)).round().to(torch.uint8)
    assert 0.35 < fit_ghost_probe(flat).auc < 0.65


def test_superpositions_are_half_of_each_of_two_or_as_long_as_one() -> None:
    # Powers of two tell from a sum what was added.
    images = (torch.tensor([2, 4, 8, 16, 32, 64]) * 2).to(torch.uint8)
    images = images[:, None, None, None].expand(-1, 3, 4, 4)
    mean = torch.zeros(3, 4, 4).double()
    made = superpose(images, mean)
    assert made.shape == (12, 3, 4, 4)
    assert all(int(v).bit_count() == 2 for v in made[:6, 0, 0, 0])
    opposite = torch.stack([torch.full((3, 4, 4), 20), torch.full((3, 4, 4), 180)])
    opposite[:, :, 0] = opposite[:, :, 0].flip(0)
    plain, full = superpose(opposite.to(torch.uint8), mean)[[0, 2]]
    assert (plain == 100).all()
    length = opposite.double().flatten(1).norm(dim=1).mean().item()
    assert full.double().norm().item() == pytest.approx(length, rel=0.01)


def test_real_against_real_is_alike() -> None:
    for name, found in ghosts(OTHERS, HELD_OUT).items():
        assert found.distance.value < 0.157, name  # 5 % point at n = m = 150
        assert found.distance.low < 0.1
        assert found.shift.low < 0 < found.shift.high, name
    for found in ghosts(OTHERS, OTHERS).values():
        assert found.distance.value == found.distance.low == 0
        assert found.shift.value == 0


def test_blur_and_noise_have_their_signs() -> None:
    soft = ghosts(blurred(OTHERS), HELD_OUT)
    assert soft["sharpness"].shift.high < -0.3 and soft["high_frequency"].shift.high < -0.3
    assert soft["sharpness"].distance.low > 0.25
    grain = torch.randint(0, 60, OTHERS.shape, generator=torch.Generator().manual_seed(1))
    rough = ghosts((OTHERS // 2 + grain).to(torch.uint8), HELD_OUT)
    assert rough["sharpness"].shift.low > 0.5 and rough["high_frequency"].shift.low > 0.5


def test_distance_is_scipys_with_and_without_ties() -> None:
    x, y = OTHERS[:70], HELD_OUT
    x = torch.cat([x, x, y[:9]])  # ties within and across
    for found in ghosts(x, y, draws=200).values():
        truth = ks_2samp(found.generated.numpy(), found.real.numpy()).statistic
        assert found.distance.value == pytest.approx(truth, abs=1e-12)
        assert found.distance.low <= truth <= found.distance.high


def test_measures_of_a_known_picture() -> None:
    ramp = torch.arange(32).mul(4).to(torch.uint8).expand(1, 3, 32, 32)
    found = ghost_measures(ramp)
    # Slope 1 over the standard deviation of 0..31, and of 0..3 over that of 0..31.
    assert found["sharpness"].item() == pytest.approx(1 / ((32**2 - 1) / 12) ** 0.5)
    assert found["local_contrast"].item() == pytest.approx((15 / 1023) ** 0.5)
    comb = torch.tensor([0, 255]).repeat(16).to(torch.uint8).expand(1, 3, 32, 32)
    assert found["high_frequency"].item() < 0.1
    assert ghost_measures(comb)["high_frequency"].item() > 0.9
    for value in ghost_measures(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)).values():
        assert value.abs() < 1e-3


def test_measures_do_not_depend_on_contrast_or_batch() -> None:
    bright = ghost_measures(OTHERS - OTHERS % 2)
    dim = ghost_measures(OTHERS // 2)
    alone = ghost_measures((OTHERS - OTHERS % 2)[7:8])
    for name in MEASURES:
        torch.testing.assert_close(bright[name], dim[name])
        torch.testing.assert_close(bright[name][7:8], alone[name], rtol=1e-12, atol=0)


def test_octaves_hold_all_energy() -> None:
    y = torch.rand(3, 9, 12, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(octave_energies(y).sum(1), y.square().sum((1, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda p: ghosts(OTHERS, HELD_OUT, draws=0), "draws 0"),
     (lambda p: ghosts(OTHERS, HELD_OUT, level=1.0), "level 1.0"),
     (lambda p: ghosts(OTHERS[:1], HELD_OUT), "generated: 1 images"),
     (lambda p: ghosts(OTHERS, HELD_OUT.float()), "uint8"),
     (lambda p: ghosts(OTHERS, HELD_OUT, patch=33), "patch 33 .* 2 to 32"),
     (lambda p: fit_ghost_probe(FIT[:9]), "9 fit images; give at least 10"),
     (lambda p: ghost_score(OTHERS, HELD_OUT, p, level=0), "level 0")],
)
def test_bad_input_is_one_line(probe, call, message: str) -> None:
    with pytest.raises(UnseenError, match=message) as error:
        call(probe)
    assert "\n" not in str(error.value)


def test_blocks_of_images_change_nothing(probe, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = superpose(FIT, probe.mean, seed=3)
    measures = ghost_measures(OTHERS)
    monkeypatch.setattr("unseen_core.judging.ghosts._BLOCK", 7 * FIT[0].numel())
    assert torch.equal(superpose(FIT, probe.mean, seed=3), mixed)
    for name, values in ghost_measures(OTHERS).items():
        torch.testing.assert_close(values, measures[name], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fit_ghost_probe(FIT).mean, probe.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(fit_ghost_probe(FIT).probability(OTHERS),
                               probe.probability(OTHERS), rtol=1e-5, atol=1e-6)
