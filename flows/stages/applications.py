"""Stage ``applications``: what anonymising, augmenting and enhancing are worth with a model."""

from dataclasses import dataclass

from torch import Tensor

from flows.loading.frozen import load_frozen
from flows.loading.judge import first_extractor
from flows.report.applications_data import Made, labelled_pool
from flows.report.applications_tables import write_tables
from flows.running.cores import share_cores
from flows.running.registry import stage
from flows.running.resume import scratch
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.applications import (
    boomerang,
    draw_labels,
    enlarge,
    grid_through,
    level_of,
    shrink,
)
from unseen_core.basics.device import pick_device
from unseen_core.basics.images import to_float, to_uint8, with_channels
from unseen_core.basics.rng import Streams
from unseen_core.diffusion.batch import naming_memory
from unseen_core.errors import UnseenError
from unseen_core.store import read_pictures, read_tensors, save_tensors

__all__ = ["applications"]


@dataclass(frozen=True)
class _Part:
    """One set of outputs: what is made at once, and survives a kill."""

    use: str
    domain: str
    fraction: float
    factor: int = 1
    passes: int = 1
    seed: int = 0

    @property
    def file(self) -> str:
        """Its name in the scratch folder and in logs."""
        return (f"{self.use}-{self.domain}/p{self.fraction:g}-f{self.factor}-n{self.passes}"
                f"-s{self.seed}.safetensors")


@stage("applications")
def applications(run: Run, *, model: str) -> dict[str, object]:
    """Write data/applications/MODEL: applications.json, a CSV for each application, pictures.

    Originals are fit images; held-out images judge. The labelled originals of ``augment`` are
    drawn anew for every seed among the images that are not held out. A domain that params.yaml
    does not define is left out, with a warning.

    Raises:
        UnseenError: If an input is missing, or a domain has too few images or labels.
    """
    params = load_params()
    device = pick_device(params.compute.device)
    workers = share_cores(params, device)
    asked = params.applications
    opened = load_frozen(model, device=device, precision=params.denoise.precision,
                         batch=params.denoise.batch)
    network, weights, batch = opened.network, opened.weights, opened.batch
    known = _known(run, params)
    parts = [part for part in _parts(params) if part.domain in known]
    levels = {part.fraction: level_of(part.fraction, network.schedule) for part in parts}
    grid = grid_through(network.schedule, list(levels.values()), steps=params.solver.steps,
                        spacing=params.solver.spacing)
    files = [PATHS.domain(domain) / f"{side}.parquet" for domain in known
             for side in ("fit", "held_out", "rest")]
    settings = {"applications": asked.model_dump(), "grid": list(grid), "seed": params.seed,
                "denoise": {**params.denoise.model_dump(), "batch": batch},
                "method": params.solver.method, "evaluate": params.evaluate.model_dump()}
    work, _ = scratch("applications",
                      [*PATHS.network(model), PATHS.model(model) / "seen.parquet", PATHS.law(model),
                       *(file for file in files if file.is_file())], settings, device)

    def make(part: _Part) -> None:
        if work.has(part.file):
            return
        starts, ids = _starts(params, part)
        if starts.shape[1] != opened.channels:
            starts = to_float(with_channels(to_uint8(starts), opened.channels))
        streams = Streams(params.seed, f"{part.domain}/{part.use}", ids)
        with naming_memory("denoise.batch", batch):
            images = boomerang(network, opened.codec, starts.to(device), levels[part.fraction],
                               grid, eta=asked.eta, method=params.solver.method, streams=streams,
                               batch=batch, passes=part.passes)
        # Beside the domain's own images in every table, so with their channels.
        outputs = with_channels(to_uint8(images.cpu()), 3).contiguous()
        work.add(part.file, lambda path: save_tensors(path, {"images": outputs}))

    with work:
        run.map(make, parts, name=lambda part: f"{model}/{part.file}", workers=workers)
        made = [Made(part.use, part.domain, part.fraction, levels[part.fraction], part.factor,
                     part.passes, part.seed, read_tensors(work.path(part.file))["images"])
                for part in parts]
        conditions = {"model": model, "weights": weights, "eta": asked.eta, "grid": list(grid),
                      "steps": params.solver.steps, "seed": params.seed,
                      "top": network.schedule.top}
        names, verdict = write_tables(run, params, conditions, network.schedule, made, work,
                                      first_extractor(params, device), workers)
        work.publish(PATHS.applications(model), names, conditions)
    return verdict


def _parts(params: Params) -> list[_Part]:
    """Return every set of outputs that the tables need, the longest first."""
    asked = params.applications
    parts = [_Part("anonymise", domain, fraction) for domain in asked.anonymise.domains
             for fraction in asked.anonymise.fractions]
    parts += [_Part("augment", asked.augment.labelled, fraction, seed=seed)
              for fraction in asked.augment.fractions for seed in range(asked.augment.seeds)]
    parts += [_Part("enhance", domain, fraction, factor, passes)
              for domain in asked.enhance.domains for factor in asked.enhance.factors
              for fraction in asked.enhance.fractions for passes in asked.enhance.passes]
    if len({part.file for part in parts}) < len(parts):
        raise UnseenError("params.yaml: applications: a domain, fraction or factor is listed twice")
    return sorted(parts, key=lambda part: -part.fraction * part.passes)


def _known(run: Run, params: Params) -> list[str]:
    """Return the domains that are read, each once; those that params.yaml lacks are left out."""
    asked, known = params.applications, []
    for name in sorted({*asked.anonymise.domains, asked.augment.labelled, *asked.enhance.domains}):
        try:
            params.domain(name)
        except UnseenError as error:
            run.log.warning("applications: left out: %s", error)
        else:
            known.append(name)
    return known


def _starts(params: Params, part: _Part) -> tuple[Tensor, list[str]]:
    """Return the images that a part begins with, float (n, 3, h, w), and their names."""
    asked = params.applications
    if part.use == "augment":
        images, labels, names = labelled_pool(part.domain)
        rows = draw_labels(labels, asked.augment.labels, seed=params.seed + part.seed)
        copies = asked.augment.copies
        ids = [f"{names[i]}-{part.seed}-{copy}" for i in rows.tolist() for copy in range(copies)]
        return to_float(images[rows].repeat_interleave(copies, 0)), ids
    images, frame = read_pictures(PATHS.domain(part.domain) / "fit.parquet")
    count = (asked.anonymise if part.use == "anonymise" else asked.enhance).images
    whole, ids = to_float(images[:count]), frame["id"].tolist()[:count]
    if part.use == "anonymise":
        return whole, ids
    # A file of bytes is what a user would have.
    small = to_float(to_uint8(shrink(whole, part.factor)))
    return enlarge(small, part.factor), ids
