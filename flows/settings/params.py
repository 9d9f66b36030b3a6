"""The parameters of the pipeline, checked once, with an error that names the wrong key."""

from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

from flows.settings.download_section import Download
from flows.settings.related_sections import Applications, Finetune, Steer, Trajectory
from flows.settings.sections import (
    Analyze,
    Compare,
    Compute,
    Counts,
    Denoise,
    Domain,
    Evaluate,
    Fit,
    Images,
    Invert,
    Model,
    Name,
    Pipeline,
    Pretrain,
    Sample,
    Sampler,
    Schedule,
    Section,
    Select,
    Solver,
)
from unseen_core.errors import UnseenError, did_you_mean, shown

__all__ = ["Domain", "Model", "Params", "Sampler", "load_params", "read_params"]

T = TypeVar("T")
_LIKE = 0.5  # how alike a key and the one that was meant are at least


class Params(Section):
    """The whole of params.yaml."""

    seed: int
    pipeline: Pipeline
    levels: Counts
    compute: Compute
    downloads: dict[Name, Download]
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
    select: Select
    analyze: Analyze
    trajectory: Trajectory
    applications: Applications
    steer: Steer
    compare: Compare
    schedule: Schedule
    finetune: dict[Name, Finetune]
    pretrain: Pretrain

    def download(self, name: str) -> Download:
        """Return a download's section, or raise UnseenError listing the known ones."""
        return _pick(self.downloads, name, "downloads")

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
            self.model(name)
        for section in self.models.values():  # all of them are fetched
            self.domain(section.seen)
        for name in self.pipeline.domains:
            self.domain(name)
        return self


def load_params(path: Path | None = None) -> Params:
    """Read and check params.yaml in the working directory, with the parser that DVC uses.

    Raises:
        UnseenError: One line with the key that is missing, misspelt or out of range.
    """
    params, lines = read_params(path or Path("params.yaml"))
    if params is None:
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise UnseenError(lines[0] + more)
    return params.check()


def read_params(path: Path) -> tuple[Params | None, list[str]]:
    """Return what a file says, or None and a line for each mistake in it.

    What one section says of another is not checked; see ``Params.check``.

    Raises:
        UnseenError: If the file cannot be read as YAML.
    """
    try:
        content = YAML(typ="safe").load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UnseenError(f"{path}: cannot be read as YAML ({reason})") from None
    try:
        return Params.model_validate(content), []
    except ValidationError as error:
        return None, _explain(path, error)


def _pick(section: dict[str, T], name: str, title: str) -> T:
    """Look a name up."""
    if name not in section:
        raise UnseenError(f"params.yaml: {title}.{name} is not defined; {title} has "
                          f"{', '.join(section) or 'none'}{did_you_mean(name, section, _LIKE)}")
    return section[name]


def _explain(path: Path, error: ValidationError) -> list[str]:
    """Return a line for each mistake; unknown keys first, as a typo also misses a key."""
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    lines = []
    for problem in problems:
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        if problem["type"] == "extra_forbidden":
            missing = [str(e["loc"][-1]) for e in problems if e["type"] == "missing"
                       and e["loc"][:-1] == problem["loc"][:-1]]
            near = did_you_mean(str(problem["loc"][-1]),
                                missing or _keys_beside(problem["loc"]), _LIKE)
            lines.append(f"{path}: {where} is not a parameter{near}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: {where} is missing; add it")
        else:
            said = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: {where}: {said}, not {shown(problem['input'])}")
    return lines


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that may stand where an unknown one stands."""
    model: object = Params
    for part in loc[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel):
            model = model.model_fields[str(part)].annotation
        else:  # a mapping of names to sections
            model = get_args(model)[-1]
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []
