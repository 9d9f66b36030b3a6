"""The tables of stage ``applications``: a row for each set of outputs, and what follows."""

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from flows.loading.fitted import channels_of
from flows.loading.source_law import load_source
from flows.report.applications_data import Made, labelled_pool, side
from flows.report.plots.applications import anonymise_sheet, enhance_sheet, plot_applications
from flows.running.run import Run
from flows.settings.params import Params
from flows.settings.paths import PATHS
from unseen_core.applications import (
    Classifier,
    compare_arms,
    draw_labels,
    enlarge,
    expected_move,
    preferred,
    shrink,
    summary,
)
from unseen_core.applications.measures import NOTICE, Row, distance_to, enhanced, hidden, utility
from unseen_core.basics.images import png_bytes, to_float, to_uint8, with_channels
from unseen_core.basics.schedule import Schedule
from unseen_core.judging.features import extract
from unseen_core.judging.probe import Probe, fit_probe, wilson
from unseen_core.store import Scratch, read_pictures, write_bytes, write_csv, write_json
from unseen_core.types import FeatureExtractor

__all__ = ["write_tables"]


def write_tables(
    run: Run,
    params: Params,
    conditions: Mapping[str, object],
    schedule: Schedule,
    made: Sequence[Made],
    work: Scratch,
    extractor: FeatureExtractor,
    workers: int,
) -> tuple[list[str], dict[str, object]]:
    """Measure every set of outputs; add the tables and pictures to the scratch folder.

    Args:
        run: Runs the measurements.
        params: Of the project.
        conditions: What all sets have in common; goes into applications.json.
        schedule: Of the network.
        made: Every set.
        work: Open scratch folder.
        extractor: Its features judge.
        workers: Measurements at once.

    Returns:
        The files' names, and the verdicts.
    """
    model = str(conditions["model"])
    chosen = {use: [one for one in made if one.use == use]
              for use in ("anonymise", "augment", "enhance")}
    seen = extract(extractor, read_pictures(PATHS.model(model) / "seen.parquet")[0])
    # Of images that no output was made from.
    probes = {domain: fit_probe(seen, extract(extractor, side(domain, "held_out")[0]))
              for domain in {one.domain for one in chosen["anonymise"]}}
    jobs = {f"anonymise {one.domain} {one.fraction:g}": partial(
        _anonymised, params, model, schedule, one, extractor, probes[one.domain])
        for one in [*_untouched(params, chosen["anonymise"]), *chosen["anonymise"]]}
    jobs |= {f"augment seed {seed}": partial(
        _augmented, params, seed, [one for one in chosen["augment"] if one.seed == seed])
        for seed in sorted({one.seed for one in chosen["augment"]})}
    jobs |= {f"enhance {one.domain} {one.factor} {one.fraction:g} {one.passes}": partial(
        _enhanced, params, one, extractor) for one in chosen["enhance"]}
    found = dict(zip(jobs, run.map(lambda job: jobs[job](), list(jobs), workers=workers,
                                   name=lambda job: f"{model}/{job}"), strict=True))
    hiding = [found[job] for job in sorted(jobs) if job.startswith("anonymise")]
    runs = [found[job] for job in jobs if job.startswith("augment")]
    pairs = [found[job] for job in sorted(jobs) if job.startswith("enhance")]
    sharper = [row for row, _ in pairs]
    arms = [_arm(params, row) for row in (summary(runs) if runs else [])]
    verdicts = {"enhance": _verdicts(pairs), "augment": _gains(arms), "anonymise": NOTICE}
    seeds = [{"seed": seed, "arm": arm, "accuracy": value}
             for seed, one in enumerate(runs) for arm, value in one.items()]
    tables = {"anonymise": hiding, "augment": arms, "augment_seeds": seeds, "enhance": sharper}
    filled = {name: rows for name, rows in tables.items() if rows}
    for name, rows in filled.items():
        frame = pd.DataFrame(rows)
        work.add(f"{name}.csv", lambda path, x=frame: write_csv(path, x))
    report = {**conditions, **tables, "verdicts": verdicts,
              "settings": params.applications.model_dump(),
              "classifier": vars(Classifier(steps=params.applications.augment.steps))}
    work.add("applications.json", lambda path: write_json(path, report))
    work.add("applications.png", lambda path: plot_applications(tables, str(model), path))
    names = [f"{name}.csv" for name in filled] + ["applications.json", "applications.png"]
    for name, draw in (("anonymise", anonymise_sheet), ("enhance", enhance_sheet)):
        if chosen[name]:
            sheet = draw(params, chosen[name])
            work.add(f"{name}.png", lambda path, x=sheet: write_bytes(path, png_bytes(x)))
            names.append(f"{name}.png")
    return names, {"beats_bicubic": sum(row["beats_bicubic"] for row in verdicts["enhance"]),
                   "arms_that_help": len(verdicts["augment"]["helps"]), "notice": NOTICE}


def _untouched(params: Params, made: Sequence[Made]) -> list[Made]:
    """Return the originals as outputs of fraction 0: the ends of every curve."""
    count = params.applications.anonymise.images
    return [Made("anonymise", domain, 0.0, 0, 1, 0, 0, side(domain, "fit")[0][:count])
            for domain in sorted({one.domain for one in made})]


def _anonymised(params: Params, model: str, schedule: Schedule, made: Made,
                extractor: FeatureExtractor, probe: Probe) -> Row:
    """Return the row of an anonymised set."""
    asked = params.applications
    count = asked.anonymise.images
    images, labels, _ = side(made.domain, "fit")
    held_out, answers, _ = side(made.domain, "held_out")
    sources = images[:count]
    inside = probe.in_target(extract(extractor, made.images))
    share = wilson(int(inside.sum()), len(inside))
    row: Row = {"domain": made.domain, "fraction": made.fraction, "level": made.level,
                "eta": asked.eta, "seed": params.seed}
    row |= hidden(made.images, sources, torch.arange(len(sources)), extractor)
    row |= distance_to(made.images, held_out, extractor, draws=params.evaluate.draws,
                       seed=params.seed)
    row |= {"in_target": share.value, "in_target_low": share.low, "in_target_high": share.high}
    channels = channels_of(model)  # a grey network cannot keep colours: they are not its move
    after, before = (to_float(with_channels(x, channels)) for x in (made.images, sources))
    moved = (after - before).double().square().mean().sqrt().item()
    expected = expected_move(load_source(model), before, schedule, made.level, asked.eta)
    row |= {"moved_rms": moved, "moved_rms_predicted": expected.mean().sqrt().item()}
    known: Row = dict.fromkeys(("utility", "utility_sd", "utility_seeds"))
    if (labels >= 0).all() and (answers >= 0).all():
        config = Classifier(steps=asked.augment.steps)
        known = utility((made.images, labels[:count]), (held_out, answers), config,
                        seeds=range(2))
    return row | known | {"utility_by": "accuracy and kernel" if known["utility"] is not None
                          else "kernel distance to held-out images and share in the domain"}


def _augmented(params: Params, seed: int, made: Sequence[Made]) -> dict[str, float]:
    """Return the accuracy of every arm for one draw of labels, copies and weights."""
    asked = params.applications.augment
    images, labels, _ = labelled_pool(asked.labelled)
    rows = draw_labels(labels, asked.labels, seed=params.seed + seed)
    held_out, answers, _ = side(asked.labelled, "held_out")
    copies = {one.fraction: one.images.unflatten(0, (len(rows), asked.copies))
              for one in sorted(made, key=lambda one: one.fraction)}
    return compare_arms((images[rows], labels[rows]), (held_out, answers), copies,
                        Classifier(steps=asked.steps), seed=seed)


def _arm(params: Params, row: Row) -> Row:
    """Add the conditions to the row of an arm."""
    asked = params.applications.augment
    return {"domain": asked.labelled, "labels_a_class": asked.labels, "copies": asked.copies,
            "steps": asked.steps, "eta": params.applications.eta,
            "held_out": len(side(asked.labelled, "held_out")[0]), **row}


def _gains(arms: Sequence[Row]) -> dict[str, object]:
    """Return the arms whose paired gain over ``none`` is wholly above, or below, zero."""
    return {"helps": [row["arm"] for row in arms if row["gain_low"] > 0],
            "harms": [row["arm"] for row in arms if row["gain_high"] < 0],
            "best": max(arms, key=lambda row: row["accuracy"])["arm"] if arms else None}


def _enhanced(params: Params, made: Made,
              extractor: FeatureExtractor) -> tuple[Row, Mapping[str, Tensor]]:
    """Return the row of an enlarged set, and the perceptual distance of each image."""
    asked = params.applications
    originals = side(made.domain, "fit")[0][: asked.enhance.images]
    small = to_uint8(shrink(to_float(originals), made.factor))
    bicubic = to_uint8(enlarge(to_float(small), made.factor))
    row, each = enhanced(made.images, bicubic, small, originals, side(made.domain, "held_out")[0],
                         extractor, draws=params.evaluate.draws, seed=params.seed)
    return {"domain": made.domain, "factor": made.factor, "fraction": made.fraction,
            "level": made.level, "passes": made.passes, "eta": asked.eta, "seed": params.seed,
            **row}, each


def _verdicts(pairs: Sequence[tuple[Row, Mapping[str, Tensor]]]) -> list[Row]:
    """Return, for each domain and factor, the setting that one half of the images chooses."""
    rows: list[Row] = []
    for domain, factor in sorted({(row["domain"], row["factor"]) for row, _ in pairs}):
        mine = {(row["fraction"], row["passes"]): each for row, each in pairs
                if (row["domain"], row["factor"]) == (domain, factor)}
        bicubic = next(iter(mine.values()))["bicubic"]
        (fraction, passes), gain = preferred({key: each["ours"] for key, each in mine.items()},
                                             bicubic)
        rows.append({"domain": domain, "factor": factor, "fraction": fraction, "passes": passes,
                     "perceptual_gain": gain.value, "perceptual_gain_low": gain.low,
                     "perceptual_gain_high": gain.high, "beats_bicubic": gain.high < 0,
                     "bicubic": bicubic[1::2].mean().item(), "judged": len(bicubic) // 2})
    return rows
