"""The parameters of the pipeline, checked once, with an error that names the wrong key."""

import difflib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

from unseen_core.errors import UnseenError

__all__ = ["Domain", "Model", "Params", "Sampler", "load_params"]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["float32", "bf16"]
T = TypeVar("T")


class _Section(BaseModel):
    """A part of params.yaml: read-only, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Pipeline(_Section):
    """The cells that are computed: every model with every domain."""

    models: list[Name] = Field(min_length=1)
    domains: list[Name] = Field(min_length=1)


class Compute(_Section):
    """Where the network runs."""

    device: str
    threads: Count


class Model(_Section):
    """A frozen checkpoint: its folder, the hash of its weights, the domain it has seen."""

    path: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    seen: Name


class Domain(_Section):
    """A set of images: its source, how many are fitted, how many only ``evaluate`` may read."""

    source: str
    path: str
    fit: Annotated[int, Field(ge=5)]
    held_out: Annotated[int, Field(ge=5)]
    limit: Count | None = None
    licence: str | None = None


class Images(_Section):
    """How files become images."""

    size: Annotated[int, Field(ge=8, le=1024)]
    crop: bool
    skip_bad: bool
    max_pixels: Annotated[int, Field(ge=64)]


class Solver(_Section):
    """The grid and the rule, the same in both directions."""

    method: Literal["dpm2m", "ab2", "ddim"]
    spacing: Literal["karras", "quadratic", "uniform"]
    steps: Annotated[int, Field(ge=2)]


class Invert(_Section):
    """How images are carried to their latents and kept."""

    precision: Precision
    batch: Count
    part_size: Count
    store: Literal["float16", "float32"]


class Fit(_Section):
    """Which priors are fitted, and how tight the geometric envelope is."""

    kinds: list[str] = Field(min_length=1)
    coverage: Annotated[float, Field(gt=0, lt=1)]
    neighbours: Count


class Sample(_Section):
    """Start states per cell."""

    count: Annotated[int, Field(ge=2)]


class Sampler(BaseModel):
    """A start-state sampler; its further settings are checked by ``build_sampler``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    sampler: str
    space: Literal["latents", "pixels"] = "latents"
    levels: list[Count] | None = None

    def settings(self) -> dict[str, object]:
        """Return what the sampler itself is built from."""
        return {"sampler": self.sampler, **(self.model_extra or {})}


class Denoise(_Section):
    """How start states become images."""

    precision: Precision
    batch: Count


class Extractor(_Section):
    """The files of a feature extractor; none for those that need none."""

    weights: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Evaluate(_Section):
    """The judges and the bootstrap."""

    extractors: dict[Name, Extractor] = Field(min_length=1)
    draws: Annotated[int, Field(ge=100)]


class Compare(_Section):
    """What a cell must reach to be called the best."""

    in_target: Annotated[float, Field(ge=0, le=1)]
    novelty: Annotated[float, Field(ge=0)]


class Schedule(_Section):
    """When the scheduled pipeline runs."""

    cron: str


class PretrainDenoiser(_Section):
    """See ``unseen_core.training.denoiser.DenoiserConfig``."""

    steps: Count
    batch: Count
    learning_rate: Annotated[float, Field(gt=0)]
    warmup: Count
    ema: Annotated[float, Field(gt=0, lt=1)]
    mean_weight: Annotated[float, Field(ge=0)]
    channels: list[Count] = Field(min_length=2)
    seed: int


class PretrainExtractor(_Section):
    """See ``unseen_core.training.extractor.ExtractorConfig``."""

    steps: Count
    batch: Count
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    widths: list[Count] = Field(min_length=1)
    seed: int


class Pretrain(_Section):
    """Training of what is shipped."""

    denoiser: PretrainDenoiser
    extractor: PretrainExtractor


class Params(_Section):
    """The whole of params.yaml."""

    seed: int
    pipeline: Pipeline
    levels: list[Count] = Field(min_length=1)
    compute: Compute
    models: dict[Name, Model]
    domains: dict[Name, Domain]
    images: Images
    solver: Solver
    invert: Invert
    fit: Fit
    sample: Sample
    samplers: dict[Name, Sampler] = Field(min_length=1)
    denoise: Denoise
    evaluate: Evaluate
    compare: Compare
    schedule: Schedule
    pretrain: Pretrain

    def model(self, name: str) -> Model:
        """Return a model's section, or raise UnseenError listing the known ones."""
        return _pick(self.models, name, "models")

    def domain(self, name: str) -> Domain:
        """Return a domain's section, or raise UnseenError listing the known ones."""
        return _pick(self.domains, name, "domains")

    def check(self) -> "Params":
        """Check what one section says of another.

        Raises:
            UnseenError: If a name in ``pipeline`` or ``seen`` is not defined.
        """
        for name in self.pipeline.models:
            self.domain(self.model(name).seen)
        for name in self.pipeline.domains:
            self.domain(name)
        if len(set(self.levels)) != len(self.levels):
            raise UnseenError("params.yaml: levels: a level is listed twice")
        return self


def load_params(path: Path | None = None) -> Params:
    """Read and check params.yaml in the working directory, with the parser that DVC uses.

    Raises:
        UnseenError: One line with the key that is missing, misspelt or out of range.
    """
    path = path or Path("params.yaml")
    try:
        content = YAML(typ="safe").load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UnseenError(f"{path}: cannot be read as YAML ({reason})") from None
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise UnseenError(_explain(path, error)) from None
    return params.check()


def _pick(section: dict[str, T], name: str, title: str) -> T:
    """Look a name up."""
    if name not in section:
        raise UnseenError(f"params.yaml: {title}.{name} is not defined; {title} has "
                          f"{', '.join(section)}{_near(name, list(section))}")
    return section[name]


def _explain(path: Path, error: ValidationError) -> str:
    """Return one line for the first mistake; unknown keys first, as a typo also misses a key."""
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    problem = problems[0]
    where = ".".join(str(part) for part in problem["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        missing = [str(e["loc"][-1]) for e in problems if e["type"] == "missing"
                   and e["loc"][:-1] == problem["loc"][:-1]]
        known = missing or _keys_beside(problem["loc"])
        return f"{path}: {where} is not a parameter{_near(str(problem['loc'][-1]), known)}{more}"
    if problem["type"] == "missing":
        return f"{path}: {where} is missing; add it{more}"
    return f"{path}: {where}: {problem['msg']}, not {problem['input']!r}{more}"


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that may stand where an unknown one stands."""
    model: object = Params
    for part in loc[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel):
            found = model.model_fields[str(part)].annotation
            inner = [a for a in getattr(found, "__args__", ()) if isinstance(a, type)]
            model = inner[-1] if inner else found
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _near(name: str, known: list[str]) -> str:
    """Suggest the nearest known name."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
