"""Pass rates of natural latents and of planted wrong ones; the scatter behind the bounds."""

import json

import pytest
import torch
from torch import Tensor

from unseen_core.analysis.latents import rejection, spread
from unseen_core.basics.rng import Streams
from unseen_core.laws.geometry import STATISTICS, Envelope, StateJudge, shell_lengths

D, J, N = 600, 100, 400
COVERAGE = 0.9


def latents(seed: int, n: int, wide: float = 1.0) -> Tensor:
    """Draws of one Gaussian, float64 (n, 6, 10, 10), off the origin; ``wide`` scales deviations."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 6, 10, 10, generator=generator, dtype=torch.float64)
    return 0.3 + wide * noise


@pytest.fixture(scope="module")
def judged() -> tuple[StateJudge, Envelope]:
    """A judge of natural references, and its envelope."""
    judge = StateJudge.of(latents(0, J))
    order = Streams(0, "calibrate", [str(i) for i in range(J)]).choose(J, J)
    return judge, Envelope.calibrate(judge, order, coverage=COVERAGE)


def test_held_out_latents_pass_at_the_coverage(judged: tuple[StateJudge, Envelope]) -> None:
    held_out = rejection(*judged, {"natural": latents(1, N)})["natural"]
    assert held_out.count == N
    # The coverage of one calibration scatters like Beta(91, 10), sd .03.
    assert held_out.joint.value == pytest.approx(COVERAGE, abs=0.08)
    assert held_out.joint.low < held_out.joint.value < held_out.joint.high
    assert min(held_out.criteria[name].value for name in STATISTICS) >= held_out.joint.value


def test_a_wrong_radius_fails_on_radius(judged: tuple[StateJudge, Envelope]) -> None:
    found = rejection(*judged, {"large": latents(1, 50, 1.2), "natural": latents(1, N)})
    assert found["large"].criteria["radius"].value == found["large"].joint.value == 0
    assert found["large"].joint.high < 0.1
    assert found["natural"].criteria["radius"].value > 0.9


def test_a_wrong_mean_fails_on_the_origin_angle(judged: tuple[StateJudge, Envelope]) -> None:
    # Centred on the origin and scaled back to the domain's radius.
    wrong = (latents(1, 50) - 0.3) * 1.09**0.5
    found = rejection(*judged, {"wrong": wrong})["wrong"]
    assert found.criteria["origin_angle"].value < 0.1 < 0.9 < found.criteria["radius"].value


def test_parents_do_not_judge_their_child(judged: tuple[StateJudge, Envelope]) -> None:
    copies, own = latents(0, J), torch.arange(J)[:, None]
    found = rejection(*judged, {"copies": copies}, parents={"copies": own})["copies"]
    # Leave-one-out, as in calibration.
    assert found.criteria["pair_distance"].value >= COVERAGE
    assert rejection(*judged, {"copies": copies})["copies"].criteria["pair_distance"].value \
        < found.criteria["pair_distance"].value


def test_rows_do_not_depend_on_their_number_or_the_form_of_the_judge(
    judged: tuple[StateJudge, Envelope]
) -> None:
    judge, envelope = judged
    many = rejection(judge, envelope, {"natural": latents(1, 40)})["natural"]
    alone = [rejection(latents(0, J), envelope, {"natural": latents(1, 40)[:n]})["natural"]
             for n in (39, 40)]
    assert alone[1] == many
    gained = round(40 * many.joint.value) - round(39 * alone[0].joint.value)
    assert gained in (0, 1)
    assert json.loads(json.dumps(many.summary()))["joint"]["low"] > 0


def test_spread_is_that_of_new_latents() -> None:
    found = spread(latents(0, 200))
    assert tuple(json.loads(json.dumps(found))) == STATISTICS
    shell = shell_lengths(latents(0, 200))
    assert found["centre_distance"]["mean"] == pytest.approx(shell.mean().item())
    judge, fresh = StateJudge.of(latents(0, 200)), latents(1, N).flatten(1)
    order = Streams(0, "fresh", [str(i) for i in range(N)]).choose(200, 200)
    for name, column in zip(STATISTICS, judge.statistics(fresh, order).T, strict=True):
        row = found[name]
        assert row["mean"] == pytest.approx(column.mean().item(), abs=0.25 * row["sd"])
        assert row["sd"] == pytest.approx(column.std().item(), rel=0.15)
        assert row["q05"] < row["median"] < row["q95"]
        assert row["q95"] == pytest.approx(column.quantile(0.95).item(), abs=0.5 * row["sd"])
