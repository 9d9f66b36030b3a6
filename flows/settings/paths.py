"""Every path of the project, relative to the repository's root."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PATHS", "Paths"]


@dataclass(frozen=True)
class Paths:
    """Where stages read and write; the working directory is the repository's root.

    ``dvc exp run --temp`` works in a copy; unfinished work then still lies in the main
    repository, which ``DVC_ROOT`` names, so that an experiment resumes what another began.
    """

    root: Path = Path()

    def _data(self, *parts: str) -> Path:
        """Return a path below data/."""
        return self.root.joinpath("data", *parts)

    @property
    def work(self) -> Path:
        """Unfinished work, outside every output."""
        return Path(os.environ.get("DVC_ROOT") or self.root) / ".work"

    def embedded(self, name: str) -> Path:
        """What the repository ships: networks and judges, such as ``shapes32``."""
        return self._data("embedded", name)

    def download(self, name: str) -> Path:
        """What came from the network: a file, or the files of a hub repository."""
        return self._data("downloads", name)

    def trained(self, domain: str) -> Path:
        """A network that ``pretrain`` trained on a domain, as diffusers saves it."""
        return self._data("trained", domain)

    @property
    def plan(self) -> Path:
        """The samplers and cells of a run."""
        return self._data("plan.json")

    def model(self, model: str) -> Path:
        """A checkpoint as diffusers loads it."""
        return self._data("source", "models", model)

    def law(self, model: str) -> Path:
        """The Gaussian law of the images that a model has learnt."""
        return self.model(model) / "law.safetensors"

    def network(self, model: str) -> tuple[Path, Path]:
        """The part of a checkpoint that decides latents and images."""
        return self.model(model) / "unet", self.model(model) / "scheduler"

    def domain(self, domain: str) -> Path:
        """A domain's images: fit.parquet, held_out.parquet, rest.parquet, report.json."""
        return self._data("source", "domains", domain)

    def latents(self, model: str, domain: str | None) -> Path:
        """The store of inverted fit images; without a domain, of those that the model has seen."""
        if domain is None:
            return self._data("seen", model)
        return self._data("latents", model, domain)

    def priors(self, model: str, domain: str) -> Path:
        """Priors and envelopes, a safetensors and a JSON file per level."""
        return self._data("priors", model, domain)

    def starts(self, model: str, domain: str) -> Path:
        """Start states, a folder of safetensors parts per cell, and report.json."""
        return self._data("starts", model, domain)

    def generated(self, model: str, domain: str) -> Path:
        """Images and contact sheets, one of each per cell."""
        return self._data("generated", model, domain)

    def finetuned(self, model: str, domain: str) -> Path:
        """Networks that were trained further on a domain, NAME/STEPS each, and report.json."""
        return self._data("finetuned", model, domain)

    def seconds(self, model: str, domain: str) -> Path:
        """How long stages took on this machine; no output of a stage, and not tracked."""
        return self._data("seconds", model, f"{domain}.json")

    def selection(self, model: str, domain: str, ending: str) -> Path:
        """The cell that fit images choose: json, csv of all candidates, png."""
        return self._data("selection", model, f"{domain}.{ending}")

    def analysis(self, model: str, domain: str) -> Path:
        """Tables, plots and analysis.json of a domain's latents."""
        return self._data("analysis", model, domain)

    def applications(self, model: str) -> Path:
        """What Boomerang's applications are worth: applications.json, CSV, pictures."""
        return self._data("applications", model)

    def trajectory(self, model: str) -> Path:
        """Tables and plots of a model's trajectories."""
        return self._data("trajectory", model)

    def steer(self, model: str) -> Path:
        """Teleporting, control of colours and variations of a network: steer.json and pictures."""
        return self._data("steer", model)

    def metrics(self, model: str, domain: str, ending: str) -> Path:
        """Metrics of all cells of a domain."""
        return self._data("metrics", model, f"{domain}.{ending}")

    @property
    def analyses(self) -> Path:
        """Analyses of all models and domains."""
        return self._data("analysis")

    @property
    def metrics_folder(self) -> Path:
        """Metrics of all models and domains."""
        return self._data("metrics")

    @property
    def report(self) -> Path:
        """The comparison."""
        return self._data("report")

    @property
    def docs(self) -> Path:
        """The written findings: the index, and a folder with its pages and pictures."""
        return self.root / "docs"


PATHS = Paths()
