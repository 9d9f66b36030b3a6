"""Stage ``fetch``: checkpoints and images, checked, in one form each."""

import shutil
from dataclasses import replace

import pandas as pd
import torch

from flows.loading.source_law import write_source
from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.errors import UnseenError
from unseen_core.images import with_channels
from unseen_core.sources import SourceConfig, SourceImages, content_hash, load, split
from unseen_core.store import read_pictures, write_json, write_pictures

__all__ = ["fetch", "source_of"]


@stage("fetch")
def fetch(run: Run, *, model: str | None = None, domain: str | None = None) -> dict[str, object]:
    """Fetch one checkpoint or one domain.

    Raises:
        UnseenError: If neither or both are named, or what is named is unusable.
    """
    params = load_params()
    if (model is None) == (domain is None):
        raise UnseenError("fetch takes --model or --domain, one of the two")
    if model is not None:
        return run.map(lambda name: _fetch_model(params, name), [model], name=str)[0]
    return run.map(lambda name: _fetch_domain(params, name, run), [str(domain)], name=str)[0]


def _fetch_model(params: Params, model: str) -> dict[str, object]:
    """Check a checkpoint's hash and shape; store it, and images and law of what it has seen."""
    # diffusers takes seconds to import, and only this half of the stage needs it.
    from flows.loading.checkpoints import open_model
    from flows.loading.frozen import record_weights
    from unseen_core.checkpoints.loading import save_checkpoint

    section = params.model(model)
    checkpoint, found = open_model(model, section, size=params.images.size)
    channels, height, width = checkpoint.shape
    if channels not in (1, 3):
        raise UnseenError(f"models.{model} works on images of {channels} channels; give a network "
                          "of 3, or of 1 for grey")
    if (height, width) != (params.images.size, params.images.size):
        raise UnseenError(f"models.{model} works on {channels} x {height} x {width} images; set "
                          f"images.size to {height}")
    for level in params.levels:
        checkpoint.schedule.check_level(level, "levels:")
    seen = PATHS.domain(section.seen) / "fit.parquet"
    if not seen.is_file():
        raise UnseenError(f"{seen}: no such file; run `python -m flows fetch --domain "
                          f"{section.seen}` first")
    out = PATHS.model(model)
    shutil.rmtree(out, ignore_errors=True)
    save_checkpoint(checkpoint, out)
    record_weights(out)
    images, frame = read_pictures(seen)
    if images.shape[1] == channels:
        shutil.copyfile(seen, out / "seen.parquet")
    else:
        write_pictures(out / "seen.parquet", with_channels(images, channels), frame)
    torch.set_num_threads(params.compute.threads)
    return {"model": model, "sha256": found,
            "law of": write_source(PATHS.law(model), seen.parent, channels)}


def source_of(params: Params, domain: str) -> SourceConfig:
    """Return where the images of a domain come from."""
    section = params.domain(domain)
    return SourceConfig(
        kind=section.source, domain=domain, path=section.path, crop=params.images.crop,
        skip_bad=params.images.skip_bad, max_pixels=params.images.max_pixels,
        size=params.images.size, seed=params.seed, limit=section.limit, column=section.column,
        label=section.label, split=section.split, hub=section.hub,
    )


def _fetch_domain(params: Params, domain: str, run: Run) -> dict[str, object]:
    """Load a source, split it, and write the three sides."""
    section = params.domain(domain)
    source = load(source_of(params, domain))
    if section.licence:
        source = replace(source, licence=section.licence)
    for name, reason in source.skipped:
        run.log.warning("domains.%s: skipped %s: %s", domain, name, reason)
    sides = split(source, fit=section.fit, held_out=section.held_out, seed=params.seed,
                  pool=section.pool)
    out = PATHS.domain(domain)
    shutil.rmtree(out, ignore_errors=True)
    counts: dict[str, object] = {}
    hashes = {"all": content_hash(source.images)}
    for name in ("fit", "held_out", "rest"):
        rows = getattr(sides, name)
        counts[name] = len(rows)
        if len(rows):
            images = source.images[rows]
            hashes[name] = content_hash(images)
            write_pictures(out / f"{name}.parquet", images, _frame(source, rows))
    write_json(out / "report.json", {
        "domain": domain, "source": section.source, "origin": source.origin,
        "licence": source.licence, "counts": counts, "content": hashes,
        "skipped": [{"file": name, "reason": reason} for name, reason in source.skipped],
    })
    return {"domain": domain, "skipped": len(source.skipped), **counts}


def _frame(source: SourceImages, rows: torch.Tensor) -> pd.DataFrame:
    """Return ids and labels of some rows; label -1 where the source has none."""
    picked = rows.tolist()
    labels = [-1] * len(picked) if source.labels is None else source.labels[rows].tolist()
    return pd.DataFrame({"id": [source.ids[i] for i in picked], "label": labels})
