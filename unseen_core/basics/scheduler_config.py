"""A network's noise schedule, read from the ``scheduler_config.json`` that diffusers writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from unseen_core.basics.schedule import Prediction, Schedule
from unseen_core.errors import UnseenError, did_you_mean

__all__ = ["RESCALE", "load_schedule", "read_schedule"]

# Own key, for what the schedulers of diffusers cannot say.
RESCALE = "unseen_rescale_timesteps"
_READ = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
         "prediction_type", "predict_epsilon", "rescale_betas_zero_snr", RESCALE)
# Of the samplers in diffusers: they say how to draw, and nothing of what the network has learnt.
_UNUSED = frozenset("""
    algorithm_type clip_sample clip_sample_range corrector_order disable_corrector
    dynamic_thresholding_ratio eta euler_at_final final_sigmas_type flow_shift interpolation_type
    lambda_min_clipped lower_order_final original_inference_steps predict_x0 predictor_order
    sample_max_value set_alpha_to_one shift_terminal sigma_max sigma_min skip_prk_steps solver_order
    solver_p solver_type steps_offset tau_func tensor_format thresholding time_shift_type
    timestep_scaling timestep_spacing timestep_values use_beta_sigmas use_dynamic_shifting
    use_exponential_sigmas use_karras_sigmas use_lu_lambdas variance_type
""".split())
# Those that do say something of it, and the value with which they say nothing.
_NEUTRAL = {"use_flow_sigmas": False, "timestep_type": "discrete"}


def read_schedule(config: Mapping[str, object]) -> Schedule:
    """Return the schedule that the content of a ``scheduler_config.json`` describes.

    Only the schedule is read, and the project's own key ``unseen_rescale_timesteps``; how the
    file would sample, clip or offset is ignored. ``predict_epsilon`` is what the first
    releases of diffusers had for ``prediction_type``. Where betas are rescaled to leave no
    signal at the last level (Lin et al. 2024, arXiv 2305.08891, algorithm 1), that level is
    left out: no image can be told from its state there.

    Raises:
        UnseenError: For an unknown prediction type or schedule, or a key that is not known.
    """
    _check_keys(config)
    prediction = _prediction(config)
    if "_class_name" in config and not {"beta_schedule", "trained_betas"} & {*config}:
        raise UnseenError(f"scheduler_config.json: a {config['_class_name']} has no betas; "
                          "give a network that was trained with DDPM's kind of noise")
    try:
        table = _table(config)
        if config.get("rescale_betas_zero_snr"):
            table = _without_last_signal(table)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UnseenError("scheduler_config.json: num_train_timesteps or betas are not usable "
                          "numbers; fetch the file again") from error
    return replace(table, prediction=prediction,
                   rescale_timesteps=config.get(RESCALE) is True)


def load_schedule(folder: Path) -> Schedule:
    """Read the noise schedule of a ``DDPMPipeline`` folder, without its network.

    Raises:
        UnseenError: If ``scheduler/scheduler_config.json`` is missing or not understood.
    """
    file = folder / "scheduler/scheduler_config.json"
    try:
        config = json.loads(file.read_text())
        if not isinstance(config, dict):
            raise ValueError("not an object")
        return read_schedule(config)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnseenError(f"{file} cannot be read; give a diffusers DDPMPipeline folder") from error


def _table(config: Mapping[str, object]) -> Schedule:
    """Build alpha_bar as the scheduler of diffusers does."""
    steps = int(str(config.get("num_train_timesteps", 1000)))
    start = float(str(config.get("beta_start", 1e-4)))
    end = float(str(config.get("beta_end", 0.02)))
    name = config.get("beta_schedule", "linear")
    trained = config.get("trained_betas")
    if isinstance(trained, Sequence):
        return Schedule.from_betas(torch.tensor([float(b) for b in trained], dtype=torch.float64))
    if name == "linear":
        return Schedule.linear(steps, start, end)
    if name == "scaled_linear":
        root = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64)
        return Schedule.from_betas(root.square())
    if name == "squaredcos_cap_v2":
        # Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17, betas capped at 0.999.
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        bar = ((t + 0.008) / 1.008 * torch.pi / 2).cos().square()
        return Schedule.from_betas((1 - bar[1:] / bar[:-1]).clamp(max=0.999))
    raise UnseenError(f"scheduler_config.json: beta_schedule {name!r} is not known; use "
                      "linear, scaled_linear, squaredcos_cap_v2 or trained_betas")


def _without_last_signal(schedule: Schedule) -> Schedule:
    """Return the schedule shifted and scaled so that no signal is left at T, without T."""
    root = schedule.alpha_bar[1:].sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return Schedule(torch.cat([schedule.alpha_bar[:1], root[:-1].square()]))


def _check_keys(config: Mapping[str, object]) -> None:
    """Raise UnseenError for a key that may change what the network means, by its name."""
    for key, value in config.items():
        if key in _READ or key in _UNUSED or key.startswith("_") or value is None:
            continue
        if key not in _NEUTRAL:
            hint = did_you_mean(key, [*_READ, *_UNUSED]) or (
                "; remove it if it says nothing of what the network has learnt")
            raise UnseenError(f"scheduler_config.json: {key} is not known{hint}")
        if value != _NEUTRAL[key]:
            raise UnseenError(f"scheduler_config.json: {key}: {value!r} is another kind of "
                              "network; give one that was trained with DDPM's kind of noise")


def _prediction(config: Mapping[str, object]) -> Prediction:
    """Return what the network predicts, under its key of today or of long ago."""
    old, given = config.get("predict_epsilon"), config.get("prediction_type")
    if old is not None:
        means = {True: "epsilon", False: "sample"}.get(old if isinstance(old, bool) else None)
        if means is None or given not in (None, means):
            raise UnseenError(f"scheduler_config.json: predict_epsilon {old!r} and prediction_type "
                              f"{given!r} do not say one thing; keep the one that is right")
        given = means
    given = "epsilon" if given is None else given
    if given not in get_args(Prediction):
        raise UnseenError(f"scheduler_config.json: prediction_type {given!r} is not supported; "
                          f"use a network for {' or '.join(get_args(Prediction))}")
    return given
