"""Fitted priors for use outside the pipeline: in a notebook, or in another program."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from flows.loading.fitted import references_at
from flows.mlflow.provenance import store_label
from flows.mlflow.store import connect, store_errors
from unseen_core.errors import UnseenError
from unseen_core.laws.blends import Law, law_from_state
from unseen_core.store import read_tensors

__all__ = ["load_prior"]


def load_prior(source: str | Path, level: int, kind: str) -> Law:
    """Return a prior that ``fit`` wrote, to draw from: ``load_prior(...).sample(streams)``.

    Its file holds weights of the inverted fit images and no image-sized tensor, so the latents
    must be there: the working directory is the repository's root, with ``data/latents`` (for
    level 0 ``data/source/domains``) as they were when it was fitted.

    It is not an MLflow model: that format would pickle a class to give it a ``predict``, and a law
    that is drawn from has none.

    Args:
        source: A folder ``data/priors/MODEL/DOMAIN``, or the id of an MLflow run ``MODEL/DOMAIN``.
        level: A mixing level; 0 is pixel space.
        kind: One of ``fit.kinds``.

    Returns:
        The law of flattened states; ``sample`` gives float64 (n, d).

    Raises:
        UnseenError: If there is no such run, level or kind, or the latents found are not those
            that it was fitted to.
    """
    with ExitStack() as stack:
        if Path(source).is_dir():
            folder = Path(source)
            model, domain = folder.resolve().parts[-2:]
        else:
            place = Path(stack.enter_context(TemporaryDirectory()))
            folder, model, domain = _fetch(str(source), place)
        tensors = read_tensors(folder / f"L{level:04d}.safetensors")
    state = {name.partition("/")[2]: tensor for name, tensor in tensors.items()
             if name.startswith(f"{kind}/")}
    if not state:
        kinds = sorted({name.partition("/")[0] for name in tensors} - {"gram"})
        raise UnseenError(f"{source}: no prior {kind!r} at level {level}; it has "
                          f"{', '.join(kinds)}")
    references, _ = references_at(model, domain, level)
    if references.gram.shape != tensors["gram"].shape or not torch.allclose(
            references.gram, tensors["gram"]):
        raise UnseenError(f"{source}: fitted to other inverted images than those of {model}/"
                          f"{domain} in this folder; check its commit out and `dvc pull`")
    return law_from_state(state, references)


def _fetch(run: str, place: Path) -> tuple[Path, str, str]:
    """Download the priors of a run; return their folder, the model and the domain."""
    root = Path.cwd()
    try:
        with store_errors(root):
            store = connect(root)
            found = store.get(run)
            names = [found.parameters.get(key, "") for key in ("model", "domain")]
            if found.tags.get("unseen.kind") != "series":
                raise UnseenError(f"run {run} of {store_label(root)} holds no priors; name a run "
                                  "MODEL/DOMAIN")
            # A repetition has no files of its own.
            origin = found.tags.get("unseen.computed_in", run)
            return store.download(origin, "priors", place), *names
    except ConnectionError as error:
        raise UnseenError(f"the priors of run {run} cannot be read: {error}") from error
