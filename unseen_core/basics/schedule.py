"""The noise schedule of a network, and the grids of levels along which states are carried."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from unseen_core.errors import UnseenError

__all__ = ["RESCALE", "Prediction", "Schedule", "Spacing", "load_schedule"]

Spacing = Literal["karras", "quadratic", "uniform"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
# Own key of scheduler_config.json, for what the schedulers of diffusers cannot say.
RESCALE = "unseen_rescale_timesteps"
# 7 in the reference. On the embedded network, third order, 12 images that no benchmark shows
# (DDIM on every level: latent 0.0116, round trip 0.0025): of 20 calls straight to level 500 rho = 5
# gave 0.0120 and 0.0032, 5.5 0.0066 and 0.0036, 7 0.0117 and 0.0043. Rounding to whole levels has
# its part in it: a grid that leaves the clean end by 1, 3, 5, 10 is better than by 1, 3, 6, 11.
_RHO = 5.5
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


@dataclass(frozen=True, eq=False)
class Schedule:
    """Signal and noise at every level of a variance-preserving diffusion.

    A state at level k is ``a x_0 + s noise`` with a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar)
    (Ho et al. 2020, arXiv 2006.11239, eq. 4). Level 0 is the clean image, so that no solver
    needs a special last step; level k >= 1 is network timestep k - 1.

    Attributes:
        alpha_bar: float64 (T + 1,), decreasing from alpha_bar[0] = 1.
        prediction: What the network was trained to predict: the noise, the velocity
            v = a noise - s x_0 (Salimans & Ho 2022, arXiv 2202.00512, appendix D), or the image
            x_0 ("sample").
        rescale_timesteps: The network receives t * 1000 / T instead of t (``rescale_timesteps`` of
            improved-diffusion, Nichol & Dhariwal 2021, arXiv 2102.09672).
    """

    alpha_bar: Tensor
    prediction: Prediction = "epsilon"
    rescale_timesteps: bool = False

    def __post_init__(self) -> None:
        """Refuse a table that is not a schedule."""
        table = self.alpha_bar
        falls = table.ndim == 1 and len(table) > 1 and bool((table.diff() < 0).all())
        if not falls or table[0] != 1 or table[-1] <= 0:
            raise UnseenError("the scheduler's alpha_bar must fall from 1 and stay above 0; "
                              "check beta_start, beta_end and beta_schedule")

    @classmethod
    def linear(
        cls, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> "Schedule":
        """Return the schedule of DDPM (arXiv 2006.11239, section 4)."""
        return cls._from_betas(torch.linspace(beta_start, beta_end, steps, dtype=torch.float64))

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> "Schedule":
        """Build the table from a diffusers ``scheduler_config.json``.

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
            table = cls._table(config)
            if config.get("rescale_betas_zero_snr"):
                table = table._without_last_signal()
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise UnseenError("scheduler_config.json: num_train_timesteps or betas are not usable "
                              "numbers; fetch the file again") from error
        return replace(table, prediction=prediction,
                       rescale_timesteps=config.get(RESCALE) is True)

    @classmethod
    def _table(cls, config: Mapping[str, object]) -> "Schedule":
        """Build alpha_bar as the scheduler of diffusers does."""
        steps = int(str(config.get("num_train_timesteps", 1000)))
        start = float(str(config.get("beta_start", 1e-4)))
        end = float(str(config.get("beta_end", 0.02)))
        name = config.get("beta_schedule", "linear")
        trained = config.get("trained_betas")
        if isinstance(trained, Sequence):
            return cls._from_betas(torch.tensor([float(b) for b in trained], dtype=torch.float64))
        if name == "linear":
            return cls.linear(steps, start, end)
        if name == "scaled_linear":
            root = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64)
            return cls._from_betas(root.square())
        if name == "squaredcos_cap_v2":
            # Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 17, betas capped at 0.999.
            t = torch.arange(steps + 1, dtype=torch.float64) / steps
            bar = ((t + 0.008) / 1.008 * torch.pi / 2).cos().square()
            return cls._from_betas((1 - bar[1:] / bar[:-1]).clamp(max=0.999))
        raise UnseenError(f"scheduler_config.json: beta_schedule {name!r} is not known; use "
                          "linear, scaled_linear, squaredcos_cap_v2 or trained_betas")

    @classmethod
    def _from_betas(cls, betas: Tensor) -> "Schedule":
        """Accumulate alpha_bar, with the clean level in front."""
        clean = torch.ones(1, dtype=torch.float64)
        return cls(torch.cat([clean, (1 - betas).cumprod(0)]))

    def _without_last_signal(self) -> "Schedule":
        """Return the schedule shifted and scaled so that no signal is left at T, without T."""
        root = self.alpha_bar[1:].sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return Schedule(torch.cat([self.alpha_bar[:1], root[:-1].square()]))

    @property
    def top(self) -> int:
        """The noisiest level, T."""
        return len(self.alpha_bar) - 1

    def a(self, level: int | Sequence[int]) -> Tensor:
        """Return the signal scale sqrt(alpha_bar), float64, shape of ``level``."""
        return self._at(level).sqrt()

    def s(self, level: int | Sequence[int]) -> Tensor:
        """Return the noise scale sqrt(1 - alpha_bar), float64, shape of ``level``."""
        return (1 - self._at(level)).sqrt()

    def sigma(self, level: int | Sequence[int]) -> Tensor:
        """Return noise over signal, s / a, float64, shape of ``level``."""
        bar = self._at(level)
        return ((1 - bar) / bar).sqrt()

    def noise(self, output: Tensor, x: Tensor, level: int) -> Tensor:
        """Return the noise in states that the output of a network means, by ``prediction``.

        It is a v + s x of a velocity and (x - a x_0) / s of an image, with the a and s of the
        level that the network is told of: a clean image is shown as level 1.

        Args:
            output: What the network predicts for ``x``, of the same shape.
            x: States at ``level``.
        """
        told = max(level, 1)
        a, s = self.a(told).item(), self.s(told).item()
        if self.prediction == "v_prediction":
            return a * output + s * x
        return (x - a * output) / s if self.prediction == "sample" else output

    def target(self, image: Tensor, noise: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """Return what a network is trained to predict of ``a image + s noise``; see `noise`."""
        if self.prediction == "v_prediction":
            return a * noise - s * image
        return image if self.prediction == "sample" else noise

    def timestep(self, level: int) -> float:
        """Return the network's timestep for a level; a clean image is shown as level 1.

        A whole number, unless timesteps are rescaled.
        """
        index = max(level, 1) - 1
        return index * 1000 / self.top if self.rescale_timesteps else index

    def check_level(self, level: int, name: str = "level") -> None:
        """Raise UnseenError unless 1 <= level <= T."""
        if not 1 <= level <= self.top:
            raise UnseenError(f"{name} {level} is out of range; use 1 to {self.top}")

    def grid(
        self,
        steps: int,
        stop: int,
        *,
        spacing: Spacing = "karras",
        through: Sequence[int] = (),
    ) -> tuple[int, ...]:
        """Return levels 0 = k_0 < ... < k_m = stop along which a solver walks.

        ``"karras"`` spaces sigma as (Karras et al. 2022, arXiv 2206.00364, eq. 5, rho = 5.5) from
        level 1, with the clean level in front; ``"quadratic"`` and ``"uniform"`` space the
        level itself. Rounded levels that coincide are merged, and the spacing is refined until
        ``steps`` intervals remain where the levels allow it.

        Args:
            steps: Network calls from clean to ``stop``, >= 2; fewer where levels run out, and
                more only if ``through`` cannot be met otherwise.
            stop: The last level, 1..T.
            through: Levels below ``stop`` that must be nodes, so that one pass serves several
                mixing levels. The spacing is stretched a little between them: inserting or
                moving single nodes leaves unequal neighbours, over which a multistep rule
                amplifies the network's error (round trip to level 900 six times worse).

        Raises:
            UnseenError: If a level is out of range or ``steps`` is too small.
        """
        self.check_level(stop, "the last level of a grid,")
        needed = len({*through} - {stop}) + 2
        if steps < needed:
            raise UnseenError(f"steps {steps} is too few; use at least {needed}")
        for level in through:
            self.check_level(level, "mixing level")
            if level > stop:
                raise UnseenError(f"mixing level {level} is above the last level {stop}")
        nodes: tuple[int, ...] = ()
        for count in range(steps, 4 * steps):
            finer = self._nodes(count, [*sorted({*through} - {stop}), stop], spacing)
            if nodes and len(finer) - 1 > steps:
                break
            nodes = finer
            if len(nodes) - 1 >= min(steps, stop):
                break
        return nodes

    def _nodes(self, count: int, anchors: list[int], spacing: Spacing) -> tuple[int, ...]:
        """Return the distinct rounded levels of ``count`` intervals, evenly spread between anchors.

        Each stretch between two anchors gets whole intervals in proportion to its length.
        """
        if spacing == "karras":
            table = self.sigma(range(anchors[-1] + 1)) ** (1 / _RHO)
            first, count = 1, count - 1  # clean to level 1 is an interval of its own
        elif spacing in ("quadratic", "uniform"):
            table = torch.arange(anchors[-1] + 1, dtype=torch.float64)
            table, first = (table.sqrt() if spacing == "quadratic" else table), 0
        else:
            raise UnseenError(f"spacing {spacing!r} is not known; use karras, quadratic or uniform")
        edges = [first, *(level for level in anchors if level > first)]
        span = (table[edges[-1]] - table[first]).item()
        nodes, used = {0, *edges}, 0
        for low, high in pairwise(edges):
            share = round(count * (table[high] - table[first]).item() / span)
            # One interval at least for this stretch and for each of those to come.
            end = max(used + 1, min(share, count - sum(level > high for level in edges)))
            wanted = torch.linspace(table[low].item(), table[high].item(), end - used + 1,
                                    dtype=torch.float64)
            nodes |= set((table - wanted[:, None]).abs().argmin(1).tolist())
            used = end
        return tuple(sorted(nodes))

    def _at(self, level: int | Sequence[int]) -> Tensor:
        """Look alpha_bar up."""
        return self.alpha_bar[level if isinstance(level, int) else list(level)]


def _check_keys(config: Mapping[str, object]) -> None:
    """Raise UnseenError for a key that may change what the network means, by its name."""
    for key, value in config.items():
        if key in _READ or key in _UNUSED or key.startswith("_") or value is None:
            continue
        if key not in _NEUTRAL:
            near = get_close_matches(key, [*_READ, *_UNUSED], 1)
            raise UnseenError(f"scheduler_config.json: {key} is not known" + (
                f"; did you mean {near[0]}?" if near else
                "; remove it if it says nothing of what the network has learnt"))
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
        return Schedule.from_config(config)
    except (OSError, ValueError, RuntimeError) as error:
        raise UnseenError(f"{file} cannot be read; give a diffusers DDPMPipeline folder") from error

