"""Copies, near copies and ghosts planted among generated images are what evaluate says they are."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cdist
from torch import Tensor
from workspace import DOMAIN, MODEL, OTHER, SAMPLERS, change, contents, run_stages

from flows.dispatch import run_stage
from flows.settings.params import load_params
from flows.settings.plan import Plan
from unseen_core.judging.ghost_probe import superpose
from unseen_core.judging.ghosts import MEASURES
from unseen_core.judging.probe import wilson
from unseen_core.store import read_frame, read_pictures, write_pictures

COPIES, MIXED, FOREIGN = "L0100-noise", "L0200-noise", "L0100-slerp"
HAUNTED, REAL, HELD_OUT = "L0100-noise", "L0200-noise", "L0100-slerp"


def pictures(domain: str, side: str) -> tuple[Tensor, list[str]]:
    """The images of a domain and their ids."""
    images, frame = read_pictures(Path(f"data/source/domains/{domain}/{side}.parquet"))
    return images, frame["id"].tolist()


def plant(domain: str, key: str, images: Tensor) -> None:
    """Put images in the place of a cell's own."""
    frame = pd.DataFrame({"id": [f"planted-{i}" for i in range(len(images))]})
    write_pictures(Path(f"data/generated/{MODEL}/{domain}/{key}.parquet"), images, frame)


def evaluated(domain: str) -> tuple[dict[str, dict[str, float | None]], dict[str, pd.DataFrame]]:
    """Run the stage; return metrics and per-image values by cell."""
    run_stages(["evaluate"], domain)
    cells = json.loads(Path(f"data/metrics/{MODEL}/{domain}.json").read_text())["cells"]
    frame = read_frame(Path(f"data/metrics/{MODEL}/{domain}.parquet"))
    groups = {f"L{level:04d}-{sampler}": rows.reset_index(drop=True)
              for (level, sampler), rows in frame.groupby(["level", "sampler"])}
    return {f"L{c['level']:04d}-{c['sampler']}": c["metrics"] for c in cells}, groups


@pytest.fixture
def planted(done: Path) -> tuple[Tensor, list[str]]:
    """Cells of fit images, of half as many, and of none at all; the fit images and their ids."""
    fit, ids = pictures(DOMAIN, "fit")
    grain = torch.Generator().manual_seed(0)
    foreign = torch.randint(0, 256, (4, *fit.shape[1:]), generator=grain, dtype=torch.uint8)
    plant(DOMAIN, COPIES, fit[[6, 3, 0, 5]])
    plant(DOMAIN, MIXED, torch.stack([foreign[0], fit[2], foreign[1], fit[7]]))
    plant(DOMAIN, FOREIGN, foreign)
    return fit, ids


def test_planted_copies_are_counted_in_both_spaces(planted: tuple[Tensor, list[str]]) -> None:
    _, ids = planted
    metrics, images = evaluated(DOMAIN)
    held_out = len(pictures(DOMAIN, "held_out")[0])
    flags = ["near_duplicate", "near_duplicate_pixels", "nearer_than_any"]
    for key, copies in ((COPIES, [1, 1, 1, 1]), (MIXED, [0, 1, 0, 1]), (FOREIGN, [0, 0, 0, 0])):
        found, share = metrics[key], wilson(sum(copies), 4)
        assert (found["copies"], found["copies_low"], found["copies_high"]) == (
            share.value, share.low, share.high)
        for name in ("copies_pixels", "nearer_than_any", "nearer_than_any_pixels"):
            assert found[name] == share.value, name
        assert found["nearer_than_any_nominal"] == 1 / (held_out + 1)
        assert found["copies_nominal"] == pytest.approx(
            (1 + (held_out - 1) * 0.01) / (held_out + 1))
        # The least of six lies below their 1 % quantile.
        assert found["copies_held_out"] == pytest.approx(1 / held_out)
        assert (images[key][flags].to_numpy().T == np.array(copies, bool)).all()
    assert images[COPIES]["nearest_fit_id"].tolist() == [ids[i] for i in (6, 3, 0, 5)]
    assert images[COPIES]["nearest_fit_feature"].max() < 1e-4
    assert metrics["L0000-real"]["copies"] == 1


def test_no_share_has_two_names(planted: tuple[Tensor, list[str]]) -> None:
    metrics, _ = evaluated(DOMAIN)
    header = pd.read_csv(Path(f"data/metrics/{MODEL}/{DOMAIN}.csv"), nrows=0).columns.tolist()
    # The copies are the share of near duplicates.
    assert not [name for name in header if name.startswith("near_duplicate")]
    assert sorted(header) == sorted(["level", "sampler", "n", *metrics[COPIES]])


