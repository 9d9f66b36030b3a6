"""Networks of the reference implementations: their outputs and trajectories, exactly."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unseen_core.basics.schedule import Schedule
from unseen_core.checkpoints.architecture import Architecture
from unseen_core.checkpoints.loading import load_checkpoint
from unseen_core.checkpoints.network import HEADS, build_network
from unseen_core.diffusion.denoiser import UNetEps
from unseen_core.diffusion.transport import integrate

pytestmark = pytest.mark.data
NETWORKS = ("ddpm", "ddpm_attn_first", "iddpm", "guided", "guided_new_order")


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    """The folder of reference networks; without it the test is skipped."""
    if not (shared / "golden").is_dir():
        pytest.skip(f"folder {shared / 'golden'} is absent")
    return shared / "golden"


@cache
def network(golden: Path, name: str) -> UNetEps:
    """A network, with what its config.json says and its file does not."""
    config = json.loads((golden / name / "config.json").read_text())
    if "data" in config:
        settings = {"preset": "ddpm", "image_size": config["data"]["image_size"]}
    else:
        kept = ("image_size", "noise_schedule", "diffusion_steps", "rescale_timesteps",
                "use_new_attention_order")
        settings = {"use_new_attention_order": False} | {k: config[k] for k in kept if k in config}
        # improved-diffusion has no num_head_channels, guided-diffusion has it before num_heads
        key = "num_head_channels" if "num_head_channels" in config else "num_heads"
        settings[key] = config[key]
    loaded = load_checkpoint(golden / name / "checkpoint.pt",
                             architecture=Architecture.from_settings(settings))
    return UNetEps(loaded.network, loaded.schedule)


def arrays(file: Path) -> dict[str, Tensor]:
    """The arrays of an .npz."""
    with np.load(file, allow_pickle=False) as found:
        return {key: torch.from_numpy(found[key]) for key in found}


@pytest.mark.parametrize("name", NETWORKS)
def test_noise_and_bottleneck_are_the_reference_s(golden: Path, name: str) -> None:
    model, wanted = network(golden, name), arrays(golden / name / "golden.npz")
    for row, timestep in enumerate(wanted["t"].tolist()):
        x = wanted["x"][row : row + 1]
        noise = model(x, timestep + 1)
        torch.testing.assert_close(noise, wanted["eps"][row : row + 1], rtol=0, atol=1e-5)
        middle = model.bottleneck(x, timestep + 1)
        scale = wanted["mid_h"].abs().max().item()
        torch.testing.assert_close(middle / scale, wanted["mid_h"][row : row + 1] / scale,
                                   rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["iddpm", "guided", "guided_new_order"])
@torch.no_grad()
def test_the_learned_variance_is_the_second_half(golden: Path, name: str) -> None:
    model, wanted = network(golden, name), arrays(golden / name / "golden.npz")
    out = model._network(wanted["x"], wanted["t"], return_dict=False)[0]
    torch.testing.assert_close(out, wanted["out"], rtol=0, atol=1e-5)


def test_a_fixed_number_of_heads_is_the_same_network(golden: Path) -> None:
    model, wanted = network(golden, "iddpm"), arrays(golden / "iddpm" / "golden.npz")
    config = {**model._network.config, "attention_head_dim": None, HEADS: 4}
    fixed = UNetEps(build_network(config, model._network.state_dict()), model.schedule)
    torch.testing.assert_close(fixed(wanted["x"], 251), model(wanted["x"], 251))
    one = UNetEps(build_network({**config, HEADS: 1}, model._network.state_dict()), model.schedule)
    assert (one(wanted["x"], 251) - model(wanted["x"], 251)).abs().max() > 1e-3


def levels(timesteps: Tensor) -> list[int]:
    """Timestep t is level t + 1; -1, which the references take for clean, is level 0."""
    return [timestep + 1 for timestep in timesteps.tolist()]


def states(model: UNetEps, start: Tensor, grid: list[int]) -> Tensor:
    """Every state of a DDIM trajectory, the first one included."""
    kept = [start]
    integrate(model, start, grid, method="ddim", observe=lambda level, x: kept.append(x))
    return torch.stack(kept)


def check(found: Tensor, wanted: Tensor) -> None:
    """Compare relatively: states of random networks grow into the hundreds."""
    scale = wanted.abs().max()
    torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", ["A", "B"])
def test_denoising_is_that_of_the_ddim_repository(golden: Path, grid: str) -> None:
    wanted = arrays(golden / "ddim_reverse/golden_ddpm_denoise.npz")
    bar = wanted["alphas_cumprod_float64"]
    torch.testing.assert_close(Schedule.linear().alpha_bar[1:], bar, rtol=1e-12, atol=0)
    # seq_next ends in -1, where alpha_bar is 1: the same clean end as level 0.
    path = [*levels(wanted[f"{grid}_seq"])[::-1], 0]
    check(states(network(golden, "ddpm"), wanted["x_T"], path), wanted[f"{grid}_xs"])


def test_inversion_is_that_of_boundary_diffusion(golden: Path) -> None:
    wanted = arrays(golden / "ddim_reverse/golden_ddpm_invert.npz")
    model = network(golden, "ddpm")
    # It takes an image for a state at timestep 0, level 1 here; our own inversions start at
    # level 0, one step below. The way back ends at alpha_bar 1 in both.
    up = [*levels(wanted["inv_t"]), wanted["inv_t_next"][-1].item() + 1]
    assert up[0] == 1
    check(states(model, wanted["x0"], up), wanted["inv_xs"])
    check(states(model, wanted["inv_xs"][-1], [*up[::-1], 0]), wanted["gen_xs"])


@pytest.mark.parametrize("respacing", ["20", "ddim20"])
def test_a_respaced_process_is_the_full_one_on_fewer_levels(golden: Path, respacing: str) -> None:
    wanted = arrays(golden / "ddim_reverse/golden_iddpm_respaced.npz")
    model = network(golden, "iddpm")
    path = levels(wanted[f"{respacing}_timestep_map"])
    bar = model.schedule.alpha_bar[path]
    torch.testing.assert_close(bar, wanted[f"{respacing}_alphas_cumprod"], rtol=1e-12, atol=0)
    # As above the image counts as timestep 0. The reference's 20th step up goes on to
    # alpha_bar 0, which is no level of a schedule: the last state of ours is reverse_xs[19].
    reverse = wanted[f"{respacing}_reverse_xs"]
    check(states(model, wanted["x0"], path), reverse[:20])
    down = [*path[::-1], 0]
    for start, name in ((reverse[19], "forward_from19_xs"), (reverse[20], "forward_xs")):
        check(states(model, start, down), wanted[f"{respacing}_{name}"])
