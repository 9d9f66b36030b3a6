"""Stage ``fit``: per level, Gaussian priors and the geometric envelope of a domain's latents."""

import shutil

import torch
from torch import Tensor

from flows.loading.fitted import references_at
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import load_params
from flows.settings.paths import PATHS
from unseen_core.basics.rng import Streams
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import fit_law
from unseen_core.laws.geometry import STATISTICS, Envelope, StateJudge
from unseen_core.store import (
    TensorStore,
    save_tensors,
    write_json,
    write_with,
)

__all__ = ["fit"]


@stage("fit")
def fit(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Fit every kind of prior and the envelope at every stored level, and at level 0.

    Level 0 is pixel space: the same priors on the images themselves are the model-free baselines.
    A level's file holds the inner products of its N latents, ``gram`` float64 (N, N), and per kind
    the weights of a law in them (``unseen_core.laws.blends``), nothing of the latents' own size.

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
        tensors, report = {"gram": references.gram}, {}
        for kind in params.fit.kinds:
            if kind in ("low-rank", "dct"):
                raise UnseenError(f"fit.kinds: {kind} needs a rank; use shrunk or spiked")
            prior = fit_law(references, kind=kind)
            # Half the size, and far below the error of a fit to so few.
            tensors |= {f"{kind}/{name}": t.float() for name, t in prior.state().items()}
            report[kind] = {"trace": prior.trace, "rank": prior.factor.shape[1]}
        judge = StateJudge.of(references, neighbours=params.fit.neighbours)
        streams = Streams(params.seed, f"{domain}/envelope/L{level:04d}", ids)
        order = streams.choose(len(ids), len(ids))
        envelope = Envelope.calibrate(judge, order, coverage=params.fit.coverage)
        write_with(out / f"L{level:04d}.safetensors", lambda path: save_tensors(path, tensors))
        write_json(out / f"L{level:04d}.json", {
            "level": level, "images": len(ids), "priors": report, "envelope": envelope.state(),
            "geometry": _geometry(judge, order),
        })

    run.map(fit_level, levels, name=lambda level: f"{model}/{domain}/L{level:04d}")
    return {"levels": levels, "kinds": params.fit.kinds}


def _geometry(judge: StateJudge, order: Tensor) -> dict[str, object]:
    """Return mean and standard deviation of each statistic over the references."""
    values = judge.own(order)
    return {name: {"mean": values[:, i].mean().item(), "sd": values[:, i].std().item()}
            for i, name in enumerate(STATISTICS)}