def test_the_sheet_shows_the_nearest_pairs_first(planted: tuple[Tensor, list[str]]) -> None:
    fit, _ = planted
    evaluated(DOMAIN)
    file = Path(f"data/metrics/{MODEL}/{DOMAIN}.png")
    once = contents(file.parent)
    with Image.open(file) as sheet:
        pixels = np.asarray(sheet)
    shown = [c.key for c in Plan.of(load_params()).cells if "reconstruction" not in c.sampler]
    # Sixteen pixels are enlarged to 64; gaps of 2, a title of 14, a caption of 14 above each row.
    assert pixels.shape == (16 + 80 * len(shown), 2 + 4 * 130, 3)
    tiles = {key: [pixels[30 + 80 * row :][:64, 2 + 130 * column :][:, :128]
                   for column in range(4)] for row, key in enumerate(shown)}
    alike = {key: [(tile[:, :64] == tile[:, 64:]).all() for tile in tiles[key]]
             for key in (COPIES, MIXED, FOREIGN)}
    assert alike == {COPIES: [True] * 4, MIXED: [True, True, False, False], FOREIGN: [False] * 4}
    copied = {tile[::4, :64:4].tobytes() for tile in tiles[MIXED][:2]}
    assert copied == {fit[i].permute(1, 2, 0).numpy().tobytes() for i in (2, 7)}
    evaluated(DOMAIN)
    assert contents(file.parent) == once


def test_a_sheet_of_reconstructions_where_there_is_nothing_else(done: Path) -> None:
    change(done, "samplers", to={"reconstruction": SAMPLERS["reconstruction"]})
    run_stages(["sample"])
    evaluated(DOMAIN)
    with Image.open(Path(f"data/metrics/{MODEL}/{DOMAIN}.png")) as sheet:
        assert sheet.height == 16 + 80 * len(load_params().levels)


def test_too_few_fit_images_for_a_ghost_probe_are_a_line(done: Path, caplog) -> None:
    with caplog.at_level(logging.INFO, "unseen"):
        metrics, images = evaluated(DOMAIN)
    assert len([r for r in caplog.records if "no ghost probabilities" in r.getMessage()]) == 1
    names = ["ghosts", "ghosts_low", "ghosts_high", "ghosts_held_out", "ghosts_ceiling",
             "ghosts_auc"]
    for key, found in metrics.items():
        assert [found[name] for name in names] == [None] * 6
        assert images[key]["ghost_probability"].isna().all()
        # The measures need no probe.
        assert all(np.isfinite(found[f"{name}_shift"]) for name in MEASURES)


@pytest.fixture
def digits(done: Path) -> None:
    """A domain with enough images for a ghost probe."""
    for name, value in (("fit", 60), ("held_out", 60), ("limit", 200)):
        change(done, "domains", OTHER, name, to=value)
    run_stage("fetch", {"domain": OTHER})


@pytest.mark.usefixtures("digits")
def test_each_space_has_its_own_flags() -> None:
    fit, held_out, others = (pictures(OTHER, side)[0].flatten(1).double().numpy()
                             for side in ("fit", "held_out", "rest"))
    plant(OTHER, REAL, pictures(OTHER, "rest")[0])
    metrics, images = evaluated(OTHER)
    natural = cdist(held_out, fit).min(1)
    least = cdist(others, fit).min(1)
    by_pixels = least < np.quantile(natural, 0.01)
    found, rows = metrics[REAL], images[REAL]
    assert found["copies_pixels"] == by_pixels.mean() > 0
    assert found["nearer_than_any_pixels"] == (least < natural.min()).mean()
    assert rows["near_duplicate_pixels"].tolist() == by_pixels.tolist()
    assert rows["near_duplicate"].tolist() != by_pixels.tolist()
    assert found["copies"] == rows["near_duplicate"].mean() > rows["nearer_than_any"].mean()
    assert found["nearer_than_any"] == rows["nearer_than_any"].mean()


@pytest.mark.usefixtures("digits")
def test_planted_ghosts_are_told_from_real_images() -> None:
    others, held_out = pictures(OTHER, "rest")[0], pictures(OTHER, "held_out")[0]
    plant(OTHER, HAUNTED, superpose(others, pictures(OTHER, "fit")[0].double().mean(0), seed=3))
    plant(OTHER, REAL, others)
    plant(OTHER, HELD_OUT, held_out)
    metrics, images = evaluated(OTHER)
    haunted, real, same = (metrics[key] for key in (HAUNTED, REAL, HELD_OUT))
    floor, ceiling = haunted["ghosts_held_out"], haunted["ghosts_ceiling"]
    assert haunted["ghosts_auc"] > 0.75 and ceiling - floor > 0.3
    assert haunted["ghosts_low"] > real["ghosts_high"]
    assert haunted["ghosts_low"] > floor + 0.2
    assert abs(haunted["ghosts"] - ceiling) < 0.12 and abs(real["ghosts"] - floor) < 0.12
    assert same["ghosts"] == pytest.approx(floor)
    for key, found in metrics.items():
        assert (found["ghosts_held_out"], found["ghosts_ceiling"]) == (floor, ceiling)
        assert found["ghosts"] == pytest.approx(images[key]["ghost_probability"].mean())
        assert 0 <= found["ghosts_low"] <= found["ghosts"] <= found["ghosts_high"] <= 1
    for name in MEASURES:
        assert same[f"{name}_shift"] == same[f"{name}_distance"] == 0
        assert haunted[f"{name}_distance"] > 0
