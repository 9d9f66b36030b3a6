"""Stage ``fit``: per level, Gaussian priors and the geometric envelope of a domain's latents."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from flows.params import load_params
from flows.paths import PATHS
from flows.run import Run
from flows.stage import stage
from unseen_core.errors import UnseenError
from unseen_core.gaussian import Gaussian
from unseen_core.geometry import STATISTICS, Envelope, Judge
from unseen_core.images import to_float
from unseen_core.rng import Streams
from unseen_core.store import (
    TensorStore,
    read_json,
    read_pictures,
    read_tensors,
    write_json,
    write_with,
)

__all__ = ["fit", "load_priors", "references_at"]


@stage("fit")
def fit(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Fit every kind of prior and the envelope at every stored level, and at level 0.

    Level 0 is pixel space: the same priors on the images themselves are the model-free baselines.

    Raises:
        UnseenError: If the latents are missing or too few, or a kind is unknown.
    """
    params = load_params()
    torch.set_num_threads(params.compute.threads)
    out = PATHS.priors(model, domain)
    shutil.rmtree(out, ignore_errors=True)
    levels = [0, *TensorStore(PATHS.latents(model, domain)).levels]

    def fit_level(level: int) -> None:
        references, ids = references_at(model, domain, level)
        flat = references.flatten(1)
        tensors, report = {}, {}
        for kind in params.fit.kinds:
            if kind in ("low-rank", "dct"):
                raise UnseenError(f"fit.kinds: {kind} needs a rank; use shrunk or spiked")
            prior = Gaussian.fit(flat, kind=kind)
            # float32 on disk: half the size, and far below the error of a fit to so few.
            tensors |= {f"{kind}/{name}": t.float() for name, t in prior.state().items()}
            report[kind] = {"trace": prior.trace, "rank": prior.factor.shape[1]}
        judge = Judge.of(references, neighbours=params.fit.neighbours)
        streams = Streams(params.seed, f"{domain}/envelope/L{level:04d}", ids)
        order = streams.choose(len(ids), len(ids))
        envelope = Envelope.calibrate(judge, order, coverage=params.fit.coverage)
        write_with(out / f"L{level:04d}.safetensors", lambda path: save_file(tensors, path))
        write_json(out / f"L{level:04d}.json", {
            "level": level, "images": len(ids), "priors": report, "envelope": envelope.state(),
            "geometry": _geometry(judge, order),
        })

    run.map(fit_level, levels, name=lambda level: f"{model}/{domain}/L{level:04d}")
    return {"levels": levels, "kinds": params.fit.kinds}


def references_at(model: str, domain: str, level: int) -> tuple[torch.Tensor, list[str]]:
    """Return the fit images carried to ``level``, float32 (N, c, h, w), and their ids."""
    if level == 0:
        images, frame = read_pictures(PATHS.domain(domain) / "fit.parquet")
        return to_float(images), frame["id"].tolist()
    store = TensorStore(PATHS.latents(model, domain))
    return store.all(level), list(store.ids)


def load_priors(folder: Path, level: int) -> tuple[dict[str, Gaussian], Envelope]:
    """Return the priors by kind, and the envelope, that ``fit`` wrote for a level.

    Raises:
        UnseenError: If the level was not fitted, or its files are damaged.
    """
    file = folder / f"L{level:04d}.safetensors"
    tensors = read_tensors(file)
    kinds = dict.fromkeys(name.partition("/")[0] for name in tensors)
    priors = {kind: Gaussian.from_state({name.partition("/")[2]: t for name, t in tensors.items()
                                         if name.startswith(f"{kind}/")}) for kind in kinds}
    report = read_json(file.with_suffix(".json"))
    return priors, Envelope.from_state(report["envelope"])


def _geometry(judge: Judge, order: torch.Tensor) -> dict[str, object]:
    """Return mean and standard deviation of each statistic over the references."""
    own = torch.arange(len(order))[:, None]
    values = judge.statistics(judge.references, order, own)
    return {name: {"mean": values[:, i].mean().item(), "sd": values[:, i].std().item()}
            for i, name in enumerate(STATISTICS)}
