"""What a single checkpoint file does not record, and what is published about some of them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from unseen_core.basics.scheduler_config import RESCALE
from unseen_core.errors import UnseenError

__all__ = ["PRESETS", "Architecture", "NoiseSchedule"]

NoiseSchedule = Literal["linear", "cosine"]
_SENSIBLE = {
    "image_size": "the side of the images it was trained on, as 256",
    "num_heads": "heads of every attention, 4 in improved-diffusion unless said otherwise; or "
                 "num_head_channels, channels of a head, 64 in most of guided-diffusion",
    "use_new_attention_order": "false but for a few of guided-diffusion",
    "noise_schedule": "linear or cosine",
    "diffusion_steps": "1000, or 4000 in much of improved-diffusion",
    "rescale_timesteps": "true or false; the default of improved-diffusion is true, of "
                         "guided-diffusion false",
}


@dataclass(frozen=True)
class Architecture:
    """What a state dict does not say of its network; None is "not said".

    The names are the flags of improved-diffusion and guided-diffusion. ``timestep_respacing`` is
    not among them: a respaced process is the full one on fewer timesteps, which is what
    ``Schedule.grid`` chooses anyhow.

    Attributes:
        image_size: Side of the images.
        num_heads: Heads of every attention, or
        num_head_channels: channels of every head; at most one of the two.
        use_new_attention_order: Queries, keys and values are cut before the heads, not after.
        noise_schedule: Linear betas (DDPM, arXiv 2006.11239), or the cosine of iDDPM
            (arXiv 2102.09672, eq. 17).
        diffusion_steps: T, the number of timesteps.
        rescale_timesteps: The network receives t * 1000 / T.
        beta_start, beta_end: Of linear betas; by default 0.1 / T and 20 / T, which at T = 1000
            are DDPM's 1e-4 and 0.02.
    """

    image_size: int | None = None
    num_heads: int | None = None
    num_head_channels: int | None = None
    use_new_attention_order: bool | None = None
    noise_schedule: NoiseSchedule | None = None
    diffusion_steps: int | None = None
    rescale_timesteps: bool | None = None
    beta_start: float | None = None
    beta_end: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that no network has."""
        for key in ("image_size", "num_heads", "num_head_channels", "diffusion_steps"):
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < 1):
                raise UnseenError(f"architecture.{key} {value!r} is not a positive number")
        if self.num_heads is not None and self.num_head_channels is not None:
            raise UnseenError("architecture has num_heads and num_head_channels; keep the one "
                              "that the network was trained with")
        if self.noise_schedule not in (None, *get_args(NoiseSchedule)):
            raise UnseenError(f"architecture.noise_schedule {self.noise_schedule!r} is not known; "
                              f"use {' or '.join(get_args(NoiseSchedule))}")
        start, end = self.betas if self.diffusion_steps else (0.1, 0.2)
        if not 0 < start <= end < 1:
            raise UnseenError(f"architecture: betas from {start} to {end} are not a schedule; give "
                              "0 < beta_start <= beta_end < 1 (0.0001 and 0.02 in DDPM)")

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> "Architecture":
        """Build one from keys and values, over those of the preset named by ``preset``.

        Raises:
            UnseenError: For an unknown key or preset, or a value out of range.
        """
        given = {key: value for key, value in settings.items() if value is not None}
        preset = given.pop("preset", None)
        known = [field.name for field in fields(cls)]
        if preset is not None and preset not in PRESETS:
            raise UnseenError(f"architecture.preset {preset!r} is not known; use one of "
                              f"{', '.join(PRESETS)}")
        for key in given:
            if key not in known:
                raise UnseenError(f"architecture.{key} is not a key; use preset, "
                                  f"{', '.join(known)}")
        base = PRESETS[str(preset)] if preset is not None else cls()
        # The two ways to say how attentions are cut replace each other.
        other = {"num_heads": "num_head_channels", "num_head_channels": "num_heads"}
        cleared = {other[key]: None for key in given if key in other and other[key] not in given}
        return replace(base, **{**cleared, **given})  # type: ignore[arg-type]

    @property
    def betas(self) -> tuple[float, float]:
        """First and last beta of the linear schedule."""
        steps = self.diffusion_steps or 1000
        start = 0.1 / steps if self.beta_start is None else self.beta_start
        return start, 20 / steps if self.beta_end is None else self.beta_end

    def require(self, key: str) -> None:
        """Raise UnseenError with sensible values unless a key is given."""
        if getattr(self, key) is None:
            raise UnseenError(f"the file does not record {key}; set architecture.{key} "
                              f"({_SENSIBLE[key]}) or architecture.preset ({', '.join(PRESETS)})")

    def scheduler(self, *, learned_variance: bool) -> dict[str, object]:
        """Return the ``scheduler_config.json`` of the noise schedule.

        Raises:
            UnseenError: If the schedule is not given.
        """
        self.require("noise_schedule")
        self.require("diffusion_steps")
        if self.diffusion_steps != 1000:
            self.require("rescale_timesteps")
        config: dict[str, object] = {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": self.diffusion_steps,
            "beta_schedule": "squaredcos_cap_v2",
            "prediction_type": "epsilon",
            "variance_type": "learned_range" if learned_variance else "fixed_small",
        }
        if self.noise_schedule == "linear":
            start, end = self.betas
            config |= {"beta_schedule": "linear", "beta_start": start, "beta_end": end}
        if self.rescale_timesteps and self.diffusion_steps != 1000:
            config[RESCALE] = True
        return config


_DDPM = Architecture(image_size=256, noise_schedule="linear", diffusion_steps=1000)
_P2 = Architecture(
    image_size=256, num_head_channels=64, use_new_attention_order=False,
    noise_schedule="linear", diffusion_steps=1000, rescale_timesteps=False)
_IDDPM = Architecture(
    num_heads=4, use_new_attention_order=False, noise_schedule="cosine", diffusion_steps=4000,
    rescale_timesteps=True)

PRESETS: dict[str, Architecture] = {
    # ermongroup/ddim: celeba_hq.ckpt, church_outdoor.ckpt, bedroom.ckpt
    "ddpm": _DDPM,
    # jychoi118/P2-weighting and networks trained with its code: afhqdog_p2.pt, ffhq_p2.pt
    "afhqdog-p2": _P2,
    "ffhq-p2": _P2,
    # openai/improved-diffusion, README: lsun_uncond_*.pt, cifar10_uncond_*.pt, imagenet64_uncond_*
    "iddpm-lsun": replace(_IDDPM, image_size=256, num_heads=1, noise_schedule="linear",
                          diffusion_steps=1000, rescale_timesteps=False),
    "iddpm-cifar10": replace(_IDDPM, image_size=32),
    "iddpm-imagenet64": replace(_IDDPM, image_size=64),
    # openai/guided-diffusion, README: lsun_*.pt and 256x256_diffusion*.pt, 64x64_diffusion.pt
    "guided-256": _P2,
    "guided-imagenet64": replace(_P2, image_size=64, use_new_attention_order=True,
                                 noise_schedule="cosine"),
}
"""What the authors publish of their checkpoints, by the names that params.yaml may use."""
