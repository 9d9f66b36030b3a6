"""Stage ``fit``: per level, Gaussian priors and the geometric envelope of a domain's latents."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor

from flows.params import load_params
from flows.paths import PATHS
from flows.run import Run
from flows.stage import stage
from unseen_core.blends import Law, fit_law, law_from_state
from unseen_core.errors import UnseenError
from unseen_core.geometry import STATISTICS, Envelope, Judge
from unseen_core.references import References
from unseen_core.rng import Streams
from unseen_core.store import (
    TensorStore,
    read_json,
    read_pictures,
    read_tensors,
    write_json,
    write_with,
)

__all__ = ["Fitted", "fit", "load_fitted", "references_at"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What ``fit`` made of one level.

    Attributes:
        references: The fit images carried there, with their inner products.
        priors: Laws by kind.
        envelope: Bounds of their geometry.
    """

    references: References
    priors: Mapping[str, Law]
    envelope: Envelope


@stage("fit")
def fit(run: Run, *, model: str, domain: str) -> dict[str, object]:
    """Fit every kind of prior and the envelope at every stored level, and at level 0.

    Level 0 is pixel space: the same priors on the images themselves are the model-free baselines.
    A level's file holds the inner products of its N latents, ``gram`` float64 (N, N), and per kind
    the weights of a law in them (``unseen_core.blends``): nothing there is of the latents' size.

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


def references_at(
    model: str, domain: str, level: int, gram: Tensor | None = None
) -> tuple[References, list[str]]:
    """Return the fit images carried to ``level``, and their ids.

    Args:
        model: A model of params.yaml.
        domain: A domain that was inverted with it.
        level: 0, the images themselves, or a stored level.
        gram: Inner products, float64 (N, N), where they are known.

    Raises:
        UnseenError: If an input is missing or damaged, or ``gram`` belongs to other images.
    """
    if level == 0:
        images, frame = read_pictures(PATHS.domain(domain) / "fit.parquet")
        return References.of(images, gram), frame["id"].tolist()
    store = TensorStore(PATHS.latents(model, domain))
    return References.stored(store, level, gram), list(store.ids)


def load_fitted(model: str, domain: str, level: int) -> Fitted:
    """Return what ``fit`` made of a level.

    Raises:
        UnseenError: If the level was not fitted, or a file is missing or damaged.
    """
    file = PATHS.priors(model, domain) / f"L{level:04d}.safetensors"
    tensors = read_tensors(file)
    envelope = Envelope.from_state(read_json(file.with_suffix(".json"))["envelope"])
    states: dict[str, dict[str, Tensor]] = {}
    gram = tensors.pop("gram", None)
    if gram is None:
        raise UnseenError(f"{file}: holds no inner products; run fit again")
    for name, tensor in tensors.items():
        kind, _, part = name.partition("/")
        states.setdefault(kind, {})[part] = tensor
    references, _ = references_at(model, domain, level, gram)
    priors = {kind: law_from_state(state, references) for kind, state in states.items()}
    return Fitted(references, priors, envelope)


def _geometry(judge: Judge, order: Tensor) -> dict[str, object]:
    """Return mean and standard deviation of each statistic over the references."""
    values = judge.own(order)
    return {name: {"mean": values[:, i].mean().item(), "sd": values[:, i].std().item()}
            for i, name in enumerate(STATISTICS)}
