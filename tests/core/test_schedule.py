"""Levels, their coefficients and the grids through them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import diffusers
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from unseen_core.basics.schedule import Prediction, Schedule, Spacing
from unseen_core.basics.scheduler_config import RESCALE, read_schedule
from unseen_core.errors import UnseenError

SCHEDULERS = (
    "DDIM", "DDPM", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "EulerDiscrete",
    "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "LCM", "LMSDiscrete", "PNDM",
    "SASolver", "TCD", "UniPCMultistep")
SPACINGS: tuple[Spacing, ...] = ("karras", "quadratic", "uniform")


def test_linear_schedule_has_the_published_values(schedule: Schedule) -> None:
    levels = (101, 201, 301, 401, 501, 601, 801, 901, 1000)
    signal = torch.tensor([0.946, 0.810, 0.628, 0.440, 0.279, 0.160, 0.0388, 0.0164, 0.0063])
    sigma = torch.tensor([0.342, 0.724, 1.24, 2.04, 3.44, 6.17, 25.7, 60.8, 157.0])
    assert torch.allclose(schedule.a(levels).float(), signal, rtol=0, atol=6e-4)
    assert torch.allclose(schedule.sigma(levels).float(), sigma, rtol=4e-3)


def test_signal_and_noise_make_one(schedule: Schedule) -> None:
    levels = range(schedule.top + 1)
    a, s = schedule.a(levels), schedule.s(levels)
    assert a.dtype == s.dtype == torch.float64
    assert torch.allclose(a**2 + s**2, torch.ones_like(a), rtol=0, atol=1e-15)
    assert torch.allclose(schedule.sigma(levels), s / a, rtol=1e-12, atol=0)
    assert (schedule.sigma(levels).diff() > 0).all()
    assert schedule.a(7).shape == () and schedule.sigma(7) == schedule.sigma([7])[0]


def test_clean_level_has_no_noise_and_borrows_the_first_timestep(schedule: Schedule) -> None:
    assert schedule.top == 1000
    assert schedule.a(0) == 1 and schedule.s(0) == 0 and schedule.sigma(0) == 0
    assert [schedule.timestep(k) for k in (0, 1, 2, 1000)] == [0, 0, 1, 999]


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
        {"trained_betas": [0.001, 0.01, 0.1], "num_train_timesteps": 3},
    ],
    ids=["linear", "scaled", "cosine", "trained"],
)
def test_configs_are_read_as_diffusers_reads_them(config: dict[str, object]) -> None:
    theirs = DDPMScheduler(**config).alphas_cumprod.double()
    ours = read_schedule(config).alpha_bar
    assert ours[0] == 1 and len(ours) == len(theirs) + 1
    assert torch.allclose(ours[1:], theirs, rtol=3e-4, atol=1e-8)


# diffusers 0.39 hands its tensors to numpy in ways that numpy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_every_scheduler_of_diffusers_for_this_kind_of_noise_is_understood() -> None:
    read = 0
    for name in SCHEDULERS:
        theirs = getattr(diffusers, f"{name}Scheduler")()
        assert torch.allclose(read_schedule(theirs.config).alpha_bar[1:],
                              theirs.alphas_cumprod.double(), rtol=3e-4, atol=1e-8)
        read += len(theirs.config)
    assert read > 200  # their keys, each one known


def test_what_the_first_releases_called_the_prediction_is_understood() -> None:
    assert read_schedule({"predict_epsilon": False}).prediction == "sample"
    assert read_schedule({"predict_epsilon": True}).prediction == "epsilon"
    both = {"predict_epsilon": False, "prediction_type": "sample"}
    assert read_schedule(both).prediction == "sample"


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_a_schedule_without_signal_at_its_end_goes_up_to_the_level_below(kind: str) -> None:
    config = {"beta_schedule": kind, "rescale_betas_zero_snr": True}
    ours, theirs = read_schedule(config), diffusers.DDIMScheduler(**config).alphas_cumprod
    assert theirs[-1] == 0 and ours.top == 999
    torch.testing.assert_close(ours.alpha_bar[1:], theirs[:-1].double(), rtol=3e-4, atol=1e-8)
    assert ours.timestep(999) == 998
    with pytest.raises(UnseenError, match="1000 is out of range; use 1 to 999"):
        ours.check_level(1000)


@pytest.mark.parametrize("prediction", get_args(Prediction))
def test_a_perfect_prediction_means_the_noise_itself(prediction: Prediction) -> None:
    schedule = replace(Schedule.linear(), prediction=prediction)
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    for level in (1, 300, 1000):
        a, s = schedule.a(level), schedule.s(level)
        x = a * image + s * noise
        output = schedule.target(image, noise, a, s)
        torch.testing.assert_close(schedule.noise(output, x, level), noise, rtol=1e-9, atol=1e-9)


def test_rescaled_timesteps_are_thousandths_of_the_way() -> None:
    config = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000}
    plain = read_schedule(config)
    rescaled = read_schedule({**config, RESCALE: True})
    assert [plain.timestep(k) for k in (0, 1, 2, 4000)] == [0, 0, 1, 3999]
    assert [rescaled.timestep(k) for k in (0, 1, 2, 4000)] == [0, 0, 0.25, 999.75]
    assert torch.equal(plain.alpha_bar, rescaled.alpha_bar)


@pytest.mark.parametrize(
    ("config", "named"),
    [({"prediction_type": "flow_prediction"}, "v_prediction"),
     ({"beta_schedule": "sigmoid"}, "sigm"),
     ({"beta_emd": 0.01}, "beta_emd is not known; did you mean beta_end?"),
     ({"snr_shift_scale": 3.0}, "snr_shift_scale is not known"),
     ({"use_flow_sigmas": True}, "use_flow_sigmas"),
     ({"timestep_type": "continuous"}, "timestep_type: 'continuous' is another kind"),
     ({"predict_epsilon": "no"}, "predict_epsilon"),
     ({"predict_epsilon": False, "prediction_type": "epsilon"}, "do not say one thing")],
)
def test_unsupported_configs_are_named(config: dict[str, object], named: str) -> None:
    with pytest.raises(UnseenError, match=named):
        read_schedule(config)


@pytest.mark.parametrize(
    "table", [[1.0], [0.9, 0.5], [1.0, 0.5, 0.6], [1.0, 0.5, 0.0], [[1.0, 0.5]]]
)
def test_tables_that_are_no_schedule_are_refused(table: list[float]) -> None:
    with pytest.raises(UnseenError, match="alpha_bar"):
        Schedule(torch.tensor(table, dtype=torch.float64))


@given(
    steps=st.integers(6, 60),
    stop=st.integers(1, 1000),
    spacing=st.sampled_from(SPACINGS),
    shares=st.lists(st.floats(0, 1), max_size=4),
)
def test_grids_rise_from_clean_to_stop_through_every_level(
    steps: int, stop: int, spacing: Spacing, shares: list[float]
) -> None:
    through = [max(1, round(share * stop)) for share in shares]
    grid = Schedule.linear().grid(steps, stop, spacing=spacing, through=through)
    assert grid[0] == 0 and grid[-1] == stop
    assert all(a < b for a, b in pairwise(grid))
    assert set(through) <= set(grid)
    assert len(grid) - 1 <= min(steps, stop)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("through", [(), (300, 500, 700)])
def test_grids_spend_the_calls_they_were_given(
    schedule: Schedule, spacing: Spacing, through: Sequence[int]
) -> None:
    for steps in (10, 20, 40):
        assert len(schedule.grid(steps, 900, spacing=spacing, through=through)) == steps + 1


def test_karras_grid_spaces_the_fifth_root_of_sigma_evenly(schedule: Schedule) -> None:
    grid = schedule.grid(20, 900)
    roots = schedule.sigma(grid[1:]) ** (1 / 5)
    even = torch.linspace(roots[0].item(), roots[-1].item(), len(roots), dtype=torch.float64)
    # Rounding to whole levels moves the lowest nodes most.
    assert (roots - even).abs().max() < 0.05 * (roots[-1] - roots[0])


def test_uniform_and_quadratic_grids_space_the_level(schedule: Schedule) -> None:
    assert schedule.grid(10, 500, spacing="uniform") == tuple(range(0, 501, 50))
    assert schedule.grid(10, 500, spacing="quadratic") == tuple(5 * i * i for i in range(11))


def test_grid_mistakes_are_named(schedule: Schedule) -> None:
    for stop in (0, 1001, -3):
        with pytest.raises(UnseenError, match="out of range"):
            schedule.grid(10, stop)
    with pytest.raises(UnseenError, match="steps 1"):
        schedule.grid(1, 500)
    with pytest.raises(UnseenError, match="use at least 4"):
        schedule.grid(3, 500, through=(300, 400, 500))
    with pytest.raises(UnseenError, match="mixing level 700"):
        schedule.grid(10, 500, through=(700,))
    with pytest.raises(UnseenError, match="spacing 'log'"):
        schedule.grid(10, 500, spacing="log")  # type: ignore[arg-type]
