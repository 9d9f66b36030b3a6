"""Stage ``fetch``: the images of a domain, checked, in one form: fit, held out, and the rest."""

import shutil
from dataclasses import replace

import pandas as pd
import torch

from flows.running.registry import stage
from flows.running.run import Run
from flows.settings.params import Params, load_params
from flows.settings.paths import PATHS
from unseen_core.sources import SourceConfig, SourceImages, content_hash, load, split
from unseen_core.sources.near_copies import grouped
from unseen_core.store import write_json, write_pictures

__all__ = ["fetch", "source_of"]


@stage("fetch")
def fetch(run: Run, *, domain: str) -> dict[str, object]:
    """Load the images of a domain, split them, and write the three sides.

    Raises:
        UnseenError: If its source is unusable.
    """
    params = load_params()
    return run.map(lambda name: _fetch(params, name, run), [domain], name=str)[0]


def source_of(params: Params, domain: str) -> SourceConfig:
    """Return where the images of a domain come from."""
    section = params.domain(domain)
    return SourceConfig(
        kind=section.source, domain=domain, path=section.path, crop=params.images.crop,
        skip_bad=params.images.skip_bad, max_pixels=params.images.max_pixels,
        size=params.images.size, seed=params.seed, limit=section.limit, column=section.column,
        label=section.label, split=section.split, hub=section.hub,
        range=_pair(section.range), percentile=_pair(section.percentile), asinh=section.asinh,
        pages=section.pages,
    )


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    """Return the two numbers of a list, which params.yaml has in place of a tuple."""
    return None if values is None else (values[0], values[1])


def _fetch(params: Params, domain: str, run: Run) -> dict[str, object]:
    """Load a source, split it, and write the three sides."""
    section = params.domain(domain)
    source = load(source_of(params, domain))
    if section.licence:
        source = replace(source, licence=section.licence)
    for line in source.warnings():
        run.log.warning("domains.%s: %s", domain, line)
    source, copies = grouped(source, params.images.near_copies)
    if len(copies):
        one, other = ((source.files or source.ids)[row] for row in copies[0].tolist())
        run.log.warning(
            "domains.%s: %d of %d images are near copies of others, such as %s and %s; they stay "
            "together on one side of the split (images.near_copies)", domain,
            len(copies.unique()), len(source), one, other)
    sides = split(source, fit=section.fit, held_out=section.held_out, seed=params.seed,
                  pool=section.pool)
    out = PATHS.domain(domain)
    shutil.rmtree(out, ignore_errors=True)
    counts: dict[str, object] = {}
    hashes = {"all": content_hash(source.images)}
    for name in ("fit", "held_out", "rest"):
        rows = getattr(sides, name)
        counts[name] = len(rows)
        if len(rows) < getattr(section, name, 0):
            run.log.warning("domains.%s: %s has %d images of the %d asked for, since groups stay "
                            "whole", domain, name, len(rows), getattr(section, name))
        if len(rows):
            images = source.images[rows]
            hashes[name] = content_hash(images)
            write_pictures(out / f"{name}.parquet", images, _frame(source, rows))
    write_json(out / "report.json", {
        "domain": domain, "source": section.source, "origin": source.origin,
        "licence": source.licence, "counts": counts, "content": hashes,
        "near_copies": len(copies.unique()),
        "stretch": {key: value for key in ("range", "percentile", "asinh")
                    if (value := getattr(section, key))},
        **({} if section.pages == "first" else {"pages": section.pages}),
        "skipped": [{"file": name, "reason": reason} for name, reason in source.skipped],
    })
    return {"domain": domain, "skipped": len(source.skipped), **counts}


def _frame(source: SourceImages, rows: torch.Tensor) -> pd.DataFrame:
    """Return ids and labels of some rows; label -1 where the source has none."""
    picked = rows.tolist()
    labels = [-1] * len(picked) if source.labels is None else source.labels[rows].tolist()
    return pd.DataFrame({"id": [source.ids[i] for i in picked], "label": labels})
