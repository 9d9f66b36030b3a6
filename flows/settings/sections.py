"""The sections of params.yaml: types and ranges, nothing of what one says of another."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from unseen_core.judging import EXTRACTORS

__all__ = ["Analyze", "Architecture", "Compare", "Compute", "Count", "Counts", "Denoise", "Domain",
           "Evaluate", "Extractor", "Fit", "Images", "Invert", "Model", "Name", "Names", "Pipeline",
           "Pretrain", "Sample", "Sampler", "Schedule", "Section", "Select", "Solver"]

T = TypeVar("T")
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Count = Annotated[int, Field(ge=1, le=10**7)]
Batch = Count | Literal["auto"]
Precision = Literal["float32", "bf16"]


def _known_extractor(name: str) -> str:
    """Refuse a name that no extractor has."""
    if name not in EXTRACTORS:
        raise ValueError(f"no such extractor; use one of {', '.join(EXTRACTORS)}")
    return name


def _once(values: list[T]) -> list[T]:
    """Refuse a list that names something twice."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{value} is listed twice")
    return values


ExtractorName = Annotated[Name, AfterValidator(_known_extractor)]
Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_once)]
Counts = Annotated[list[Count], Field(min_length=1), AfterValidator(_once)]
Draws = Annotated[int, Field(ge=100, le=10**6)]


class Section(BaseModel):
    """A part of params.yaml: read-only, no unknown keys, no text where a number is meant."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Pipeline(Section):
    """The cells that are computed: every model with every domain."""

    models: Names
    domains: Names


class Compute(Section):
    """Where the network runs."""

    device: str
    threads: Count


class Architecture(Section):
    """See ``unseen_core.checkpoints.architecture``: what a file does not record; or a preset."""

    preset: str | None = None
    image_size: Count | None = None
    num_heads: Count | None = None
    num_head_channels: Count | None = None
    use_new_attention_order: bool | None = None
    noise_schedule: Literal["linear", "cosine"] | None = None
    diffusion_steps: Count | None = None
    rescale_timesteps: bool | None = None
    beta_start: Annotated[float, Field(gt=0, lt=1)] | None = None
    beta_end: Annotated[float, Field(gt=0, lt=1)] | None = None


class Model(Section):
    """A frozen checkpoint: its folder or file, the hash of its weights, what it has seen."""

    path: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    seen: Name
    label: Annotated[int, Field(ge=0)] | None = None
    architecture: Architecture = Architecture()


class Domain(Section):
    """A set of images: its source, how many are fitted, how many only ``evaluate`` may read.

    ``pool``: both are taken from the first so many, and all others are neither.
    """

    source: str
    path: str
    fit: Annotated[int, Field(ge=5)]
    held_out: Annotated[int, Field(ge=5)]
    limit: Count | None = None
    pool: Count | None = None
    licence: str | None = None
    column: str | None = None
    label: str | None = None
    split: str | None = None
    hub: str | None = None
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    percentile: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    asinh: bool = False
    pages: Literal["first", "all"] = "first"


class Images(Section):
    """How files become images."""

    size: Annotated[int, Field(ge=8, le=1024)]
    crop: bool
    skip_bad: bool
    max_pixels: Annotated[int, Field(ge=64)]
    near_copies: Annotated[float, Field(ge=0, lt=1)]


class Solver(Section):
    """The grid and the rule, the same in both directions."""

    method: Literal["dpm3m", "dpm2m", "ab2", "ddim"]
    spacing: Literal["karras", "quadratic", "uniform"]
    steps: Annotated[int, Field(ge=2, le=10_000)]


class Invert(Section):
    """How images are carried to their latents and kept."""

    precision: Precision
    batch: Batch
    part_size: Count
    store: Literal["float16", "float32"]


class Fit(Section):
    """Which priors are fitted, and how tight the geometric envelope is."""

    kinds: Annotated[list[str], Field(min_length=1), AfterValidator(_once)]
    coverage: Annotated[float, Field(gt=0, lt=1)]
    neighbours: Count


class Sample(Section):
    """Start states per cell, and how many are made and kept at a time."""

    count: Annotated[int, Field(ge=2, le=10**7)]
    part_size: Count


class Sampler(BaseModel):
    """A start-state sampler; its further settings are checked by ``build_sampler``.

    ``network``: NAME/STEPS of the section ``finetune``, which is then started in place of the
    frozen network, at levels of its own.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    sampler: str
    space: Literal["latents", "pixels"] = "latents"
    levels: Counts | None = None
    network: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9_-]*/[1-9][0-9]*$")

    def settings(self) -> dict[str, object]:
        """Return what the sampler itself is built from."""
        return {"sampler": self.sampler, **(self.model_extra or {})}


class Denoise(Section):
    """How start states become images."""

    precision: Precision
    batch: Batch


class Extractor(Section):
    """The files of a feature extractor; none for those that need none."""

    weights: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Evaluate(Section):
    """The judges and the bootstrap."""

    extractors: dict[ExtractorName, Extractor] = Field(min_length=1)
    draws: Draws


class Select(Section):
    """What a cell must reach to be chosen, and the bootstrap behind the confidence."""

    novelty: Annotated[float, Field(ge=0)]
    diversity: Annotated[float, Field(ge=0)]
    draws: Draws


class Analyze(Section):
    """How much network time and memory the analyses may take."""

    latents: Annotated[int, Field(ge=4)]
    steps: Counts
    images: Annotated[int, Field(ge=2)]
    etas: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=2)
    paths: Count


class Compare(Section):
    """What a cell must reach to be called the best."""

    in_target: Annotated[float, Field(ge=0, le=1)]
    novelty: Annotated[float, Field(ge=0)]


class Schedule(Section):
    """When the scheduled pipeline runs."""

    cron: str


class Pretrain(Section):
    """See ``unseen_core.training.denoiser.DenoiserConfig``."""

    steps: Count
    batch: Count
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Count
    ema: Annotated[float, Field(gt=0, lt=1)]
    channels: list[Count] = Field(min_length=2)
    start: str | None
    seed: int
